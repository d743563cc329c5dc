"""What an inspection says of a denoiser, against denoisers whose inside is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from denograd import Context, DenoGrad, Denoised, Layout, State, WienerDenoiser, save_denoiser
from denograd import inspection as inside
from denograd._cli_inspect import register
from denograd._inspection_report import findings
from denograd._inspection_words import Findings, figure, in_short, sentence
from denograd.audit import AuditLog, Seen
from denograd.data import TableError
from denograd.inspection import (
    InspectionError,
    Sensitivity,
    readable,
    reference_runs,
    sensitivity,
)
from denograd.statistics import FEATURES

LAYERS, STEPS = 5, 30


class Known:
    """Coefficients that are a formula of the features."""

    def __init__(self, features: int, weights: Tensor, pooled: bool = False) -> None:
        self.feature_names = tuple(f"f{i}" for i in range(features))
        # The second one multiplies.
        self.coefficient_names = ("a", "update_gain")[: weights.shape[1]]
        self.weights, self.pooled = weights, pooled

    def coefficients(self, features: Tensor) -> Tensor:
        if self.pooled:
            features = features.mean(-2, keepdim=True).expand_as(features)
        found = features @ self.weights
        return torch.cat((found[..., :1], found[..., 1:].exp()), dim=-1)

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        return State({}, {})

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        return Denoised(gradient, None, None, state)


def recording_of(denoiser: Any, features: Sequence[Tensor]) -> AuditLog:
    """A recording in which layers had these features, ``(L, F)`` a step."""
    log = AuditLog(1)
    for step, seen in enumerate(features):
        layers = len(seen)
        layout, ones = Layout((1,) * layers, (1,) * layers), torch.ones(layers, dtype=seen.dtype)
        with torch.no_grad():
            chosen = denoiser.coefficients(seen)
        log.record(
            step,
            [f"layer {i}" for i in range(layers)],
            denoiser.coefficient_names,
            layout,
            ones,
            Denoised(ones, None, None, State({}, {}), chosen),
            ones,
            ones > 1,
            seen=Seen(tuple(denoiser.feature_names), seen),
            total_steps=len(features),
        )
    return log


def drawn(features: int, seed: int = 0, same: Sequence[int] = ()) -> list[Tensor]:
    """Features of all steps; those in ``same`` do not differ between layers."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(STEPS):
        x = torch.randn(LAYERS, features, generator=generator, dtype=torch.float64)
        x[:, list(same)] = x[:1, list(same)]
        made.append(x)
    return made


def seen_range(features: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    every = torch.cat(list(features)).numpy()
    low, high = np.quantile(every, 0.05, axis=0), np.quantile(every, 0.95, axis=0)
    return np.asarray(high - low)


# Sensitivity.


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), features=st.integers(1, 6))
def test_a_linear_denoiser_answers_in_proportion(seed: int, features: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(features, 2, generator=generator, dtype=torch.float64)
    rows = drawn(features, seed, same=[0])
    denoiser = Known(features, weights)
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    expected = weights.numpy() * seen_range(rows)[:, None]
    np.testing.assert_allclose(found.direction, expected, rtol=1e-6)
    np.testing.assert_allclose(found.effect, abs(expected), rtol=1e-6)
    np.testing.assert_allclose(found.share.sum(0), 1.0)
    assert found.together.tolist() == [True] + [False] * (features - 1)
    for name, column in zip(found.coefficients, weights.T, strict=True):
        for feature, weight in zip(found.features, column.tolist(), strict=True):
            assert found.sign(feature, name) == np.sign(weight)
        strongest = np.argsort(-abs(column.numpy() * seen_range(rows)))[:3]
        assert found.top(name) == [f"f{i}" for i in strongest]


def test_one_recording_and_a_name_are_taken_too() -> None:
    (run,) = reference_runs("default", ["iris"], ["soft_tree"], rows=32, steps=6)
    several = sensitivity(readable("default"), [run.recording])
    np.testing.assert_array_equal(sensitivity("default", run.recording).effect, several.effect)


def test_a_mean_over_layers_moves_along() -> None:
    rows = drawn(2, same=[1])
    denoiser = Known(2, torch.ones(2, 1, dtype=torch.float64), pooled=True)
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    alone, together = seen_range(rows)
    np.testing.assert_allclose(found.effect[:, 0], [alone / LAYERS, together], rtol=1e-6)


def test_curves_are_the_coefficients_at_those_values() -> None:
    weights = torch.tensor([[2.0, 0.5], [0.3, -1.0]], dtype=torch.float64)
    rows = drawn(2)
    denoiser = Known(2, weights)
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    other = torch.cat(rows)[:, 1].numpy()
    expected = 2.0 * found.grid[0] + 0.3 * other.mean()
    np.testing.assert_allclose(found.mean[0, :, 0], expected, rtol=1e-6)
    band = 0.3 * np.quantile(other, 0.9) + 2.0 * found.grid[0]
    np.testing.assert_allclose(found.high[0, :, 0], band, rtol=1e-6)
    # The second is exp of a sum, and stands here as that sum.
    expected = 0.5 * found.grid[0] - 1.0 * other.mean()
    np.testing.assert_allclose(found.mean[0, :, 1], expected, rtol=1e-6)


def test_up_and_down_is_no_direction() -> None:
    class Bump(Known):
        def coefficients(self, features: Tensor) -> Tensor:
            return features[..., :1].square()

    rows = [x - torch.cat(drawn(1)).median() for x in drawn(1)]
    denoiser = Bump(1, torch.ones(1, 1))
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    assert found.effect[0, 0] > 1
    assert found.sign("f0", "a") == 0


def test_a_feature_that_never_changed_has_no_effect() -> None:
    rows = drawn(2)
    for x in rows:
        x[:, 1] = 1.0
    denoiser = Known(2, torch.ones(2, 2, dtype=torch.float64))
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    assert found.effect[1].tolist() == [0.0, 0.0]
    assert found.top("a") == ["f0"]


@pytest.mark.parametrize("pooled", [False, True])
def test_small_moves_are_the_derivative(pooled: bool) -> None:
    torch.manual_seed(0)
    denoiser = WienerDenoiser(hidden=6, pooled=pooled).double()
    with torch.no_grad():
        denoiser.last.weight.mul_(10)
    names, middle = denoiser.coefficient_names, torch.randn(1, LAYERS, len(FEATURES))
    size = 1e-4
    rows = [(middle + size * torch.randn_like(middle)).double()[0] for _ in range(STEPS)]
    # Twenty of the features are the layer's own, the others are the same in all layers.
    for x in rows:
        x[:, 20:] = x[:1, 20:]
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    at = torch.stack(rows).mean(0).requires_grad_()
    values = denoiser.coefficients(at)
    scaled = torch.stack(
        [c.log() if n in inside.MULTIPLIERS else c for n, c in zip(names, values.unbind(-1))],  # noqa: B905
        dim=-1,
    )
    # A feature of one layer can be far from the others', so ranges are not small for it; the
    # derivative is that along the layers' own values only for features that are the same.
    slopes = np.zeros((len(FEATURES), len(names)))
    for k in range(len(names)):
        for layer in range(LAYERS):
            (gradient,) = torch.autograd.grad(scaled[layer, k], at, retain_graph=True)
            slopes[:, k] += gradient.sum(0).numpy() / LAYERS
    span = found.grid[:, -1] - found.grid[:, 0]
    assert (span[20:] < 10 * size).all()
    np.testing.assert_allclose(
        found.direction[20:] / span[20:, None], slopes[20:], rtol=1e-2, atol=1e-4
    )


@given(seed=st.integers(0, 100))
@settings(max_examples=3)
def test_a_direction_is_no_more_than_its_effect(seed: int) -> None:
    torch.manual_seed(seed)
    denoiser = WienerDenoiser(hidden=4)
    rows = [x.float() for x in drawn(len(FEATURES), seed)]
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    assert (abs(found.direction) <= found.effect + 1e-9).all()
    assert (found.low <= found.high + 1e-12).all()
    frame = found.to_frame()
    assert len(frame) == len(FEATURES) * len(denoiser.coefficient_names)
    for _, part in frame.groupby("coefficient"):
        assert (np.diff(part["effect"]) <= 1e-12).all()


def test_a_coefficient_that_is_switched_off_does_not_move() -> None:
    denoiser = WienerDenoiser(hidden=4, disabled=("decay", "update_gain"))
    rows = [x.float() for x in drawn(len(FEATURES))]
    found = sensitivity(denoiser, [recording_of(denoiser, rows)])
    assert found.top("decay") == found.top("update_gain") == []
    assert np.isfinite(found.mean).all()


# What is refused.


def test_recordings_of_something_else() -> None:
    one = Known(2, torch.ones(2, 2, dtype=torch.float64))
    other = Known(2, 2 * torch.ones(2, 2, dtype=torch.float64))
    more = Known(3, torch.ones(3, 2, dtype=torch.float64))
    log = recording_of(one, drawn(2))
    with pytest.raises(InspectionError, match="does not choose the coefficients"):
        sensitivity(other, [log])
    with pytest.raises(InspectionError, match="2 features and the denoiser 3; they differ in f2"):
        sensitivity(more, [log])
    with pytest.raises(InspectionError, match="empty"):
        sensitivity(one, [AuditLog(1)])


def test_a_recording_without_features() -> None:
    net = nn.Linear(2, 2)
    known = Known(2, torch.ones(2, 2))
    optimizer = DenoGrad(torch.optim.SGD(net.parameters(), lr=0.1), known, model=net, record=1)
    net(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    with pytest.raises(InspectionError, match="no features: only those of a WienerDenoiser"):
        sensitivity(known, [optimizer.recording])


@pytest.mark.parametrize("spec", ["identity", "no such denoiser", 3])
def test_denoisers_without_an_inside(spec: Any) -> None:
    with pytest.raises(InspectionError, match="denoiser="):
        inside.readable(spec)


# Reference trainings.


def test_reference_runs_are_recorded_and_learn_something() -> None:
    told: list[str] = []
    options: dict[str, Any] = {"rows": 32, "steps": 20, "every": 5, "progress": told.append}
    runs = reference_runs("default", ["iris"], ["soft_tree", "attention"], **options)
    assert told == ["iris, soft_tree", "iris, attention"]
    for run in runs:
        frame = run.recording.to_frame()
        assert frame["step"].unique().tolist() == [0, 5, 10, 15]
        assert run.last_loss < run.first_loss
        assert run.recording.feature_names == FEATURES
    again = reference_runs("default", ["iris"], ["soft_tree"], rows=32, steps=20, every=3)
    assert (again[0].first_loss, again[0].last_loss) == runs[0][3:]
    assert list(inside.by_model(runs)) == ["soft_tree", "attention"]


def test_the_denoiser_for_measured_targets_is_inspected_on_one() -> None:
    (run,) = reference_runs("regression", models=["soft_tree"], rows=48, steps=60)
    assert run.table == "diabetes"
    assert run.last_loss < run.first_loss
    # The squared error of a standardised target: at first that of guessing the mean.
    assert run.first_loss == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tables": []}, r"tables=\[\]; name at least one"),
        ({"models": ["soft_tree"] * 2}, "each once"),
        ({"models": ["oak"]}, "oak"),
        ({"rows": 0}, "rows=0"),
        ({"steps": 1.5}, r"steps=1\.5"),
    ],
)
def test_reference_runs_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InspectionError, match=message):
        reference_runs("default", **{"tables": ["iris"], "models": ["soft_tree"], **options})


def test_tables_that_are_refused() -> None:
    with pytest.raises(TableError, match="irises"):
        reference_runs("default", ["irises"])
    with pytest.raises(TableError, match="9999"):
        reference_runs("default", ["iris"], rows=9999)


# In numbers and words.


def test_findings_are_those_of_the_table() -> None:
    denoiser = Known(2, torch.tensor([[2.0, 0.0], [-0.1, 0.5]], dtype=torch.float64))
    log = recording_of(denoiser, drawn(2))
    answers = sensitivity(denoiser, [log])
    found = findings("Seen.", answers, {"mine": [log]})
    frame = log.to_frame()
    first, second = found.coefficients
    assert first["median"] == pytest.approx(np.median(frame["a"]))
    assert first["low"] == pytest.approx(np.quantile(frame["a"], 0.1))
    early, late = frame["step"] < 0.2 * STEPS, frame["step"] >= 0.8 * STEPS
    assert second["start"] == pytest.approx(np.median(frame["update_gain"][early]))
    assert second["end"] == pytest.approx(np.median(frame["update_gain"][late]))
    assert [f["name"] for f in first["features"]] == ["f0", "f1"]
    assert [f["sign"] for f in first["features"]] == [1, -1]
    assert [f["name"] for f in second["features"]] == ["f1"]
    ratio = np.exp(0.5 * seen_range(drawn(2))[1])
    assert second["features"][0]["effect"] == pytest.approx(ratio, rel=1e-6)
    assert found.energy["mine"] == {"kept": 1, "kept_start": 1, "kept_end": 1, "removed": 0}
    assert found.themes == {"something else": pytest.approx(1.0)}
    assert "It rises with: f0 (" in sentence(first)
    assert "It falls with: f1 (" in sentence(first)
    assert "by a factor of" in sentence(second)


def coefficient(name: str, start: float, end: float, *signs: int) -> dict[str, Any]:
    features = [
        {"name": f"f{i}", "words": f"thing {i}", "sign": sign, "share": 0.1, "effect": 1.5}
        for i, sign in enumerate(signs)
    ]
    numbers = {"median": (start + end) / 2, "low": -1.0, "high": 9.0, "start": start, "end": end}
    return {"name": name, "words": name, "neutral": 1.0, **numbers, "features": features}


def test_in_short_says_what_the_numbers_say() -> None:
    falls = Findings(
        "Seen.",
        [
            coefficient("update_gain", 4.0, 1.0, 1, -1),
            coefficient("fast_filter", 0.2, 0.6, -1, 1),
            coefficient("fast_kappa", 0.5, 3.0),
            coefficient("add_fast", -0.2, -0.4),
            coefficient("add_slow", 0.2, 0.4),
        ],
        {"time": 0.7, "something else": 0.3},
        {"mine": {"kept": 1.0, "kept_start": 0.5, "kept_end": 2.0, "removed": 0.25}},
        {"mine": made_steps(3.0, 0.5, 0.25, 0.5)},
    )
    steps, factor, gradient, fast, slow, energy, themes = in_short(falls)
    assert "by 3 at the start of a run and by 0.5 at its end" in steps
    assert "in effect falls. The filter takes 25 % of the step at the start and 50 %" in steps
    assert "`update_gain` alone is 2.5 as a rule (from -1 to 9)." in factor
    assert "It is larger with more of: thing 0. It is smaller with more of: thing 1." in factor
    assert "40 % of the gradient goes through it, 20 % at the start" in gradient
    assert "allows for 0.5 times the measured noise at the start and 3 times at" in gradient
    assert gradient.endswith(
        "The part that goes through is larger with more of: thing 1. "
        "It is smaller with more of: thing 0."
    )
    assert "0.3 of it is taken from the gradient as a rule (`add_fast` is from -1 to 9)." in fast
    assert "0.3 of it is added to the gradient" in slow
    assert "0.5 times the energy of the plain one at the start and 2 times at the end" in energy
    assert "time (70 %), something else (30 %)" in themes
    even = {"mine": made_steps(2.0, 2.1, 0.0, 0.0)}
    line, _ = in_short(Findings("Seen.", [coefficient("update_gain", 9.0, 1.0)], {}, {}, even))
    assert "in effect stays about the same." in line


def made_steps(*numbers: float) -> dict[str, float]:
    names = ("factor_start", "factor_end", "taken_start", "taken_end")
    return dict(zip(names, numbers, strict=True))


def test_steps_are_those_that_the_parameters_took() -> None:
    torch.manual_seed(0)
    denoiser = WienerDenoiser(hidden=4, disabled=("decay",))
    with torch.no_grad():
        denoiser.last.weight.mul_(20)
        denoiser.last.bias.zero_()
    net = nn.Linear(3, 2)
    optimizer = DenoGrad(
        torch.optim.SGD(net.parameters(), lr=0.1), denoiser, model=net, total_steps=10, record=1
    )
    factors, taken = [], []
    for step in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.randn(8, 3)), torch.arange(8) % 2).backward()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.step()
        chosen = optimizer.recording.to_frame().query(f"step == {step}")["update_gain"]
        for p, old, gain in zip(net.parameters(), before, chosen, strict=True):
            assert p.grad is not None
            made = ((p.detach() - old) / (-0.1 * p.grad)).mean().item()
            factors.append(made)
            taken.append(1 - made / gain)
    log = optimizer.recording
    found = findings("Seen.", sensitivity(denoiser, [log]), {"mine": [log]})
    expected = made_steps(
        *(float(np.median(part)) for x in (factors, taken) for part in (x[:4], x[-4:]))
    )
    assert found.steps["mine"] == pytest.approx(expected, rel=1e-3)
    assert min(taken) > 0.05


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.0, "1"), (0.1234, "0.12"), (-0.59, "-0.59"), (12.4, "12"), (4444.0, "4400"),
     (1e-5, "1.0e-05"), (1.96, "2")],
)  # fmt: skip
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


# The command.


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    register(made)
    return made


def run(app: typer.Typer, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_help_has_examples(app: typer.Typer) -> None:
    result = run(app, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert "denograd inspect default" in result.output


def test_a_denoiser_is_inspected(app: typer.Typer, tmp_path: Path) -> None:
    out = tmp_path / "inside"
    options = ["--models", "soft_tree", "--rows", "32", "--steps", "16", "--out", out]
    result = run(app, "default", "--builtin", "iris", *options)
    assert result.exit_code == 0, result.output
    names = {"sensitivity", "dependence", "phase", "layers", "energy"}
    assert {p.stem for p in out.glob("*.png")} == names
    written = json.loads((out / "inspection.json").read_text())
    runs = reference_runs("default", ["iris"], ["soft_tree"], rows=32, steps=16)
    answers = sensitivity(inside.readable("default"), [r.recording for r in runs])
    again = findings(written["subject"], answers, inside.by_model(runs))
    assert written["coefficients"] == json.loads(json.dumps(again.coefficients))
    assert written["energy"] == again.energy
    assert written["steps"] == again.steps
    assert sum(written["themes"].values()) == pytest.approx(1.0)
    noise = [i for i, f in enumerate(FEATURES) if "snr" in f or "noise" in f]
    expected = answers.share[noise].sum(0).mean()
    assert written["themes"]["noise against signal"] == pytest.approx(expected)
    page = (out / "inspection.md").read_text()
    for coefficient in written["coefficients"]:
        assert coefficient["name"] in result.output
        assert sentence(coefficient) in page
    for name in names:
        assert f"({name}.png)" in page


def test_a_finished_run_is_inspected(app: typer.Typer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = WienerDenoiser(hidden=4)
    save_denoiser(denoiser, tmp_path / "mine.safetensors", {})
    net = nn.Linear(3, 2)
    base = torch.optim.AdamW(net.parameters(), lr=0.1)
    optimizer = DenoGrad(base, tmp_path / "mine.safetensors", model=net, record=2)
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.randn(8, 3)), torch.arange(8) % 2).backward()
        optimizer.step()
    file = tmp_path / "run.json"
    optimizer.recording.save(file)
    result = run(app, tmp_path / "mine.safetensors", "--run", file, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert list(written["energy"]) == ["run"]
    frame = optimizer.recording.to_frame()
    for coefficient in written["coefficients"]:
        expected = frame[coefficient["name"]].median()
        assert coefficient["median"] == pytest.approx(expected, rel=1e-5)

    wrong = run(app, "default", "--run", file, "--out", tmp_path / "out")
    assert wrong.exit_code == 2
    assert "give the denoiser that the run was made with" in " ".join(wrong.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["identity"], "nothing to look into"),
        (["nowhere.safetensors"], "no such file"),
        (["defualt"], "no such denoiser"),
        (["default", "--run", "x.json", "--rows", "3"], "--rows is about reference trainings"),
        (["default", "--run", "x.json", "--rows", "0"], "--rows is about reference trainings"),
        (["default", "--out", __file__], "it is a file; name a folder"),
        (["default", "--run", "x.json"], "x.json: no such file"),
        (["default", "--builtin", "irises"], "irises"),
        (["default", "--models", "oak"], "oak"),
        (["default", "--steps", "-1"], "steps=-1"),
    ],
)
def test_mistakes_are_named(app: typer.Typer, arguments: list[str], message: str) -> None:
    result = run(app, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_the_threads_are_put_back(app: typer.Typer) -> None:
    before = torch.get_num_threads()
    run(app, "default", "--steps", "-1")
    assert torch.get_num_threads() == before


def test_a_sensitivity_of_nothing_has_no_shares() -> None:
    zeros = np.zeros((2, 1))
    curve = np.zeros((2, 9, 1))
    found = Sensitivity(
        ("x", "y"), ("c",), np.zeros((2, 9)), curve, curve, curve, zeros, zeros, zeros[:, 0] > 1
    )
    assert found.share.tolist() == [[0.0], [0.0]]
    assert found.top("c") == []
