"""Denoisers on disk: what is saved comes back, and what is damaged is refused by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import denograd
from denograd.denoisers import (
    DenoiserFileError,
    IdentityDenoiser,
    WienerDenoiser,
    denoiser_for,
    load_denoiser,
    read_card,
    resolve_denoiser,
    save_denoiser,
    shipped_denoisers,
)

CARD = {
    "training": {"seed": 3, "data": ["prior", "größe.csv"], "base": "adamw"},
    "figures": {"log_loss": 0.25},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_denoiser(_random_denoiser(), path, CARD)
    return path


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes, dict[str, torch.Tensor]]:
    """A sound pair of files as bytes, and the weights in it."""
    denoiser = _random_denoiser()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.safetensors"
        save_denoiser(denoiser, path, CARD)
        return path.read_bytes(), path.with_suffix(".json").read_bytes(), denoiser.state_dict()


def _random_denoiser(hidden: int = 4, pooled: bool = True) -> WienerDenoiser:
    torch.manual_seed(hidden)
    denoiser = WienerDenoiser(hidden=hidden, pooled=pooled)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.normal_()
    return denoiser


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _edit_card(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    card_path = path.with_suffix(".json")
    card = json.loads(card_path.read_text())
    edit(card)
    card_path.write_text(json.dumps(card))


def _edit_weights(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors and make the card's checksum agree."""
    tensors = safetensors.torch.load(path.read_bytes())
    edit(tensors)
    data = safetensors.torch.save(tensors)
    path.write_bytes(data)
    _edit_card(path, lambda card: card.update(sha256=hashlib.sha256(data).hexdigest()))


# ---------------------------------------------------------------- what is saved comes back


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_exact(tmp_path: Path, dtype: torch.dtype, pooled: bool) -> None:
    denoiser = _random_denoiser(hidden=5, pooled=pooled).to(dtype)
    save_denoiser(denoiser, tmp_path / "new" / "v1.2.safetensors", CARD)
    loaded = load_denoiser(str(tmp_path / "new" / "v1.2.safetensors"))
    assert loaded.config == denoiser.config
    assert _same(loaded.state_dict(), denoiser.state_dict())
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert all(p.requires_grad for p in loaded.parameters())


def test_card_says_what_the_weights_are(saved: Path) -> None:
    card = read_card(saved)
    assert card == read_card(saved.with_suffix(".json"))
    assert card["schema"] == 1
    assert card["kind"] == "wiener"
    assert card["features"] == list(WienerDenoiser.feature_names)
    assert card["coefficients"] == list(WienerDenoiser.coefficient_names)
    assert card["config"] == CONFIG
    assert card["tensors"]["second.weight"] == [4, 4]
    assert card["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert card["training"] == CARD["training"]
    assert card["figures"] == CARD["figures"]
    assert card["denograd_version"] == denograd.__version__


def test_training_and_figures_may_be_left_out_and_keys_added(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_denoiser(_random_denoiser(), path, {"note": "an ablation"})
    card = read_card(path)
    assert (card["training"], card["figures"], card["note"]) == ({}, {}, "an ablation")


def test_a_card_may_say_what_a_denoiser_is_for(saved: Path) -> None:
    advice = {"intended_use": "Small tables.", "not_for": "Series; they lose."}
    save_denoiser(_random_denoiser(), saved, CARD | advice)
    assert advice.items() <= read_card(saved).items()
    load_denoiser(saved)


def test_saving_leaves_only_the_two_files_and_replaces_them(saved: Path) -> None:
    other = _random_denoiser(hidden=6)
    save_denoiser(other, saved, CARD)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["mine.json", "mine.safetensors"]
    assert _same(load_denoiser(saved).state_dict(), other.state_dict())


def test_an_interrupted_save_is_noticed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def stop_at_the_card(source: Path, target: Path) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_card)
    changed = _random_denoiser()
    with torch.no_grad():
        changed.first.weight.add_(1.0)
    with pytest.raises(KeyboardInterrupt):
        save_denoiser(changed, saved, CARD)
    monkeypatch.undo()
    assert not list(saved.parent.glob(".*")), "a temporary file was left"
    with pytest.raises(DenoiserFileError, match="sha256"):
        load_denoiser(saved)


def test_loading_leaves_the_random_numbers_and_defaults_alone(saved: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_denoiser(saved)
    assert torch.equal(torch.rand(3), expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in load_denoiser(saved).parameters()} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert {p.device.type for p in load_denoiser(saved).parameters()} == {"cpu"}


def test_a_header_length_that_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    tensors = {k: v.detach() for k, v in _random_denoiser().state_dict().items()}
    for length in range(200):  # pad until the header is 0x0280 or 0x0380 bytes long
        data = safetensors.torch.save(tensors, metadata={"pad": "x" * length})
        if data[:2] in (b"\x80\x02", b"\x80\x03"):
            break
    else:
        pytest.fail("no padding gave such a header")
    path = tmp_path / "a.safetensors"
    save_denoiser(_random_denoiser(), path, CARD)
    path.write_bytes(data)
    _edit_card(path, lambda card: card.update(sha256=hashlib.sha256(data).hexdigest()))
    assert _same(load_denoiser(path).state_dict(), tensors)


# ------------------------------------------------------------------ what can't be saved


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"sha256": "0"}, "sha256"),
        ({"schema": 1}, "schema"),
        ({"training": "none"}, "training"),
        ({"intended_use": ["tables"]}, "must be sentences in one text, got ['tables']"),
        ({"not_for": " "}, "'not_for'"),
        ({"figures": {"log_loss": float("nan")}}, "not plain JSON"),
        ({"figures": {"path": Path()}}, "not plain JSON"),
    ],
)
def test_bad_cards_are_refused_and_write_nothing(
    tmp_path: Path, card: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        save_denoiser(_random_denoiser(), tmp_path / "a.safetensors", card)
    assert not list(tmp_path.iterdir())


def test_bad_denoisers_and_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_denoiser(_random_denoiser(), tmp_path / "a.pt", CARD)
    with pytest.raises(TypeError, match="IdentityDenoiser"):
        save_denoiser(IdentityDenoiser(), tmp_path / "a.safetensors", CARD)  # type: ignore[arg-type]
    broken = _random_denoiser()
    with torch.no_grad():
        broken.last.bias[0] = float("inf")
    with pytest.raises(ValueError, match=r"last\.bias"):
        save_denoiser(broken, tmp_path / "a.safetensors", CARD)
    with pytest.raises(ValueError, match=r"torch\.float16"):
        save_denoiser(_random_denoiser().half(), tmp_path / "a.safetensors", CARD)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ what can't be loaded


def _set(**values: Any) -> Callable[[Path], None]:
    return lambda path: _edit_card(path, lambda card: card.update(values))


def _drop(key: str) -> Callable[[Path], None]:
    return lambda path: _edit_card(path, lambda card: card.pop(key))


def _text(text: str | bytes) -> Callable[[Path], object]:
    data = text.encode() if isinstance(text, str) else text
    return lambda path: path.with_suffix(".json").write_bytes(data)


def _weights(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    return lambda path: _edit_weights(path, edit)


CONFIG = _random_denoiser().config
FEATURES = list(WienerDenoiser.feature_names)
DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # name: (what happens, the file that the error names, words of the error)
    "missing": (lambda p: p.unlink(), "mine.safetensors", "no such file; check the path"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "mine.safetensors", "can't be read"),
    "no card": (lambda p: p.with_suffix(".json").unlink(), "mine.json", "card is missing"),
    "empty": (_weights(b""), "mine.safetensors", "truncated or damaged"),
    "text": (_weights(b"not a tensor at all"), "mine.safetensors", "truncated or damaged"),
    "truncated": (
        lambda p: p.write_bytes(p.read_bytes()[:-7]),
        "mine.safetensors",
        "truncated or damaged",
    ),
    "one bit": (
        lambda p: p.write_bytes(p.read_bytes()[:-1] + bytes([p.read_bytes()[-1] ^ 1])),
        "mine.safetensors",
        "sha256 differs",
    ),
    "pickle inside": (_weights(pickle.dumps({"w": 1})), "mine.safetensors", "pickles are never"),
    "zip inside": (_weights(b"PK\x03\x04archive/data"), "mine.safetensors", "pickles are never"),
    "not JSON": (_text("{'schema': 1}"), "mine.json", "not JSON"),
    "not UTF-8": (_text(b"\xff\xfe{}"), "mine.json", "not JSON"),
    "NaN": (_text('{"schema": NaN}'), "mine.json", "NaN is not JSON"),
    "deep": (_text("[" * 100_000), "mine.json", "not JSON"),
    "a list": (_text("[1, 2]"), "mine.json", "a JSON list, not an object"),
    "schema 2": (_set(schema=2), "mine.json", "schema 2, and this version reads schema 1"),
    "schema true": (_set(schema=True), "mine.json", "schema True"),
    "no schema": (_drop("schema"), "mine.json", "schema None"),
    "no config": (_drop("config"), "mine.json", "'config' must be a JSON dict, found nothing"),
    "no training": (_drop("training"), "mine.json", "'training' must be"),
    "not_for": (_set(not_for={}), "mine.json", "the card's 'not_for' must be text, found {}"),
    "kind": (_set(kind="kalman"), "mine.safetensors", "kind 'kalman'"),
    "other feature": (
        _set(features=[*FEATURES[:-1], "shoe_size"]),
        "mine.safetensors",
        f"it has ['shoe_size'] which this version has not, and lacks ['{FEATURES[-1]}']",
    ),
    "feature order": (_set(features=FEATURES[::-1]), "mine.safetensors", "in another order"),
    "coefficients": (_set(coefficients=["gain"]), "mine.safetensors", "other coefficients"),
    "config key": (_set(config={"width": 4}), "mine.safetensors", "makes no denoiser"),
    "config empty": (_set(config={}), "mine.safetensors", "do not fit its config {}"),
    "config value": (
        _set(config=CONFIG | {"hidden": "4"}),
        "mine.safetensors",
        "makes no denoiser",
    ),
    "config huge": (
        _set(config=CONFIG | {"hidden": 10**8}),
        "mine.safetensors",
        "do not fit its config",
    ),
    "config absurd": (
        _set(config=CONFIG | {"hidden": 10**40}),
        "mine.safetensors",
        "makes no denoiser",
    ),
    "card shapes": (_set(tensors={}), "mine.safetensors", "its card's tensors do not fit"),
    "missing tensor": (
        _tensors(lambda t: t.pop("last.bias")),
        "mine.safetensors",
        "last.bias has nothing where [9] is expected",
    ),
    "extra tensor": (
        _tensors(lambda t: t.update(more=torch.zeros(2))),
        "mine.safetensors",
        "more has [2] where nothing is expected",
    ),
    "shape": (
        _tensors(lambda t: t.update({"second.bias": torch.zeros(5)})),
        "mine.safetensors",
        "second.bias has [5] where [4] is expected",
    ),
    "not finite": (
        _tensors(lambda t: t["first.bias"].fill_(float("nan"))),
        "mine.safetensors",
        "NaN or infinity in the weights of ['first.bias']",
    ),
    "whole numbers": (
        _tensors(lambda t: t.update({k: v.long() for k, v in t.items()})),
        "mine.safetensors",
        "torch.int64",
    ),
    "no tensors": (_tensors(lambda t: t.clear()), "mine.safetensors", "no tensors"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_with_the_file_the_reason_and_a_remedy(saved: Path, name: str) -> None:
    damage, file, words = DAMAGE[name]
    damage(saved)
    with pytest.raises(DenoiserFileError) as caught:
        load_denoiser(saved)
    message = str(caught.value)
    assert message.startswith(str(saved.parent / file))
    assert words in message
    assert re.search(r"; [a-z]+", message), "no remedy"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".PT", ".ckpt"])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    for load in (load_denoiser, resolve_denoiser):
        with pytest.raises(DenoiserFileError, match="pickles are never loaded"):
            load(path)
    torch.save(_random_denoiser().state_dict(), path)
    with pytest.raises(DenoiserFileError, match="save_denoiser"):
        load_denoiser(path)


def test_a_torch_file_under_our_suffix_is_refused(saved: Path) -> None:
    for zipped in (True, False):
        state = _random_denoiser().state_dict()
        torch.save(state, saved, _use_new_zipfile_serialization=zipped)
        with pytest.raises(DenoiserFileError, match="pickles are never loaded"):
            load_denoiser(saved)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DenoiserFileError, match=r"not a \.safetensors file"):
        load_denoiser(tmp_path / "weights.bin")


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _load_or_refuse(
    path: Path, weights: bytes, card: bytes, sound: dict[str, torch.Tensor]
) -> bool:
    path.write_bytes(weights)
    path.with_suffix(".json").write_bytes(card)
    try:
        loaded = load_denoiser(path)
    except DenoiserFileError:
        return False
    assert loaded.config == CONFIG
    assert _same(loaded.state_dict(), sound)
    return True


@FUZZ
@given(data=st.data())
def test_truncation_anywhere_is_refused(
    tmp_path: Path, pair: tuple[bytes, bytes, dict[str, torch.Tensor]], data: st.DataObject
) -> None:
    weights, card, sound = pair
    path = tmp_path / "fuzz.safetensors"
    end = data.draw(st.integers(0, len(weights) - 1))
    assert not _load_or_refuse(path, weights[:end], card, sound)
    # Without its closing newline a card is still complete.
    end = data.draw(st.integers(0, len(card) - 2))
    assert not _load_or_refuse(path, weights, card[:end], sound)


@FUZZ
@given(data=st.data())
def test_flipped_bits_never_give_another_denoiser(
    tmp_path: Path, pair: tuple[bytes, bytes, dict[str, torch.Tensor]], data: st.DataObject
) -> None:
    weights, card, sound = pair
    path = tmp_path / "fuzz.safetensors"
    header = 8 + int.from_bytes(weights[:8], "little")
    position = data.draw(st.integers(0, header - 1) | st.integers(0, len(weights) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = bytearray(weights)
    flipped[position] ^= bit
    assert not _load_or_refuse(path, bytes(flipped), card, sound)
    # Even where the checksum agrees, the reader may fail but not crash.
    agreeing = json.loads(card) | {"sha256": hashlib.sha256(flipped).hexdigest()}
    path.write_bytes(bytes(flipped))
    path.with_suffix(".json").write_text(json.dumps(agreeing))
    with contextlib.suppress(DenoiserFileError):
        load_denoiser(path)
    # A flip in the card may hit a figure or a blank; the weights are the same all the same.
    flipped = bytearray(card)
    flipped[data.draw(st.integers(0, len(card) - 1))] ^= bit
    _load_or_refuse(path, weights, bytes(flipped), sound)


@FUZZ
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(
    tmp_path: Path, pair: tuple[bytes, bytes, dict[str, torch.Tensor]], junk: bytes
) -> None:
    weights, card, sound = pair
    path = tmp_path / "fuzz.safetensors"
    assert not _load_or_refuse(path, junk, card, sound)
    assert not _load_or_refuse(path, weights, junk, sound)


# ------------------------------------------------------------- what a user may ask for


def test_every_shipped_denoiser_loads_and_has_a_card() -> None:
    names = shipped_denoisers()
    assert names == sorted(names)
    for name in names:
        denoiser = resolve_denoiser(name)
        if name == "identity":
            assert isinstance(denoiser, IdentityDenoiser)
            continue
        assert isinstance(denoiser, WienerDenoiser)
        card = read_card(name)
        assert card["training"], f"{name} does not say where it comes from"
        assert card["figures"], f"{name} has no figures"


@pytest.mark.parametrize("measured", [False, True])
def test_there_is_a_denoiser_for_each_kind_of_target(measured: bool) -> None:
    assert denoiser_for(measured) in shipped_denoisers()
    card = read_card(denoiser_for(measured))
    assert ("--measured" in card["training"]["command"]) == measured


def test_resolve_takes_paths_and_instances(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = load_denoiser(saved)
    assert resolve_denoiser(denoiser) is denoiser
    monkeypatch.chdir(saved.parent)
    for spec in (saved, str(saved), "mine.safetensors"):
        loaded = resolve_denoiser(spec)
        assert isinstance(loaded, WienerDenoiser)
        assert _same(loaded.state_dict(), denoiser.state_dict())


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("defualt", ValueError, "denoiser='defualt': no such denoiser; use a shipped name"),
        ("", ValueError, "'identity'"),
        ("gone/away", DenoiserFileError, "gone/away: not a .safetensors file"),
        ("gone.safetensors", DenoiserFileError, "no such file"),
        ("nul\0.safetensors", DenoiserFileError, "can't be read"),
        (3, TypeError, "denoiser=3 (int)"),
        (None, TypeError, "NoneType"),
        (torch.nn.Linear(1, 1), TypeError, "Linear"),
        (WienerDenoiser, TypeError, "is a class; pass an instance, WienerDenoiser()"),
    ],
)
def test_resolve_names_what_it_got(spec: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        resolve_denoiser(spec)


def test_read_card_errors() -> None:
    with pytest.raises(ValueError, match="no card"):
        read_card("identity")
    with pytest.raises(DenoiserFileError, match="neither a shipped denoiser"):
        read_card("defualt")
