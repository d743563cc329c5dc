"""Denoisers from repositories of the Hugging Face Hub.

A repository, a model repository in the Hub's terms, has to hold two files: the weights and
the card that `save_denoiser` writes and `denograd meta-train` leaves in its folder. Named
``denoiser.safetensors`` and ``denoiser.json`` they are found by the repository's name alone;
under other names, or in subfolders, by the whole address::

    hf://OWNER/NAME[@REVISION][/FOLDER/FILE.safetensors]

Only these two are ever asked for, whatever else the repository holds, and they pass every
check that local files pass. The card comes first, and the weights from the card's commit, so
that a push in between can't mix two denoisers. A branch may move: give a commit as the
revision where a run has to be repeatable. Once in the cache, a commit needs no network.

Downloads, the cache, tokens, mirrors and the offline mode are those of the package
``huggingface_hub`` (the extra ``hub``), with its own settings: ``HF_HOME``, ``HF_TOKEN``,
``HF_ENDPOINT``, ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from denograd.denoisers.card import DenoiserFileError
from denograd.denoisers.storage import (
    HUB_PREFIX,
    PICKLE_SUFFIXES,
    WEIGHTS_SUFFIX,
    load_denoiser,
    read_card,
    shipped_denoisers,
)
from denograd.denoisers.wiener import WienerDenoiser

WEIGHTS_FILE = f"denoiser{WEIGHTS_SUFFIX}"
"""The weights in a repository whose address names no file; the card is beside them."""

_FORM = f"{HUB_PREFIX}OWNER/NAME, {HUB_PREFIX}OWNER/NAME@REVISION or either with /FILE.safetensors"
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
# A slash ends a revision, but for the Hub's own references such as refs/pr/3; in the name of
# a branch it is written %2F, as in the Hub's web addresses.
_ADDRESS = re.compile(
    rf"{re.escape(HUB_PREFIX)}(?:models/)?(?P<repository>{_NAME}/{_NAME})"
    r"(?:@(?P<revision>refs/[a-z]+/[^/@]+|[^/@]+))?(?:/(?P<file>.*))?"
)


@dataclass(frozen=True)
class HubAddress:
    """Where on the Hub a denoiser lies.

    Example:
        >>> HubAddress.parse("hf://owner/name")
        HubAddress(repository='owner/name', revision='main', file='denoiser.safetensors')
        >>> str(HubAddress.parse("hf://owner/name@v2/small/net.safetensors"))
        'hf://owner/name@v2/small/net.safetensors'
    """

    repository: str
    revision: str
    file: str

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Take an address apart.

        Raises:
            DenoiserFileError: not an address of that form, or one of a file that is neither
                weights nor a card.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise DenoiserFileError(f"{text}: not an address on the Hub; write {_FORM}")
        repository, revision, file = match["repository"], match["revision"], match["file"]
        revision = unquote(revision or "main")
        file = WEIGHTS_FILE if file is None else file
        if not _is_plain(revision) or not _is_plain(file):
            raise DenoiserFileError(
                f"{text}: a revision or a file with an empty part, '..', a backslash or a control "
                f"character; write {_FORM}"
            )
        suffix = PurePosixPath(file).suffix
        if suffix.lower() in PICKLE_SUFFIXES:
            raise DenoiserFileError(
                f"{text}: a pickle or a torch.save file, and pickles are never loaded: they can "
                f"run any code; ask the owner for the {WEIGHTS_SUFFIX} file of save_denoiser"
            )
        if suffix not in (WEIGHTS_SUFFIX, ".json"):
            inside = cls(repository, revision, f"{file}/{WEIGHTS_FILE}")
            raise DenoiserFileError(
                f"{text}: {file!r} is not a {WEIGHTS_SUFFIX} file; write {inside} if it is a folder"
            )
        return cls(repository, revision, file)

    @property
    def card(self) -> str:
        """The card's file in the repository: that of the weights with another suffix."""
        return str(PurePosixPath(self.file).with_suffix(".json"))

    def __str__(self) -> str:
        revision = self.revision
        if not revision.startswith("refs/"):
            revision = revision.replace("/", "%2F")
        return f"{HUB_PREFIX}{self.repository}@{revision}/{self.file}"


def load_from_hub(address: str) -> WienerDenoiser:
    """Fetch a denoiser's two files, if they are not in the cache, and load them.

    Args:
        address: ``hf://OWNER/NAME``, with ``@REVISION`` and ``/FILE.safetensors`` as needed.

    Raises:
        DenoiserFileError: the address is of another form, the extra is not installed, the
            files can't be had, or they fail a check of `load_denoiser`.

    Example:
        >>> try:
        ...     load_from_hub("hf://owner/name/weights.pt")
        ... except DenoiserFileError as error:
        ...     print(error)
        hf://owner/name/weights.pt: a pickle or a torch.save file, and pickles are never
        loaded: they can run any code; ask the owner for the .safetensors file of save_denoiser
    """
    place = HubAddress.parse(address)
    if not place.file.endswith(WEIGHTS_SUFFIX):
        raise DenoiserFileError(
            f"{address}: the card alone; give the address of its {WEIGHTS_SUFFIX} file"
        )
    card = _fetch(place, place.card, place.revision)
    commit = _commit_of(card, place.card)
    try:
        # A card that can't be used is refused before its weights are asked for.
        read_card(card)
        return load_denoiser(_fetch(place, place.file, commit))
    except DenoiserFileError as error:
        raise _explained(place, commit, error) from error


def read_card_from_hub(address: str) -> dict[str, Any]:
    """Fetch a denoiser's card, and nothing else, if it is not in the cache.

    Args:
        address: as for `load_from_hub`; it may name the card's file instead.

    Raises:
        DenoiserFileError: as for `load_from_hub`.
    """
    place = HubAddress.parse(address)
    card = _fetch(place, place.card, place.revision)
    try:
        return read_card(card)
    except DenoiserFileError as error:
        raise _explained(place, _commit_of(card, place.card), error) from error


class _FetchError(DenoiserFileError):
    """A file that did not arrive; its message is complete."""


def _fetch(place: HubAddress, file: str, revision: str) -> Path:
    """Bring one file of a repository to this computer and say where it lies."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise _FetchError(
            f"{place}: the package huggingface_hub is not installed; "
            f"pip install 'denograd-optim[hub]', or use {_without_network()}"
        ) from error
    try:
        return Path(hf_hub_download(place.repository, file, revision=revision))
    except Exception as error:
        # Its transports raise whatever they like, and what a user can do is the same.
        raise _FetchError(_why_not_fetched(place, file, error)) from error


def _why_not_fetched(place: HubAddress, file: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return f"{place}: the Hub has no such names ({error}); check the address"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{place}: {file} is not in the cache, and the Hub can't be reached "
            f"({_line(error.__cause__ or error)}); try again with a network, without "
            f"HF_HUB_OFFLINE, or use {_without_network()}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{place}: no model repository {place.repository}, or it is private or gated; check "
            "the name, or log in with `hf auth login` or HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{place}: the repository has no revision {place.revision!r}; give a branch, a tag or "
            "a whole commit of it"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return (
            f"{place}: the repository has no file {file}; it has to hold {place.file} and "
            f"{place.card}, or give the address of others: {HUB_PREFIX}OWNER/NAME/FILE.safetensors"
        )
    return (
        f"{place}: {file} can't be fetched ({_line(error)}); check the network, "
        f"the disk and the cache folder, or use {_without_network()}"
    )


def _explained(place: HubAddress, commit: str, error: DenoiserFileError) -> DenoiserFileError:
    """Say of which repository a file is that failed a check, and what to do about that."""
    if isinstance(error, _FetchError):
        return error
    return DenoiserFileError(
        f"{place}, commit {commit}: {error}. If only this copy was damaged, delete it from the "
        f"cache (`hf cache rm model/{place.repository}`) and load again; otherwise tell its owner, "
        "or give an earlier commit as the revision"
    )


def _commit_of(path: Path, file: str) -> str:
    """The commit that a file in the cache belongs to: ``.../snapshots/COMMIT/FILE``."""
    return path.parents[len(PurePosixPath(file).parts) - 1].name


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_plain(path: str) -> bool:
    """Whether a path goes down only, and means the same to the Hub and to a file system."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."}.intersection(parts)


def _without_network() -> str:
    shipped = ", ".join(repr(name) for name in shipped_denoisers())
    return f"a shipped denoiser ({shipped}) or the path of a {WEIGHTS_SUFFIX} file"
