"""Where a penalty looks: an output or an input of a module, found in a model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn


class Site(NamedTuple):
    """A tensor of a model, and what is to be kept small there.

    Attributes:
        name: of the module, as in `torch.nn.Module.named_modules`; ``""`` for the model.
        module: the module.
        penalty: from the tensor, whose dimension 0 counts rows, to a 0-dim value.
        form: what that is, in words.
        inputs: whether the tensor is the module's first argument and not its output.
    """

    name: str
    module: nn.Module
    penalty: Callable[[Tensor], Tensor]
    form: str
    inputs: bool = False


Finder: TypeAlias = Callable[[str, nn.Module], list[Site]]
"""From a module and its name to the sites in it; none where a form has no meaning for it."""


def child(name: str, part: str) -> str:
    """The name of a part of a module, given the module's own."""
    return f"{name}.{part}" if name else part


def search(name: str, module: nn.Module, finder: Finder) -> Iterator[Site]:
    """The sites in a module; if it has none itself, those in its children."""
    found = finder(name, module)
    yield from found
    if not found:
        for part, inner in module.named_children():
            yield from search(child(name, part), inner, finder)


def unique(sites: Iterator[Site]) -> list[Site]:
    """Each module and side once, though the model may hold it in several places."""
    kept: dict[tuple[int, bool], Site] = {}
    for site in sites:
        kept.setdefault((id(site.module), site.inputs), site)
    return list(kept.values())


def named(
    owner: str, model: nn.Module, wanted: Sequence[str | nn.Module]
) -> list[tuple[str, nn.Module]]:
    """Name and module of each that was asked for.

    Raises:
        ValueError: one is not in the model.
        TypeError: one is neither a name nor a module.
    """
    by_name = dict(model.named_modules(remove_duplicate=False))
    by_module = {id(module): name for name, module in model.named_modules()}
    found = []
    for want in wanted:
        if isinstance(want, nn.Module):
            if id(want) not in by_module:
                raise ValueError(
                    f"{owner}: modules holds a {type(want).__name__} that is not in the model "
                    f"{type(model).__name__}; give modules of the model that DenoGrad was "
                    "given, or their names"
                )
            found.append((by_module[id(want)], want))
        elif isinstance(want, str):
            if want not in by_name:
                near = difflib.get_close_matches(want, by_name, n=3) or list(by_name)[1:6]
                raise ValueError(
                    f"{owner}: modules holds {want!r}, which is no module of "
                    f"{type(model).__name__}; names are those of model.named_modules(), such "
                    f"as {', '.join(map(repr, near)) or repr('')}"
                )
            found.append((want, by_name[want]))
        else:
            raise TypeError(
                f"{owner}: modules holds a {type(want).__name__}; give modules of the model, or "
                "their names"
            )
    return found
