"""SaliencyDecor: predictions that do not need the least salient inputs, from features apart.

Three terms in one loss: classification, consistency of predictions when the least salient
inputs are masked (Ismail et al. 2021), and decorrelation of hidden features by group-wise ZCA
(`denograd.penalties.whitening`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd._callers import callers_level
from denograd._modes import plain_arithmetic
from denograd.penalties._base import Penalty
from denograd.penalties._sites import Site
from denograd.penalties._statistics import nothing
from denograd.penalties._watch import _announce, _place
from denograd.penalties.decorrelation import Decorrelation
from denograd.penalties.saliency import (
    input_saliency,
    least_salient,
    prediction_divergence,
    uniform,
)
from denograd.penalties.whitening import Whitening

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From outputs ``(N, C)`` and class numbers ``(N,)`` to a 0-dim value."""


class SaliencyParts(NamedTuple):
    """The terms of the last loss, before their weights; 0-dim, without a graph.

    Attributes:
        classification: the loss of the predictions.
        consistency: `prediction_divergence`; None if its weight is 0 and it was not computed.
        decorrelation: the penalty on hidden features; None likewise.
    """

    classification: Tensor
    consistency: Tensor | None
    decorrelation: Tensor | None


class SaliencyDecor:
    """Classification, consistency under masking and decorrelation as one loss.

    ``loss(outputs, y) + consistency * D_KL(f(x) || f(masked x)) + decorrelation * penalty``.
    Saliency Guided Training (Ismail et al. 2021, arXiv 2111.14338, algorithm 1) is the first two
    terms: the inputs with the lowest gradient are replaced by random values within the feature's
    range. Karkehabadi et al. 2026, "SaliencyDecor: Enhancing Neural Network Interpretability
    through Feature Decorrelation", arXiv 2604.25315, add the third.

    The weight of consistency, 1, and the masked half are those of the code that Ismail et al.
    published; it ranks by the signed gradient unless told otherwise, whereas here the magnitude
    counts. **The weight of decorrelation is ours**, for the full text of the second paper was not
    to be had; so are the group size and the layers that are looked at (those of `Whitening`).
    ``scripts/reproduce_saliency_decor.py`` measures what each term does. A weight of 1 made
    features nearly orthogonal in small networks, and cost some of them accuracy.

    It is called in place of the loss, and is no entry of ``DenoGrad(penalties=[...])``: such a
    penalty is a function of one hidden tensor whose gradient is added as the user's backward
    pass comes by, whereas consistency needs the labels, a second forward pass, and gradients
    into all parameters through both. As one loss it is differentiated like any other, so it works
    with every optimizer, `denograd.DenoGrad` among them; what noise capture calls a row's
    gradient is then that of its whole and masked input together. Penalties of the optimizer go
    on working; they look at both passes.

    - The model runs three times: once in evaluation mode to rank the inputs, then on whole
      and on masked inputs in the mode that it is in. Its buffers, such as running means,
      learn from whole inputs only. A term whose weight is 0 costs nothing.
    - Each value of a table is a feature; in images, ``(N, C, H, W)``, each pixel with all of
      its channels. Ranges are those of the batch, of each column or of each channel. A
      table's batch of one row has no range: give ``value_range`` or a ``baseline``, or its
      consistency is that of the unmasked row; its decorrelation is 0.
    - NaN in ``x``, for models that know what to make of it, stays NaN and counts as masked already.
    - Features that do not vary have no correlation and no gradient of the penalty. A module that
      was to be decorrelated and did not run is named by a warning, once.

    Args:
        model: from ``(N, ...)`` to ``(N, C)`` with two classes or more: scores, or the
            log-probabilities that some of `denograd.models` give. Both are right, for the
            softmax of log-probabilities is the probabilities.
        consistency: weight of the divergence, at least 0.
        decorrelation: weight of group-wise ZCA on hidden features, at least 0; where the model
            has none that are known, as a soft tree, of the form that `Decorrelation` picks
            (`describe` says what). Or a penalty of this package with its own weight, such as
            ``Whitening(0.1, ["features"], group_size=8)``.
        masked: how many features of each row are masked: a share above 0 and up to 1.0 (rounded
            down, one at least), or an int, their number.
        baseline: what masked features become, a number or a tensor that can be broadcast to a
            row; None for random values.
        value_range: lowest and highest random value, numbers or such tensors; None for those of
            the batch.
        loss: the loss of the predictions.
        generator: of random values and of ties; None for torch's global one.

    Attributes:
        parts: the terms of the last loss (`SaliencyParts`); None before the first.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a weight is below 0 or not finite, ``masked`` is out of its range, both
            ``baseline`` and ``value_range`` are given, or the model has no hidden features.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        >>> loss = SaliencyDecor(model, generator=torch.Generator().manual_seed(0))
        >>> loss.describe()
        ["'1' (ReLU): ZCA whitening distance, groups of 16, of hidden features"]
        >>> x, y = torch.randn(16, 4), torch.arange(16) % 3
        >>> loss(x, y).backward()
        >>> optimizer.step()
        >>> bool(loss.parts.consistency > 0)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        consistency: float = 1.0,
        decorrelation: float | Penalty = 0.1,
        masked: float = 0.5,
        baseline: float | Tensor | None = None,
        value_range: tuple[float | Tensor, float | Tensor] | None = None,
        loss: Loss = F.cross_entropy,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"SaliencyDecor: model is a {type(model).__name__}; it must be a torch.nn.Module"
            )
        _check_weight("consistency", consistency)
        self.model, self.consistency, self.masked = model, float(consistency), _checked(masked)
        if baseline is not None and value_range is not None:
            raise ValueError(
                "SaliencyDecor: baseline and value_range are both given; masked features become "
                "either the baseline, or random values within the range"
            )
        if value_range is not None and (
            not isinstance(value_range, tuple) or len(value_range) != 2
        ):
            raise TypeError(
                f"SaliencyDecor: value_range={value_range!r}; it must be a pair (lowest, highest)"
            )
        self.baseline, self.value_range = baseline, value_range
        self.loss, self.generator = loss, generator
        self.penalty, self._sites = self._penalty(decorrelation)
        self.parts: SaliencyParts | None = None
        self._warned: set[str] = set()

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch, to be differentiated.

        Args:
            x: rows, ``(N, ...)``, of a floating type.
            y: class numbers, ``(N,)``, whole numbers.

        Returns:
            0-dim.

        Raises:
            ValueError: a shape or type is wrong, the model's outputs are not ``(N, C)`` with
                ``C`` of at least 2, or ``masked`` is more than the input has.
        """
        _check_batch(x, y)
        outputs, seen = self._forward(x)
        _check_outputs(outputs, x, y)
        total = classification = self.loss(outputs, y)
        consistency = decorrelation = None
        if self.consistency > 0:
            consistency = prediction_divergence(outputs, self._again(self.mask(x, y)))
            total = total + self.consistency * consistency
        if self.penalty is not None and self.penalty.weight > 0:
            decorrelation = self._decorrelation(seen, outputs)
            total = total + self.penalty.weight * decorrelation
        self.parts = SaliencyParts(
            classification.detach(),
            None if consistency is None else consistency.detach(),
            None if decorrelation is None else decorrelation.detach(),
        )
        return total

    def mask(self, x: Tensor, y: Tensor) -> Tensor:
        """The rows with their least salient features replaced, without a graph.

        Args:
            x: rows, ``(N, ...)``, of a floating type.
            y: class numbers, ``(N,)``.

        Raises:
            ValueError: a shape or type is wrong, or ``masked`` is more than the input has.
        """
        _check_batch(x, y)
        features = x[0, 0].numel() if x.dim() > 3 else x[0].numel()
        count = self.masked
        if isinstance(count, float):
            # A hair is added, so that 0.3 of 10 features is 3.
            count = max(1, math.floor(count * features + 1e-9))
        saliency = input_saliency(self.model, x, y)
        # What is a gap already counts as masked first.
        saliency = torch.where(x.isnan(), -1.0, saliency)
        chosen = least_salient(saliency, count, generator=self.generator)
        x = x.detach()
        return torch.where(chosen & ~x.isnan(), self._values(x), x)

    def describe(self) -> list[str]:
        """Where hidden features are decorrelated, and how; a line each."""
        return [] if self.penalty is None else self.penalty.describe()

    def __repr__(self) -> str:
        weight = 0.0 if self.penalty is None else self.penalty.weight
        return (
            f"<SaliencyDecor(consistency={self.consistency!r}, decorrelation={weight!r}, "
            f"masked={self.masked!r}) of {type(self.model).__name__}>"
        )

    def _penalty(self, given: float | Penalty) -> tuple[Penalty | None, list[Site]]:
        """The penalty on hidden features, and where it looks."""
        if isinstance(given, Penalty):
            if given.scaler is not None:
                raise ValueError(
                    f"SaliencyDecor: decorrelation is a {type(given).__name__} with a scaler; "
                    "leave it out, for the scaler scales the whole loss"
                )
            penalty, sites = given, given.find(self.model)
        else:
            _check_weight("decorrelation", given)
            if given == 0:
                return None, []
            penalty, sites = self._picked(given)
        penalty._claim(self)
        _announce(penalty, sites, self.model)
        return penalty, sites

    def _picked(self, weight: float) -> tuple[Penalty, list[Site]]:
        for penalty in (Whitening(weight), Decorrelation(weight)):
            try:
                return penalty, penalty.find(self.model)
            except ValueError:
                continue
        raise ValueError(
            f"SaliencyDecor: the model {type(self.model).__name__} has no hidden features that "
            "are known, so nothing can be decorrelated; use decorrelation=0, or name the modules: "
            f"decorrelation=Whitening({weight}, modules=[...])"
        )

    def _forward(self, x: Tensor) -> tuple[Tensor, list[tuple[Site, Tensor]]]:
        """Outputs, and the tensors that the penalty looks at, as often as each is made."""
        seen: list[tuple[Site, Tensor]] = []
        with ExitStack() as hooks:
            wanted = self._sites if self.penalty is not None and self.penalty.weight > 0 else []
            for site in wanted:
                hooks.callback(_listen(site, seen).remove)
            outputs: Tensor = self.model(x)
        return outputs, seen

    def _again(self, masked: Tensor) -> Tensor:
        """Outputs of masked rows; buffers, such as running means, do not learn from them."""
        buffers = {name: b.detach().clone() for name, b in self.model.named_buffers()}
        if buffers:
            return torch.func.functional_call(self.model, buffers, (masked,))  # type: ignore[no-any-return]
        return self.model(masked)  # type: ignore[no-any-return]

    def _decorrelation(self, seen: list[tuple[Site, Tensor]], outputs: Tensor) -> Tensor:
        total = nothing(outputs).float() if outputs.element_size() < 4 else nothing(outputs)
        ran = {site.name for site, _ in seen}
        for site in self._sites:
            if site.name not in ran and site.name not in self._warned:
                self._warned.add(site.name)
                warnings.warn(
                    f"SaliencyDecor: {type(self.penalty).__name__} had no part in this loss at "
                    f"{_place(site)}, which did not run; leave it out of the penalty's modules, "
                    "or call it in the forward pass",
                    UserWarning,
                    stacklevel=callers_level(),
                )
        for site, a in seen:
            if a.dim() < 2 or a.shape[0] < 2:
                continue
            with plain_arithmetic(a.device, torch.is_grad_enabled()):
                value = site.penalty(a.float() if a.element_size() < 4 else a)
            total = total + value.to(total.device)
        return total

    def _values(self, x: Tensor) -> Tensor:
        """What masked features become, the shape of ``x``."""
        if self.baseline is not None:
            return _like_row("baseline", self.baseline, x)
        if self.value_range is not None:
            low, high = (_like_row("value_range", bound, x) for bound in self.value_range)
        else:
            # Over rows; in images over pixels too, or a blank border could not be masked.
            over = (0, *range(2, x.dim())) if x.dim() > 3 else (0,)
            low = torch.where(x.isnan(), math.inf, x).amin(over, keepdim=True)
            high = torch.where(x.isnan(), -math.inf, x).amax(over, keepdim=True)
        return low + uniform(x, self.generator) * (high - low)


def _listen(site: Site, seen: list[tuple[Site, Tensor]]) -> Any:
    """A hook that notes down the tensor that a site names."""

    def note(tensor: Any) -> None:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"SaliencyDecor: {_place(site)} gave a {kind}; decorrelation needs one tensor of "
                "floating point numbers. Name other modules: Whitening(weight, modules=[...])"
            )
        seen.append((site, tensor))

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        note(args[0])

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        note(output)
        # Not the tensor itself, which a layer that works in place would change.
        return output.clone()

    if site.inputs:
        return site.module.register_forward_pre_hook(before)
    return site.module.register_forward_hook(after)


def _like_row(name: str, value: float | Tensor, x: Tensor) -> Tensor:
    tensor = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    try:
        return tensor.expand(x.shape[1:]).expand_as(x)
    except RuntimeError as error:
        raise ValueError(
            f"SaliencyDecor: {name} has shape {tuple(tensor.shape)}; it must be a number or "
            f"broadcast to a row, {tuple(x.shape[1:])}"
        ) from error


def _check_weight(name: str, weight: object) -> None:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 0 <= weight < math.inf:  # type: ignore[operator]
        raise ValueError(
            f"SaliencyDecor: {name}={weight!r}; it must be a finite number of at least 0"
        )


def _checked(masked: object) -> int | float:
    if isinstance(masked, int) and not isinstance(masked, bool) and masked >= 1:
        return masked
    if isinstance(masked, float) and 0 < masked <= 1:
        return masked
    raise ValueError(
        f"SaliencyDecor: masked={masked!r}; it must be a share above 0.0 and up to 1.0, or a whole "
        "number of features, at least 1. To mask nothing use consistency=0"
    )


def _check_batch(x: Tensor, y: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2 or x.numel() == 0:
        kind = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"SaliencyDecor: x is {kind}; it must be a tensor of a floating type, (rows, features) "
            "or (rows, channels, height, width), with at least a row"
        )
    whole = isinstance(y, Tensor) and y.dtype == torch.int64
    if not whole or y.shape != x.shape[:1]:
        kind = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"SaliencyDecor: y is {kind}; it must hold the class number of each row, int64 "
            f"({len(x)},)"
        )


def _check_outputs(outputs: object, x: Tensor, y: Tensor) -> None:
    fits = isinstance(outputs, Tensor) and outputs.dim() == 2 and len(outputs) == len(x)
    if not fits or outputs.shape[1] < 2:  # type: ignore[attr-defined]
        kind = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"SaliencyDecor: the model's output is {kind}; it must be ({len(x)}, classes), two "
            "classes or more. A model of a single score can give (0, score)"
        )
