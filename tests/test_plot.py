"""Pictures of denoisers and runs: what is drawn, against the table it is drawn from."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from denograd import DenoGrad, Denoised, Layout, State, WienerDenoiser, plot
from denograd.audit import AuditLog, Seen
from denograd.estimators._plots import COLOURS
from denograd.inspection import MULTIPLIERS, InspectionError, Sensitivity, neutral, sensitivity
from denograd.plot._words import COEFFICIENTS, FEATURES, in_words

STEPS = 6


@pytest.fixture(scope="module")
def denoiser() -> WienerDenoiser:
    torch.manual_seed(0)
    made = WienerDenoiser(hidden=4)
    with torch.no_grad():
        made.last.weight.mul_(10)
    return made


def recorded(denoiser: Any, layers: int = 4, steps: int = STEPS, total: int = STEPS) -> AuditLog:
    """A recording of made-up layers; the last one never gets a gradient."""
    generator = torch.Generator().manual_seed(layers)
    log = AuditLog(1)
    layout, ones = Layout((3,) * layers, (1,) * layers), torch.ones(layers)
    for step in range(steps):
        seen = torch.randn(layers, len(denoiser.feature_names), generator=generator)
        plain = torch.randn(3 * layers, generator=generator)
        plain[-3:] = 0.0
        cleaned = plain * torch.rand(3 * layers, generator=generator) * 2
        with torch.no_grad():
            result = Denoised(cleaned, None, None, State({}, {}), denoiser.coefficients(seen))
        log.record(
            step,
            [f"layer {i}" for i in range(layers)],
            denoiser.coefficient_names,
            layout,
            plain,
            result,
            ones,
            ones > 1,
            seen=Seen(denoiser.feature_names, seen),
            total_steps=total,
        )
    return log


@pytest.fixture(scope="module")
def log(denoiser: WienerDenoiser) -> AuditLog:
    return recorded(denoiser)


@pytest.fixture(scope="module")
def answers(denoiser: WienerDenoiser, log: AuditLog) -> Sensitivity:
    return sensitivity(denoiser, [log])


def panels(figure: Any) -> list[Axes]:
    """Panels that show something, without colour bars."""
    return [a for a in figure.axes if a.axison and a.get_label() != "<colorbar>"]


def saved(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=30)
    return file.getvalue()


# Over the phase of training.


def test_phase_has_a_line_for_each_layer_of_a_run(log: AuditLog) -> None:
    figure = plot.phase(log)
    frame = log.to_frame()
    found = {a.get_title(loc="left"): a for a in panels(figure)}
    assert list(found) == list(log.coefficient_names)
    for name, axes in found.items():
        lines = {line.get_label(): line for line in axes.lines}
        for layer, rows in frame.groupby("layer"):
            line = lines[layer]
            np.testing.assert_allclose(np.asarray(line.get_xdata(), float), rows["phase"])
            np.testing.assert_allclose(np.asarray(line.get_ydata(), float), rows[name])
            assert to_hex(line.get_color()) in COLOURS
        assert axes.get_yscale() == ("log" if name in MULTIPLIERS else "linear")
    assert len(saved(figure)) > 1000


def test_phase_of_several_runs_is_the_median_of_all_their_layers(denoiser: WienerDenoiser) -> None:
    runs = {"small": [recorded(denoiser, 2), recorded(denoiser, 5)], "wide": recorded(denoiser, 9)}
    figure = plot.phase(runs)
    axes = panels(figure)[0]
    name = axes.get_title(loc="left")
    tables = [one.to_frame() for one in runs["small"]]  # type: ignore[union-attr]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert {"small", "wide"} <= set(lines)
    for step, value in enumerate(np.asarray(lines["small"].get_ydata(), float)):
        together = np.concatenate([t[t["step"] == step][name] for t in tables])
        assert value == pytest.approx(np.median(together))
    assert len(axes.collections) == 2, "a band for each"


def test_many_records_are_taken_together_and_an_unknown_length_is_in_steps(
    denoiser: WienerDenoiser,
) -> None:
    log = recorded(denoiser, 2, steps=100, total=0)
    axes = panels(plot.phase(log))[-1]
    assert axes.get_xlabel() == "steps done"
    x = np.asarray(axes.lines[0].get_xdata(), float)
    assert len(x) == 30
    assert 0 < x.min() < x.max() < 100


# Over layers.


def test_layers_are_the_medians(log: AuditLog) -> None:
    figure = plot.layers(log)
    (axes,) = panels(figure)
    frame = log.to_frame()
    names = list(log.coefficient_names)
    medians = frame.groupby("layer", sort=False)[names].median()
    assert [t.get_text() for t in axes.get_yticklabels()] == list(medians.index)
    assert [t.get_text() for t in axes.get_xticklabels()] == names
    texts = np.array([float(t.get_text()) for t in axes.texts]).reshape(medians.shape)
    np.testing.assert_allclose(texts, medians, rtol=0.06, atol=1e-6)
    shades = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(abs(shades).max(0), 1.0)
    gains = np.log(medians["gradient_gain"])
    np.testing.assert_allclose(shades[:, 0], gains / abs(gains).max(), rtol=1e-5)


def test_layers_of_several_runs_are_told_apart(denoiser: WienerDenoiser) -> None:
    figure = plot.layers({"a": recorded(denoiser, 1), "b": recorded(denoiser, 2)})
    labels = [t.get_text() for t in panels(figure)[0].get_yticklabels()]
    assert labels == ["a: layer 0", "b: layer 0", "b: layer 1"]


# Energy.


def test_energy_is_kept_and_removed(log: AuditLog) -> None:
    figure = plot.energy(log)
    left, right = panels(figure)
    frame = log.to_frame()
    kept, gone = (
        np.ma.filled(a.images[0].get_array().astype(float), np.nan) for a in (left, right)
    )  # type: ignore[union-attr]
    assert kept.shape == gone.shape == (4, STEPS)
    for i, layer in enumerate(frame["layer"].unique()):
        rows = frame[frame["layer"] == layer]
        if i == 3:
            assert np.isnan(kept[i]).all(), "a gradient of zero has nothing to keep"
            assert np.isnan(gone[i]).all()
            continue
        before = rows["energy_before"].to_numpy()
        np.testing.assert_allclose(2 ** kept[i], rows["energy_after"] / before, rtol=1e-4)
        np.testing.assert_allclose(gone[i], rows["energy_removed"] / before, rtol=1e-4)
    saved(figure)


def test_energy_needs_no_coefficients() -> None:
    net = torch.nn.Linear(2, 1)
    optimizer = DenoGrad(torch.optim.SGD(net.parameters(), lr=0.1), "identity", record=1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(4, 2)).square().sum().backward()
        optimizer.step()
    left, right = panels(plot.energy(optimizer.recording))
    assert (np.asarray(left.images[0].get_array()) == 0).all()
    assert (np.asarray(right.images[0].get_array()) == 0).all()
    for draw in (plot.phase, plot.layers):
        with pytest.raises(InspectionError, match="no coefficients"):
            draw(optimizer.recording)


# How coefficients come about.


def test_the_map_of_sensitivity_holds_the_shares(answers: Sensitivity) -> None:
    figure = plot.sensitivity(answers)
    (axes,) = panels(figure)
    shown = np.asarray(axes.images[0].get_array())
    order = np.argsort(-answers.share.sum(1), kind="stable")
    np.testing.assert_allclose(shown, 100 * answers.share[order])
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels == [in_words(answers.features[i]) for i in order]
    signs = {1: "+", -1: "−", 0: "±"}  # noqa: RUF001
    texts = np.array([t.get_text() for t in axes.texts]).reshape(shown.shape)
    for (i, j), text in np.ndenumerate(texts):
        feature, coefficient = answers.features[order[i]], answers.coefficients[j]
        if shown[i, j] >= 0.5:
            assert text[0] == signs[answers.sign(feature, coefficient)]
            assert float(text[1:]) == pytest.approx(shown[i, j], abs=0.51)
        else:
            assert text == ""
    saved(figure)


def test_dependence_draws_the_curves_of_the_top_features(answers: Sensitivity) -> None:
    figure = plot.dependence(answers, ["update_gain", "add_fast"], top=2)
    shown = panels(figure)
    assert len(shown) == 4
    for number, axes in enumerate(shown):
        name = ("update_gain", "add_fast")[number // 2]
        feature = answers.top(name, 2)[number % 2]
        f, k = answers.features.index(feature), answers.coefficients.index(name)
        mean = answers.mean[f, :, k]
        expected = np.exp(mean) if name in MULTIPLIERS else mean
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata(), float), expected)
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_xdata(), float), answers.grid[f])
        assert " ".join(axes.get_xlabel().split()) == in_words(feature)
    saved(figure)


def test_the_line_of_no_effect_stands_in_every_panel_that_reaches_it(answers: Sensitivity) -> None:
    names = answers.coefficients
    figure = plot.dependence(answers, names, top=2)
    reached = 0
    for number, axes in enumerate(panels(figure)):
        low, high = axes.get_ylim()
        still = neutral(names[number // 2])
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert len(dashed) == (low <= still <= high)
        if dashed:
            reached += 1
            assert np.asarray(dashed[0].get_ydata(), float).tolist() == [still, still]
    assert reached >= 2


@pytest.mark.parametrize(
    ("chosen", "top", "message"),
    [("gain", 2, "'gain'"), ([], 2, r"\[\]"), ("decay", 0, "top=0")],
)
def test_dependence_refuses(answers: Sensitivity, chosen: Any, top: int, message: str) -> None:
    with pytest.raises(InspectionError, match=message):
        plot.dependence(answers, chosen, top)


# All of them.


def test_they_draw_into_a_figure_of_yours(log: AuditLog, answers: Sensitivity) -> None:
    whole = Figure(figsize=(20, 8), layout="constrained")
    FigureCanvasAgg(whole)
    parts = whole.subfigures(1, 3)
    assert plot.layers(log, figure=parts[0]) is parts[0]
    assert plot.dependence(answers, "decay", 2, figure=parts[1]) is parts[1]
    assert plot.energy(log, figure=parts[2]) is parts[2]
    saved(whole)
    with pytest.raises(ValueError, match="figure is a str"):
        plot.phase(log, figure="mine")  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", [plot.phase, plot.layers, plot.energy])
def test_nothing_to_draw(draw: Any) -> None:
    with pytest.raises(InspectionError, match="recording 'mine' is empty"):
        draw({"mine": AuditLog(1)})
    with pytest.raises(InspectionError, match="runs is a str; give a recording"):
        draw("mine")
    with pytest.raises(InspectionError, match="no recording"):
        draw({})


def test_words_fit_into_a_label() -> None:
    for text in (*FEATURES.values(), *COEFFICIENTS.values()):
        assert 4 < len(text) <= 45
    assert len(set(FEATURES.values())) == len(FEATURES)
