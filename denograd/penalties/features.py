"""Hidden features that say the same: covariance (Cogswell 2016) and correlation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from denograd.models import FeatureAttention, PrototypeNet, RuleNet, TemporalAttention
from denograd.penalties._base import Penalty, Scaler
from denograd.penalties._sites import Site, child
from denograd.penalties._statistics import correlations, nothing, off_diagonal

Kind = Literal["correlation", "covariance"]
"""Whether features are brought to variance 1 first."""

_ACTIVATIONS = (
    nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.RReLU, nn.ReLU, nn.SELU, nn.SiLU,
    nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def covariance_penalty(x: Tensor) -> Tensor:
    """Half the sum of the squared covariances of different features.

    DeCov (Cogswell et al. 2016, "Reducing Overfitting in Deep Networks by Decorrelating
    Representations", arXiv 1511.06068, section 3): ``(|C|_F^2 - |diag C|^2) / 2`` with
    ``C_ij = 1/N sum_n (x_ni - mean_i)(x_nj - mean_j)``. It grows with the fourth power of
    the features' scale, so a network can also lower it by smaller features.

    Args:
        x: rows of features, ``(N, d)``.

    Example:
        >>> import torch
        >>> covariance_penalty(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
        tensor(4.)
    """
    if x.shape[0] < 2:
        return nothing(x)
    centred = x - x.mean(0)
    covariance = centred.mT @ centred / x.shape[0]
    return off_diagonal(covariance).square().sum() / 2


def correlation_penalty(x: Tensor) -> Tensor:
    """Mean of the squared correlations of different features, from 0 to 1.

    The redundancy reduction term of Barlow Twins (Zbontar et al. 2021, "Barlow Twins:
    Self-Supervised Learning via Redundancy Reduction", arXiv 2103.03230, equation 1),
    ``sum_i sum_(j != i) C_ij^2``, with both views of a row being the row itself, divided by
    the number of its terms so that the weight does not depend on the width. It is DeCov for
    standardised features. A constant feature has a correlation of 0.

    Args:
        x: rows of features, ``(N, d)``.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0, 7.0], [-1.0, -2.0, 7.0]])
        >>> correlation_penalty(x[:, :2]), correlation_penalty(x)
        (tensor(1.), tensor(0.3333))
    """
    width = x.shape[1]
    if x.shape[0] < 2 or width < 2:
        return nothing(x)
    return off_diagonal(correlations(x)).square().sum() / (width * (width - 1))


def as_rows(x: Tensor, dim: int | None = None) -> Tensor:
    """Features in the last of two dimensions; all other dimensions count rows.

    Args:
        x: ``(batch, ..)``.
        dim: the dimension of the features; None for dimension 1 of a tensor with four
            dimensions or more (channels), else the last.
    """
    if dim is None:
        dim = 1 if x.dim() > 3 else -1
    return x.movedim(dim, -1).flatten(0, -2)


def _on_rows(function: Callable[[Tensor], Tensor], dim: int | None, x: Tensor) -> Tensor:
    return function(as_rows(x, dim))


def _on_exponentials(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x.exp())


def feature_sites(
    name: str, module: nn.Module, function: Callable[[Tensor], Tensor], form: str, dim: int | None
) -> list[Site]:
    """Where a module has hidden features; none if it is not known to have any.

    Args:
        name: of the module.
        module: the module.
        function: from features ``(N, d)`` to the penalty.
        form: what that is, in words.
        dim: dimension of the features, or None to tell by the module and the shape.
    """
    on_rows = partial(_on_rows, function, dim)
    if isinstance(module, RuleNet):
        what = f"{form} of which rules hold"
        return [Site(child(name, "head"), module.head, on_rows, what, inputs=True)]
    if isinstance(module, PrototypeNet):
        what = f"{form} of similarities to prototypes"
        near = partial(_on_exponentials, function)
        return [Site(child(name, "nearness"), module.nearness, near, what)]
    if isinstance(module, (FeatureAttention, TemporalAttention)):
        what = f"{form} of what the heads read"
        return [Site(child(name, "classifier"), module.classifier, on_rows, what, inputs=True)]
    if isinstance(module, _ACTIVATIONS):
        return [Site(name, module, on_rows, f"{form} of hidden features")]
    return []


class FeaturePenalty(Penalty):
    """A penalty on hidden features, ``(N, d)``.

    Without ``modules`` it looks at the outputs of all activation functions that are modules;
    if the model has none, at the outputs of all its linear and convolutional layers but the
    last. Of `denograd.models` it looks at which rules hold (`RuleNet`), at similarities
    (`PrototypeNet`) and at what attention heads read.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: modules, or their names, whose outputs are hidden features; None to pick.
        dim: dimension of the features, all others count rows. None for the channels of a
            convolution, and of any output with four dimensions or more; else the last.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.
    """

    def __init__(
        self,
        weight: float,
        modules: Sequence[str | nn.Module] | None = None,
        *,
        dim: int | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        super().__init__(weight, modules, scaler=scaler)
        if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int) or dim == 0):
            raise ValueError(
                f"{type(self).__name__}: dim={dim!r}; it must be a whole number other than 0, "
                "which counts the rows, or None"
            )
        self.dim = dim

    @abstractmethod
    def features_penalty(self, x: Tensor) -> Tensor:
        """The penalty of hidden features, ``(N, d)`` to 0-dim."""

    @abstractmethod
    def form(self) -> str:
        """What the penalty is, in words."""

    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        """Hidden features of a module of a known kind."""
        return feature_sites(name, module, self.features_penalty, self.form(), self.dim)

    def fallback_sites(self, model: nn.Module) -> list[Site]:
        """The outputs of all layers but the last."""
        layers = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, *_CONVOLUTIONS))
        ]
        return [self.site_of_named(name, module) for name, module in layers[:-1]]

    def site_of_named(self, name: str, module: nn.Module) -> Site:
        """The output of any module at all."""
        dim = self.dim
        if dim is None and isinstance(module, _CONVOLUTIONS):
            dim = 1
        on_rows = partial(_on_rows, self.features_penalty, dim)
        return Site(name, module, on_rows, f"{self.form()} of hidden features")


class FeatureDecorrelation(FeaturePenalty):
    """Keep hidden features from saying the same.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: modules, or their names, whose outputs are hidden features; None to pick
            (`FeaturePenalty`).
        kind: ``correlation`` (`correlation_penalty`) or ``covariance``
            (`covariance_penalty`, DeCov).
        dim: dimension of the features; None to tell by the module and the shape.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: the weight is below 0 or not finite, or ``kind`` is not known.

    Example:
        >>> import torch
        >>> from denograd import DenoGrad
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> penalty = FeatureDecorrelation(weight=0.1)
        >>> optimizer = DenoGrad(base, "identity", model=model, penalties=[penalty])
        >>> penalty.describe()
        ["'1' (ReLU): squared correlation of hidden features"]
    """

    def __init__(
        self,
        weight: float,
        modules: Sequence[str | nn.Module] | None = None,
        *,
        kind: Kind = "correlation",
        dim: int | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        super().__init__(weight, modules, dim=dim, scaler=scaler)
        if kind not in get_args(Kind):
            raise ValueError(
                f"{type(self).__name__}: kind={kind!r}; use one of {', '.join(get_args(Kind))}"
            )
        self.kind = kind

    def features_penalty(self, x: Tensor) -> Tensor:
        """The chosen kind."""
        return correlation_penalty(x) if self.kind == "correlation" else covariance_penalty(x)

    def form(self) -> str:
        """What the penalty is, in words."""
        return f"squared {self.kind}"

    def _options(self) -> dict[str, Any]:
        return {"kind": self.kind}
