"""Denoisers on disk: weights as safetensors, and a JSON card beside them.

``NAME.safetensors`` holds the tensors and ``NAME.json`` says what they are: the kind of
denoiser and the arguments that rebuild it, the features and coefficients that it was
trained with, where the weights come from, and a checksum that ties the two files
together. Both are read completely and checked before a denoiser is made of them, so a
damaged file gives an error and never a denoiser that is subtly wrong. Pickles can run any
code when they are loaded, so none is ever opened.

What begins with ``hf://`` is fetched from the Hugging Face Hub first; see
`denograd.denoisers.hub`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from denograd._files import write_whole
from denograd.denoisers._base import Denoiser
from denograd.denoisers.card import (
    ADVICE,
    GET_AGAIN,
    SCHEMA,
    fail,
    is_advice,
    load_card,
    read_bytes,
)
from denograd.denoisers.identity import IdentityDenoiser
from denograd.denoisers.wiener import WienerDenoiser

WEIGHTS_SUFFIX = ".safetensors"
HUB_PREFIX = "hf://"
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_PICKLE_STARTS = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
_DTYPES = (torch.float32, torch.float64)
_FROM_CALLER = ("training", "figures")


def save_denoiser(
    denoiser: WienerDenoiser, path: str | os.PathLike[str], card: dict[str, Any]
) -> None:
    """Write a denoiser's weights and its card.

    Each file appears whole or not at all. The weights come first: if the second write
    never happens, the checksum in the old card gives the mismatch away.

    Args:
        denoiser: what to save.
        path: where to, ending in ``.safetensors``; the card goes beside it as ``.json``.
            Missing folders are made.
        card: what only the caller knows: ``"training"`` (distribution, command, seeds,
            data sets, base optimizer) and ``"figures"``, each a dictionary and empty if
            left out. ``"intended_use"`` and ``"not_for"``, sentences that `denograd
            denoisers` shows, may follow, and more keys. Must be plain JSON, without NaN.

    Raises:
        TypeError: ``denoiser`` is not a `WienerDenoiser`.
        ValueError: a ``path`` without the suffix, a card that is not JSON or that holds a
            key which is written here, or weights that could not be loaded again.
        OSError: the files can't be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.safetensors"
        ...     save_denoiser(WienerDenoiser(hidden=4), path, {"training": {"seed": 3}})
        ...     load_denoiser(path).config["hidden"], read_card(path)["training"]
        (4, {'seed': 3})
    """
    import denograd

    path = Path(path)
    if not isinstance(denoiser, WienerDenoiser):
        raise TypeError(
            f"save_denoiser: got {type(denoiser).__name__}; only a WienerDenoiser has a file format"
        )
    if path.suffix != WEIGHTS_SUFFIX:
        raise ValueError(f"save_denoiser: {path} must end in {WEIGHTS_SUFFIX}")
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in denoiser.state_dict().items()
    }
    problem = _problem_with(tensors)
    if problem:
        raise ValueError(f"save_denoiser: {problem}; such a file could not be loaded again")
    weights = safetensors.torch.save(tensors)
    written: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "wiener",
        "features": list(denoiser.feature_names),
        "coefficients": list(denoiser.coefficient_names),
        "config": denoiser.config,
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "sha256": hashlib.sha256(weights).hexdigest(),
        "training": {},
        "figures": {},
        "denograd_version": denograd.__version__,
    }
    reserved = [key for key in card if key in written and key not in _FROM_CALLER]
    if reserved:
        raise ValueError(f"save_denoiser: the card may not hold {reserved}: they are written here")
    for key in _FROM_CALLER:
        if not isinstance(card.get(key, {}), dict):
            raise ValueError(
                f"save_denoiser: card[{key!r}] must be a dictionary, got {card[key]!r}"
            )
    for key in ADVICE:
        if not is_advice(card.get(key)):
            raise ValueError(
                f"save_denoiser: card[{key!r}] must be sentences in one text, got {card[key]!r}"
            )
    try:
        text = json.dumps(written | card, indent=2, ensure_ascii=False, allow_nan=False)
        encoded = (text + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"save_denoiser: the card is not plain JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, weights)
    write_whole(path.with_suffix(".json"), encoded)


def load_denoiser(path: str | os.PathLike[str]) -> WienerDenoiser:
    """Read a denoiser back, with its weights in the precision they were saved in.

    Args:
        path: a ``.safetensors`` file with its ``.json`` card beside it, or a repository of the
            Hugging Face Hub: ``"hf://owner/name"``, ``"hf://owner/name@revision"``, or either
            with ``/folder/file.safetensors`` behind it.

    Raises:
        DenoiserFileError: a file is missing, damaged, of another schema, a pickle, or
            does not fit this version's features, coefficients and shapes; or it can't be
            fetched from the Hub.

    Example:
        >>> from denograd.denoisers import DenoiserFileError
        >>> try:
        ...     load_denoiser("nowhere.safetensors")
        ... except DenoiserFileError as error:
        ...     print(error)
        nowhere.safetensors: no such file; check the path
    """
    address = _hub_address(path)
    if address:
        # Built on this module, and needed by few.
        from denograd.denoisers.hub import load_from_hub

        return load_from_hub(address)
    path = Path(path)
    if path.suffix != WEIGHTS_SUFFIX:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            _refuse_pickle(path)
        fail(
            path,
            f"not a {WEIGHTS_SUFFIX} file",
            f"give a file that save_denoiser wrote, NAME{WEIGHTS_SUFFIX}",
        )
    weights = read_bytes(path)
    return _build(path, weights, load_card(path.with_suffix(".json")))


def shipped_denoisers() -> list[str]:
    """Names of the denoisers that come with the package.

    Example:
        >>> "identity" in shipped_denoisers()
        True
    """
    folder = _weights_folder()
    return sorted(["identity", *(path.stem for path in folder.glob(f"*{WEIGHTS_SUFFIX}"))])


def denoiser_for(measured: bool) -> str:
    """Name of the shipped denoiser that was meta-trained for a kind of target.

    Args:
        measured: whether targets are numbers, and the loss a squared error; else classes.

    Example:
        >>> denoiser_for(measured=True), denoiser_for(measured=False)
        ('regression', 'default')
    """
    return "regression" if measured else "default"


def resolve_denoiser(spec: str | os.PathLike[str] | Denoiser) -> Denoiser:
    """Turn what a user may write for a denoiser into one.

    Args:
        spec: a shipped name, a path to a saved ``.safetensors`` file, an address on the
            Hugging Face Hub (``"hf://owner/name"``, see `load_denoiser`), or an instance. A
            shipped name wins over a file of that name.

    Raises:
        DenoiserFileError: the file can't be used; see `load_denoiser`.
        ValueError: a name that is neither shipped nor a file.
        TypeError: an object that is no denoiser.

    Example:
        >>> resolve_denoiser("identity").coefficient_names
        ()
        >>> denoiser = WienerDenoiser(hidden=4)
        >>> resolve_denoiser(denoiser) is denoiser
        True
    """
    if isinstance(spec, str) and spec in shipped_denoisers():
        if spec == "identity":
            return IdentityDenoiser()
        return load_denoiser(_weights_folder() / f"{spec}{WEIGHTS_SUFFIX}")
    if isinstance(spec, str | os.PathLike):
        if _hub_address(spec):
            return load_denoiser(spec)
        path = Path(spec)
        known = path.suffix.lower() in (WEIGHTS_SUFFIX, *PICKLE_SUFFIXES)
        if known or len(path.parts) > 1 or path.is_file():
            return load_denoiser(path)
        raise ValueError(f"denoiser={spec!r}: no such denoiser; {_choices()}")
    if isinstance(spec, type):
        raise TypeError(f"denoiser={spec.__name__} is a class; pass an instance, {spec.__name__}()")
    if isinstance(spec, Denoiser) and callable(spec):
        return spec
    raise TypeError(f"denoiser={spec!r} ({type(spec).__name__}) is no denoiser; {_choices()}")


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The card of a denoiser: what it is, where its weights come from, its figures.

    Args:
        name_or_path: a shipped name, the path of a weights file or of its card, or an address
            on the Hugging Face Hub (``"hf://owner/name"``), whose card alone is fetched.

    Raises:
        DenoiserFileError: the card is missing, damaged or of another schema, or can't be
            fetched from the Hub.
        ValueError: ``"identity"``, which has no weights and no card.
    """
    if name_or_path == "identity":
        raise ValueError("read_card: 'identity' has no weights and so no card")
    if isinstance(name_or_path, str) and name_or_path in shipped_denoisers():
        return load_card(_weights_folder() / f"{name_or_path}.json")
    address = _hub_address(name_or_path)
    if address:
        from denograd.denoisers.hub import read_card_from_hub

        return read_card_from_hub(address)
    path = Path(name_or_path)
    if path.suffix not in (WEIGHTS_SUFFIX, ".json"):
        fail(path, "neither a shipped denoiser nor a .safetensors or .json file", _choices())
    return load_card(path.with_suffix(".json"))


def _refuse_pickle(path: Path) -> NoReturn:
    fail(
        path,
        "a pickle or a torch.save file, and pickles are never loaded: they can run any code",
        "save the denoiser with denograd.save_denoiser, which writes safetensors",
    )


def _choices() -> str:
    shipped = ", ".join(repr(name) for name in shipped_denoisers())
    return (
        f"use a shipped name ({shipped}), the path of a {WEIGHTS_SUFFIX} file, a repository of the "
        f"Hugging Face Hub ({HUB_PREFIX}owner/name), or a Denoiser instance"
    )


def _hub_address(spec: str | os.PathLike[str]) -> str | None:
    """The address on the Hub that is meant, None if it is a name or a path."""
    text = os.fspath(spec)
    if text.startswith(HUB_PREFIX):
        return text
    # A Path makes one slash of the two.
    shortened = str(Path(HUB_PREFIX)) + os.sep
    if not isinstance(spec, str) and text.startswith(shortened):
        return HUB_PREFIX + Path(text).as_posix()[len(shortened) :]
    return None


def _weights_folder() -> Path:
    """The folder of shipped weights; wheels are unpacked, so it is an ordinary folder."""
    return Path(str(resources.files("denograd"))) / "denoisers" / "weights"


def _build(path: Path, weights: bytes, card: dict[str, Any]) -> WienerDenoiser:
    """Make the denoiser, after every check that the two files can fail."""
    if card["kind"] != "wiener":
        fail(
            path,
            f"its card says kind {card['kind']!r}, and this version knows only 'wiener'",
            "use the version of denograd that wrote it",
        )
    for key, known in (
        ("features", WienerDenoiser.feature_names),
        ("coefficients", WienerDenoiser.coefficient_names),
    ):
        if card[key] != list(known):
            fail(
                path,
                f"made for other {key}: {_difference(card[key], known)}",
                "use the version of denograd that wrote it, or meta-train again",
            )
    tensors = _parse(path, weights)
    if hashlib.sha256(weights).hexdigest() != card["sha256"]:
        fail(
            path,
            "its sha256 differs from the one in its card: one of the two was damaged or "
            "belongs to another denoiser",
            GET_AGAIN,
        )
    problem = _problem_with(tensors)
    if problem:
        fail(path, problem, "meta-train again, or go back to an earlier checkpoint")

    # On the meta device nothing is allocated, so a wrong size in a card costs no memory.
    skeleton = _construct(path, card["config"], torch.device("meta"))
    expected = {name: list(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for source, shapes in (("tensors", found), ("card's tensors", card["tensors"])):
        if shapes != expected:
            wrong = sorted(
                name for name in expected | shapes if expected.get(name) != shapes.get(name)
            )
            details = ", ".join(
                f"{name} has {shapes.get(name, 'nothing')} where {expected.get(name, 'nothing')} "
                "is expected"
                for name in wrong
            )
            fail(path, f"its {source} do not fit its config {card['config']}: {details}", GET_AGAIN)

    # Initial weights are drawn and thrown away: the user's random numbers must not shift.
    with torch.random.fork_rng(devices=[]):
        denoiser = _construct(path, card["config"], torch.device("cpu"))
    denoiser.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
    return denoiser


def _construct(path: Path, config: Mapping[str, Any], device: torch.device) -> WienerDenoiser:
    try:
        with device:
            denoiser = WienerDenoiser(**config)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        fail(path, f"its card's config {config} makes no denoiser ({error})", GET_AGAIN, error)
    # An argument that an older version did not know takes its default, so the default of a
    # new one has to keep the old behaviour.
    rebuilt = {key: denoiser.config.get(key) for key in config}
    if rebuilt != config:
        fail(path, f"its card's config {config} was understood as {rebuilt}", GET_AGAIN)
    return denoiser


def _parse(path: Path, weights: bytes) -> dict[str, Tensor]:
    # A safetensors file starts with the length of its header in 8 bytes and then "{"; the
    # length may happen to look like the start of a pickle.
    if weights[8:9] != b"{" and weights.startswith(_PICKLE_STARTS):
        _refuse_pickle(path)
    try:
        return safetensors.torch.load(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        fail(path, f"truncated or damaged ({error})", GET_AGAIN, error)


def _problem_with(tensors: Mapping[str, Tensor]) -> str | None:
    """What keeps weights from being used, if anything."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes.issubset(_DTYPES):
        names = sorted(str(dtype) for dtype in dtypes) or "no tensors"
        return f"the weights are {names}, not all torch.float32 or all torch.float64"
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    return f"NaN or infinity in the weights of {bad}" if bad else None


def _difference(found: list[Any], known: tuple[str, ...]) -> str:
    unknown = [name for name in found if name not in known]
    missing = [name for name in known if name not in found]
    if unknown or missing:
        return f"it has {unknown} which this version has not, and lacks {missing}"
    return "the same names in another order or more than once"
