"""Attributions by captum, for any torch model."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denograd._modes import evaluating
from denograd.estimators import DenoGradEstimator
from denograd.explain._checks import as_numbers, check_count
from denograd.explain._subject import Subject

Method = Literal[
    "integrated_gradients", "saliency", "input_x_gradient", "gradient_shap", "shapley_sampling"
]
"""The methods of captum that `CaptumExplainer` knows."""

_CLASSES: dict[Method, str] = {
    "integrated_gradients": "IntegratedGradients",
    "saliency": "Saliency",
    "input_x_gradient": "InputXGradient",
    "gradient_shap": "GradientShap",
    "shapley_sampling": "ShapleyValueSampling",
}


class CaptumExplainer:
    """Attributions of any module's output to its input, by captum.

    - ``"integrated_gradients"``: Sundararajan et al. 2017, arXiv 1703.01365.
    - ``"saliency"``: magnitudes of the gradient, Simonyan et al. 2014, arXiv 1312.6034; no
      direction.
    - ``"input_x_gradient"``: Shrikumar et al. 2016, arXiv 1605.01713.
    - ``"gradient_shap"``: expected gradients, which approximate SHAP values, Lundberg and Lee
      2017, arXiv 1705.07874.
    - ``"shapley_sampling"``: sampled Shapley values, Strumbelj and Kononenko 2010; needs no
      gradient, which makes it the right one for `RuleNet`, whose gradient is a stand-in.

    What is explained is the model's output for the target: scores or log-probabilities, as the
    model has it. The model runs in evaluation mode, and neither its parameters' gradients nor the
    global random generators are touched; nor is a `DenoGrad` that watches the model.

    Args:
        model: any module from ``(n, ...)`` to ``(n, outputs)``, or a fitted estimator of
            `denograd.estimators`, whose attributions are then to its columns.
        method: one of the above.
        baseline: what "nothing" is, in the model's own features: a number, ``(...)`` as one row,
            or, for ``"gradient_shap"`` alone, rows to draw from, ``(m, ...)``. Ignored by
            ``"saliency"`` and ``"input_x_gradient"``.
        steps: points on the way from the baseline, for ``"integrated_gradients"``.
        samples: draws of the two methods that draw.
        seed: of these draws.

    Raises:
        ImportError: captum is not installed.
        TypeError: ``model`` is neither a module nor an estimator.
        ValueError: the method is not known, or a number is not usable.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> x = torch.ones(4, 3)
        >>> said = CaptumExplainer(model, "integrated_gradients")(x, 1)
        >>> bool(np.allclose(said, model.weight[1].detach().numpy(), atol=1e-5))
        True
    """

    def __init__(
        self,
        model: nn.Module | DenoGradEstimator,
        method: Method = "integrated_gradients",
        *,
        baseline: Any = 0.0,
        steps: int = 50,
        samples: int = 25,
        seed: int = 0,
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(
                f"CaptumExplainer: method={method!r}; use one of {', '.join(get_args(Method))}"
            )
        self._subject = Subject("CaptumExplainer", model)
        self.method: Method = method
        self.baseline = as_numbers("baseline", baseline, "give finite numbers")
        self.steps = check_count("steps", steps)
        self.samples = check_count("samples", samples)
        self.seed = seed
        self._make = getattr(_captum(), _CLASSES[method])

    def __call__(self, x: Any, target: Any = None) -> NDArray[np.float64]:
        """Explain rows.

        Args:
            x: rows, ``(n, ...)``.
            target: class to explain, for all rows or ``(n,)``: class numbers, or labels of an
                estimator; None for the predicted ones.

        Returns:
            ``(n, features)``, inputs of more dimensions flattened; ``(n, columns)`` for an
            estimator.

        Raises:
            ValueError: a shape is wrong, ``target`` is no class, ``x`` or an attribution is not
                finite.
        """
        module = self._subject.module
        rows = self._subject.rows(x)
        if not bool(rows.isfinite().all()):
            raise ValueError(
                "x: it holds NaN or infinity, which captum cannot follow; padded sequences can be "
                "explained by OwnExplainer"
            )
        with evaluating(module), _generators(self.seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
            with torch.no_grad():
                targets = self._subject.targets(target, module(rows))
            method = self._make(module)
            options = self._options(rows)
            # A single output is the one with number 0.
            number: Any = 0 if targets is None else targets
            said: Tensor = method.attribute(rows.clone(), target=number, **options)
        return self._subject.by_column(said.flatten(1))

    def _options(self, rows: Tensor) -> dict[str, Any]:
        if self.method in ("saliency", "input_x_gradient"):
            return {}
        shape, row = self.baseline.shape, tuple(rows.shape[1:])
        many = self.method == "gradient_shap" and len(shape) > 0 and shape[1:] == row
        if shape not in ((), row) and not many:
            allowed = f"a number or {row}"
            if self.method == "gradient_shap":
                allowed += f", or (m, {', '.join(map(str, row))})"
            raise ValueError(f"baseline: it has shape {shape}; it must be {allowed}")
        base = torch.from_numpy(self.baseline).to(rows)
        base = base if many else base.expand(row).unsqueeze(0)
        if self.method == "integrated_gradients":
            return {"baselines": base, "n_steps": self.steps}
        return {"baselines": base, "n_samples": self.samples}


def _captum() -> Any:
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise ImportError(
            "CaptumExplainer needs captum, which is not installed: "
            "pip install 'denograd-optim[explain]'"
        ) from error


@contextmanager
def _generators(seed: int) -> Iterator[None]:
    """Seeds the global generators that captum draws from, and puts them back."""
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
