"""What all estimators share: parameters, fitting, going on, and where X and y meet."""

from __future__ import annotations

import copy
import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from denograd.estimators._features import RowEncoder, TableEncoder, as_frame
from denograd.estimators._optimizers import OptimizerFactory, make_optimizer
from denograd.estimators._rows import TrainingRows, training_rows
from denograd.estimators._training import Batchable, Run, train
from denograd.models import TabularModel
from denograd.optimizer import DenoGrad

_CHUNK = 4096
"""Rows that are predicted at one time."""


@dataclass(kw_only=True, eq=False, repr=False)
class DenoGradEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """An interpretable model with scikit-learn's interface, trained with DenoGrad.

    ``X`` is an array of numbers or a DataFrame. A DataFrame may hold numbers, booleans,
    text, categories and dates: categories become 0/1 features, a category that training
    did not see counts as none of the known ones (or as one of the rare ones, which share
    a feature). NaN is a missing value: a number gets the median of the training rows and,
    if training rows lacked it too, an indicator; a category becomes one of its own.
    Infinities are refused. Columns that are constant in the training rows are not used.
    Everything is standardised and cut off at 8 deviations; see `denograd.data.Encoder`.

    ``sample_weight``: weights that are whole numbers count rows, so a weight of 2 is
    exactly that row twice; others scale the loss of a row. Rows of weight 0 do not exist.

    Args:
        optimizer: ``"denograd"``, DenoGrad around the base optimizer that its weights were
            trained with; ``"denograd:NAME"`` or ``"denograd:PATH"`` for other weights;
            ``"adamw"``, ``"adam"``, ``"sgd"``; or a function that makes a
            `torch.optim.Optimizer` of the parameters.
        learning_rate: of the (base) optimizer; None for the recommended one.
        max_steps: optimizer steps of a fit.
        batch_size: rows of a batch, or all if they are fewer.
        early_stopping: hold out rows, stop when the loss on them has not fallen for some
            time, and keep the weights that did best on them.
        validation_fraction: share of the rows that early stopping holds out.
        patience: how many looks at the held-out loss without a new low end the fit; it is
            looked at 50 times in ``max_steps``.
        warm_start: a further `fit` goes on with the model and the optimizer that are there.
        random_state: seed of initial weights, batches and held-out rows. Torch's own
            generators are left as they were.
        verbose: show a progress bar on standard error.

    Attributes:
        model_: the trained `denograd.models` model, in double precision.
        n_features_in_: number of columns of ``X``.
        feature_names_in_: their names, if all are strings.
        encoded_names_: names of the features that the model sees.
        feature_importances_: ``(n_features_in_,)``, the model's own weights of the columns
            over the training rows; they sum to 1.
        n_iter_: steps taken.
        loss_curve_: loss of each step's batch.
        validation_curve_: loss on the held-out rows, by the step it was looked at.
        best_step_: step whose weights were kept.
    """

    optimizer: str | OptimizerFactory = "denograd"
    learning_rate: float | None = None
    max_steps: int = 300
    batch_size: int = 32
    early_stopping: bool = False
    validation_fraction: float = 0.2
    patience: int = 10
    warm_start: bool = False
    random_state: int | np.random.RandomState | None = None
    verbose: bool = False

    # What a kind of model says of itself.

    @abstractmethod
    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        """A new model; weights are drawn from torch's generator."""

    @abstractmethod
    def explain(self, X: Any) -> pd.DataFrame:
        """The model's own explanation of each row."""

    @abstractmethod
    def plot(
        self, X: Any = None, *, figure: Figure | SubFigure | None = None
    ) -> Figure | SubFigure:
        """The model's own explanation as a picture."""

    def _make_encoder(self, frame: pd.DataFrame) -> RowEncoder:
        return TableEncoder(frame, self._column_names())

    def _prepare(self, model: TabularModel, rows: TrainingRows) -> None:
        """Set initial weights that depend on the training rows."""

    def _summarise(self, rows: TrainingRows, x: Tensor) -> None:
        """Keep what explanations need of the training rows; ``x`` is in double precision."""

    # What classification and regression say.

    @abstractmethod
    def _check_target(self, y: Any) -> NDArray[Any]:
        """``y`` as a vector of labels or numbers."""

    @abstractmethod
    def _fit_target(self, target: NDArray[Any], first: bool) -> None:
        """Learn classes, or mean and deviation, of the training rows' target."""

    @abstractmethod
    def _encode_target(self, rows: TrainingRows) -> tuple[Tensor, NDArray[np.float64] | None]:
        """The target as the loss takes it, and each row's weight."""

    @abstractmethod
    def _row_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of each row."""

    @abstractmethod
    def _classes(self) -> int | None:
        """Number of classes; None in regression."""

    @abstractmethod
    def _strata(self, rows: TrainingRows) -> NDArray[Any] | None:
        """What held-out rows are balanced by."""

    # Fitting.

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows.

        Args:
            X: ``(n, columns)``, at least two rows.
            y: ``(n,)``, class labels, or finite numbers in regression.
            sample_weight: ``(n,)``, at least 0; see the class.

        Returns:
            the estimator.

        Raises:
            ValueError: a parameter, ``X``, ``y`` or a weight that cannot be used; the
                message says which and why.
        """
        self._check_parameters()
        going_on = self.warm_start and hasattr(self, "model_")
        rows = self._read(X, y, sample_weight, first=not going_on)
        if not going_on:
            self._start(rows, int(self.max_steps))
        else:
            self._fit_target(rows.target, first=False)
            self._tell_optimizer(self._run.steps + int(self.max_steps), len(rows.frame))
        held_out = None
        kept = rows
        if self.early_stopping:
            kept, held_out = self._split(rows)
        self._train(kept, held_out, int(self.max_steps))
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> Self:
        self._check_parameters()
        if self.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True, for it never sees all rows; "
                "set early_stopping=False, or call fit"
            )
        first = not hasattr(self, "model_")
        rows = self._read(X, y, sample_weight, first=first)
        if first:
            self._rows_seen = len(rows.frame)
            self._start(rows, None)
        else:
            self._fit_target(rows.target, first=False)
            self._rows_seen += len(rows.frame)
            # How long this goes on is not known any more.
            self._tell_optimizer(None, self._rows_seen)
        self._train(rows, None, -(-len(rows.frame) // int(self.batch_size)))
        return self

    def _read(self, X: Any, y: Any, sample_weight: ArrayLike | None, first: bool) -> TrainingRows:
        """Checked rows, weights applied."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        frame = self._frame(X, reset=first)
        target = self._check_target(y)
        check_consistent_length(frame, target)
        rows = training_rows(frame, target, sample_weight)
        if first and len(rows.frame) < 2:
            raise ValueError(
                f"{type(self).__name__}: n_samples=1 after rows with weight 0 are left out; at "
                "least 2 rows are needed to train"
            )
        return rows

    def _start(self, rows: TrainingRows, total_steps: int | None) -> None:
        """Everything anew: encoder, model and optimizer."""
        self._fit_target(rows.target, first=True)
        self._encoder = self._make_encoder(rows.frame)
        self.encoded_names_ = list(self._encoder.names)
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        self._splits = np.random.RandomState(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._build(len(self.encoded_names_), self._classes())
            self._prepare(model, rows)
        optimizer = make_optimizer(
            self.optimizer, self.learning_rate, model, total_steps, len(rows.frame)
        )
        self._run = Run(model, optimizer, np.random.default_rng(seed))
        if not hasattr(self, "_rows_seen") or total_steps is not None:
            self._rows_seen = len(rows.frame)

    def _tell_optimizer(self, total_steps: int | None, dataset_size: int) -> None:
        if isinstance(self._run.optimizer, DenoGrad):
            self._run.optimizer.total_steps = total_steps
            self._run.optimizer.dataset_size = dataset_size

    def _split(self, rows: TrainingRows) -> tuple[TrainingRows, TrainingRows]:
        """Rows to learn from and rows to stop by; each class has rows among the former."""
        count = len(rows.frame)
        wanted = round(self.validation_fraction * count)
        strata = self._strata(rows)
        order = self._splits.permutation(count)
        if strata is None:
            spare = order[: min(max(wanted, 1), count - 1)]
        else:
            spare = _spread_over(strata, order, max(wanted, 1))
        if len(spare) == 0 or count - len(spare) < 2:
            raise ValueError(
                f"early_stopping: {count} rows leave none to hold out; give more rows, or set "
                "early_stopping=False"
            )
        chosen = np.zeros(count, dtype=bool)
        chosen[spare] = True
        return _take(rows, ~chosen), _take(rows, chosen)

    def _train(self, rows: TrainingRows, held_out: TrainingRows | None, steps: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self._run.batches.integers(2**31)))
            train(
                self._run,
                self._batchable(rows),
                self._row_loss,
                steps,
                int(self.batch_size),
                None if held_out is None else self._batchable(held_out),
                int(self.patience),
                type(self).__name__ if self.verbose else "",
            )
        self.n_iter_ = self._run.steps
        self.loss_curve_ = list(self._run.losses)
        self.validation_curve_ = dict(self._run.validation)
        self.best_step_ = self._run.best_step
        # In double precision a row's prediction does not depend on the rows beside it.
        self.model_ = copy.deepcopy(self._run.model).double().eval()
        x = torch.from_numpy(self._encoder.transform(rows.frame)).double()
        weight = self.model_.feature_importance(x).numpy()
        self.feature_importances_ = np.bincount(self._encoder.sources, weight, self.n_features_in_)
        self._summarise(rows, x)

    def _batchable(self, rows: TrainingRows) -> Batchable:
        x = torch.from_numpy(self._encoder.transform(rows.frame))
        target, weight = self._encode_target(rows)
        if weight is None:
            return Batchable(x, target)
        # A mean of 1 keeps the loss, and with it the learning rate, in its usual range.
        return Batchable(x, target, torch.from_numpy(weight / weight.mean()).float())

    # X and y.

    def _frame(self, X: Any, reset: bool) -> pd.DataFrame:
        """Checked rows, the columns under internal names."""
        if hasattr(X, "to_pandas") and hasattr(X, "columns"):
            X = X.to_pandas()  # polars, pyarrow and their like
        least = 2 if reset else 1
        if not isinstance(X, pd.DataFrame):
            if not reset and self._text_columns:
                raise ValueError(
                    f"{type(self).__name__}: X is no DataFrame, but in training column "
                    f"{self._text_columns[0]!r} held no numbers; give a DataFrame with the "
                    "columns of training"
                )
            checked = validate_data(
                self,
                X,
                reset=reset,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                ensure_min_samples=least,
            )
            if reset:
                self._labels = None
                self._text_columns: list[str] = []
            return as_frame(checked)
        validate_data(self, X, reset=reset, skip_check_array=True)
        if len(X) < least:
            raise ValueError(
                f"Found array with {len(X)} sample(s) (shape={X.shape}) while a minimum of "
                f"{least} is required by {type(self).__name__}."
            )
        if X.shape[1] == 0:
            raise ValueError(
                f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is "
                f"required by {type(self).__name__}."
            )
        if reset:
            self._labels = [str(name) for name in X.columns]
            self._text_columns = [str(n) for n in X if X[n].dtype.kind not in "iuf"]
        return as_frame(X)

    def _column_names(self) -> list[str]:
        return self._labels or [f"x{i}" for i in range(self.n_features_in_)]

    def _encoded(self, X: Any) -> tuple[Tensor, pd.Index[Any]]:
        """Rows as the model sees them, in double precision, and their index."""
        check_is_fitted(self, "model_")
        frame = self._frame(X, reset=False)
        return torch.from_numpy(self._encoder.transform(frame)).double(), frame.index

    def _by_column(self, weights: NDArray[np.float64], index: pd.Index[Any]) -> pd.DataFrame:
        """Numbers by encoded feature, ``(n, F)``, summed for each column of ``X``."""
        summed = np.zeros((len(weights), self.n_features_in_))
        np.add.at(summed.T, self._encoder.sources, weights.T)
        return pd.DataFrame(summed, index=index, columns=self._encoder.columns)

    @torch.no_grad()
    def _output(self, X: Any) -> NDArray[np.float64]:
        """The model's output, ``(n, n_outputs)``."""
        x, _ = self._encoded(X)
        parts = [self.model_(part) for part in x.split(_CHUNK)]
        return np.asarray(torch.cat(parts).numpy())

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        for name in ("max_steps", "batch_size", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(
                    f"{owner}: {name}={value!r}; it must be a whole number of at least 1"
                )
        fraction = self.validation_fraction
        number_like: bool = isinstance(fraction, numbers.Real)
        if not number_like or not 0 < fraction < 1:
            raise ValueError(
                f"{owner}: validation_fraction={fraction!r}; it must be a number between 0 and 1"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


def _take(rows: TrainingRows, chosen: NDArray[np.bool_]) -> TrainingRows:
    weight = None if rows.weight is None else rows.weight[chosen]
    return TrainingRows(rows.frame[chosen], rows.target[chosen], weight)


def _spread_over(strata: NDArray[Any], order: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """About ``wanted`` rows, each stratum in proportion, one row of each left behind."""
    spare = []
    for value in np.unique(strata):
        own = order[strata[order] == value]
        share = round(wanted * len(own) / len(strata))
        spare.append(own[: min(share, len(own) - 1)])
    return np.concatenate(spare)


def whole(value: Any) -> Any:
    """The whole numbers of numpy, as a grid search may give them, as Python's own."""
    return int(value) if isinstance(value, numbers.Integral) and value is not True else value
