"""What all estimators share: parameters, fitting, going on, and where X and y meet."""

from __future__ import annotations

import copy
import numbers
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from denograd.estimators._features import RowEncoder, TableEncoder, as_frame, in_own_units
from denograd.estimators._optimizers import OptimizerFactory, make_optimizer
from denograd.estimators._rows import TrainingRows, hold_out, training_rows
from denograd.estimators._sample import RowSample, SeenRows
from denograd.estimators._training import Batchable, Run, train
from denograd.models import TabularModel
from denograd.models._base import is_number
from denograd.optimizer import DenoGrad

_CHUNK = 4096
"""Rows that are predicted at one time."""

_TORCH_RANDOM = threading.RLock()
"""Held while torch's own generator is seeded, drawn from and put back."""


@dataclass(kw_only=True, eq=False, repr=False)
class DenoGradEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """An interpretable model with scikit-learn's interface, trained with DenoGrad.

    ``X`` is an array of numbers or a DataFrame. A DataFrame may hold numbers, booleans, text,
    categories and dates (as text, too, if nearly all of a column can be read in one format):
    categories become 0/1 features (one for two categories), a category that training did not
    see counts as none of the known ones (or as one of the rare ones, which share a feature); in
    a column of two it counts as between them, at the mean of the training rows. The category 1
    is the same as a whole number, another kind of number, or a boolean. NaN is a missing value:
    a number gets the median of the training rows and, if training rows lacked it too, an
    indicator; a category becomes one of its own, or one that training did not see. If several
    categories come in a column and none of them is known, that is warned of, and from 20 rows on
    it is an error, as are numbers where training had text; text that differs from row to row,
    like an identifier, is warned of, and unknown later. Infinities are refused, and so are
    columns of numbers above 1e100, or all below 1e-100. Columns that are constant in the
    training rows are not used.
    Everything is standardised and cut off at 8 deviations; see `denograd.data.Encoder`.

    ``sample_weight``: weights that are whole numbers count rows, so a weight of 2 is
    exactly that row twice; others scale the loss of a row, and only their ratio counts: they
    are divided by their mean, in `partial_fit` by the mean over all rows seen so far. Rows of
    weight 0 do not exist.

    A fitted estimator keeps a sample of at most 1,000 training rows, encoded, so that after a
    `partial_fit` explanations speak of all rows seen and not of the last ones; `forget_rows`
    drops it.

    Args:
        optimizer: ``"denograd"``, DenoGrad around the base optimizer that its card recommends
            for the model; ``"denograd:NAME"`` or ``"denograd:PATH"`` for other weights;
            ``"adamw"``, ``"adam"``, ``"sgd"``; or a function that makes a
            `torch.optim.Optimizer` of the parameters. Of attention over time the classifier's
            default is ``"denograd:sequences"``.
        learning_rate: of the (base) optimizer; None for the recommended one.
        max_steps: optimizer steps of a fit.
        batch_size: rows of a batch, or all if they are fewer.
        early_stopping: hold out rows, stop when the loss on them has not fallen for some
            time, and keep the weights that did best on them. Nothing else is learned from
            them: neither the encoding of ``X`` nor initial weights.
        validation_fraction: share of the rows that early stopping holds out.
        patience: how many looks at the held-out loss without a new low end the fit; it is
            looked at 50 times in ``max_steps``.
        warm_start: a further `fit` goes on with the model and the optimizer that are there.
            On the same rows it holds out the same ones; among others, rows may be held out
            that were trained on before. Parameters of the model or the optimizer must stay as
            they were.
        random_state: seed of initial weights, batches and held-out rows. Torch's own
            generators are left as they were. Estimators may be fitted in several threads;
            with an optimizer from a function, which may draw random numbers, one after the
            other.
        verbose: show a progress bar on standard error.

    Attributes:
        model_: the trained `denograd.models` model, in double precision.
        n_features_in_: number of columns of ``X``.
        feature_names_in_: their names, if all are strings.
        encoded_names_: names of the features that the model sees.
        feature_importances_: ``(n_features_in_,)``, the model's own weights of the columns
            over the training rows (after `partial_fit`, a sample of them); they sum to 1. A
            column of many categories is many features, whose weights are summed: it can get
            more than its due by their number alone (not in an additive net, whose
            contributions are summed first).
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

    _changeable: ClassVar[tuple[str, ...]] = (
        "max_steps",
        "batch_size",
        "early_stopping",
        "validation_fraction",
        "patience",
        "warm_start",
        "random_state",
        "verbose",
        "class_weight",
    )
    """Parameters that may be another when training goes on."""

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

    def _settle(self, x: Tensor) -> None:
        """Make of ``model_`` what it will be read as; ``x`` is encoded training rows."""

    def _summarise(self, rows: SeenRows) -> None:
        """Keep what explanations need of the training rows."""

    # What classification and regression say.

    @abstractmethod
    def _check_target(self, y: Any) -> NDArray[Any]:
        """``y`` as a vector of labels or numbers."""

    @abstractmethod
    def _fit_target(self, target: NDArray[Any], first: bool) -> None:
        """Learn what must be known of all rows' target, or check that it fits in."""

    def _standardise_target(self, target: NDArray[Any]) -> None:
        """Learn the units of the target from the rows that are trained on."""

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
        going_on = self.warm_start and hasattr(self, "model_")
        with self._all_or_nothing(going_on):
            rows = self._read(X, y, sample_weight, first=not going_on)
            self._fit_target(rows.target, first=not going_on)
            if not going_on:
                self._draw_seed()
            held_out = None
            if self.early_stopping:
                rows, held_out = self._split(rows)
            if going_on:
                total = self._run.steps + int(self.max_steps)
                self._tell_optimizer(total, len(rows.frame), len(rows.frame))
            else:
                self._start(rows, int(self.max_steps))
            self._count_anew()
            self._train(rows, held_out, int(self.max_steps), all_rows=True)
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> Self:
        first = not hasattr(self, "model_")
        with self._all_or_nothing(not first):
            if self.early_stopping:
                raise ValueError(
                    "partial_fit does not support early_stopping=True, for it never sees all "
                    "rows; set early_stopping=False, or call fit"
                )
            rows = self._read(X, y, sample_weight, first=first)
            self._fit_target(rows.target, first=first)
            if first:
                self._draw_seed()
                self._start(rows, None)
                self._sample = RowSample(self._seed)
                self._count_anew()
            else:
                # How long this goes on is not known any more.
                seen = self._rows_seen + len(rows.frame)
                self._tell_optimizer(None, seen, len(rows.frame))
            self._train(rows, None, -(-len(rows.frame) // int(self.batch_size)), all_rows=False)
        return self

    def _draw_seed(self) -> None:
        state = check_random_state(self.random_state)
        self._seed = int(state.randint(np.iinfo(np.int32).max))

    def _count_anew(self) -> None:
        """Forget how many rows were seen, and what they weighed."""
        self._rows_seen = self._weight_rows = 0
        self._weight_sum = 0.0

    @contextmanager
    def _all_or_nothing(self, going_on: bool) -> Iterator[None]:
        """Checked parameters; after an error the estimator is what it was before."""
        before = dict(vars(self))
        if going_on:
            kept = {"_run": self._run, "_sample": self._sample}
            before.update(copy.deepcopy(kept))
        try:
            self._check_parameters()
            if going_on:
                self._check_unchanged()
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def forget_rows(self) -> Self:
        """Drop the sample of training rows; a saved estimator then holds none.

        All else stays, but after a further `partial_fit` explanations speak of the rows seen
        from now on.

        Returns:
            the estimator.
        """
        check_is_fitted(self, "model_")
        self._sample = RowSample(self._seed)
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
        self._standardise_target(rows.target)
        self._encoder = self._make_encoder(rows.frame)
        self.encoded_names_ = list(self._encoder.names)
        self._built_with = {
            name: value if callable(value) else copy.deepcopy(value)
            for name, value in self._lasting_parameters().items()
        }
        with _seeded(self._seed):
            model = self._build(len(self.encoded_names_), self._classes())
            self._prepare(model, rows)
            optimizer = make_optimizer(
                self.optimizer, self.learning_rate, model, total_steps, len(rows.frame)
            )
        self._run = Run(model, optimizer, np.random.default_rng(self._seed))
        # A function that makes the optimizer may have said it itself.
        self._tells_batch_size = isinstance(optimizer, DenoGrad) and optimizer.batch_size is None
        self._tell_batch_size(len(rows.frame))

    def _lasting_parameters(self) -> dict[str, Any]:
        """Parameters that a model and its optimizer were made with."""
        given = self.get_params(deep=False)
        return {name: value for name, value in given.items() if name not in self._changeable}

    def _check_unchanged(self) -> None:
        for name, value in self._lasting_parameters().items():
            before = self._built_with[name]
            same = value is before or repr(value) == repr(before)
            if not same and not np.array_equal(value, before):
                raise ValueError(
                    f"{type(self).__name__}: {name}={value!r}, but the model that training goes on "
                    f"with was made with {name}={before!r}; set it back, or start anew: fit with "
                    "warm_start=False"
                )

    def _tell_optimizer(self, total_steps: int | None, dataset_size: int, rows: int) -> None:
        """What changes when training goes on, with so many rows to draw batches from."""
        if isinstance(self._run.optimizer, DenoGrad):
            self._run.optimizer.total_steps = total_steps
            self._run.optimizer.dataset_size = dataset_size
        self._tell_batch_size(rows)

    def _tell_batch_size(self, rows: int) -> None:
        if self._tells_batch_size and isinstance(self._run.optimizer, DenoGrad):
            self._run.optimizer.batch_size = min(int(self.batch_size), rows)

    def _split(self, rows: TrainingRows) -> tuple[TrainingRows, TrainingRows]:
        """Rows to learn from and rows to stop by; each class has rows among the former."""
        rng = np.random.RandomState(self._seed)
        chosen = hold_out(rows, float(self.validation_fraction), self._strata(rows), rng)
        if not chosen.any() or (~chosen).sum() < 2:
            raise ValueError(
                f"early_stopping: {len(chosen)} rows leave none to hold out; give more rows, or "
                "set early_stopping=False"
            )
        return rows.take(~chosen), rows.take(chosen)

    def _train(
        self, rows: TrainingRows, held_out: TrainingRows | None, steps: int, all_rows: bool
    ) -> None:
        batches = self._batchable(rows, all_rows)
        seed = int(self._run.batches.integers(2**31))
        # The optimizers known by name draw nothing, nor do the models after their start.
        with nullcontext() if isinstance(self.optimizer, str) else _seeded(seed):
            train(
                self._run,
                batches,
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
        self._account(rows, batches.x.double(), all_rows)

    def _account(self, rows: TrainingRows, x: Tensor, all_rows: bool) -> None:
        """What the model says of itself over the rows seen; ``x`` is these rows, encoded."""
        weight = np.ones(len(rows.target)) if rows.weight is None else rows.weight
        self._rows_seen += len(rows.frame)
        if all_rows:
            self._sample = RowSample(self._seed)
        seen = SeenRows(
            x, rows.target, weight, rows.frame.index, rows.position + self._sample.next_position
        )
        self._sample.add(seen)
        seen = seen if all_rows else self._sample.rows
        self._settle(seen.x)
        self._summarise(seen)
        self.feature_importances_ = self._column_importance(seen.x)

    def _column_importance(self, x: Tensor) -> NDArray[np.float64]:
        """What the model's encoded features weigh, summed for each column of ``X``."""
        importance = self.model_.feature_importance(x).numpy()
        columns = np.bincount(self._encoder.sources, importance, self.n_features_in_)
        return columns.astype(np.float64)

    def _batchable(self, rows: TrainingRows, all_rows: bool | None = None) -> Batchable:
        """Encoded rows; weights divided by their mean.

        Args:
            rows: to encode.
            all_rows: whether the mean is that of these rows; else they are counted among
                those seen so far, whose mean it is. None: that of these rows, uncounted.
        """
        x = torch.from_numpy(self._encoder.transform(rows.frame))
        target, weight = self._encode_target(rows)
        total = float(len(rows.target) if weight is None else weight.sum())
        count = len(rows.target)
        if all_rows is not None:
            self._weight_sum += total
            self._weight_rows += count
        if all_rows is False:
            total, count = self._weight_sum, self._weight_rows
        weight = np.ones(len(rows.target)) if weight is None else weight
        if np.ptp(weight) == 0 and (all_rows is not False or weight[0] * count == total):
            return Batchable(x, target)
        # A mean of 1 keeps the loss, and with it the learning rate, in its usual range.
        return Batchable(x, target, torch.from_numpy(weight / (total / count)).float())

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
            try:
                checked = validate_data(
                    self,
                    X,
                    reset=reset,
                    dtype=np.float64,
                    ensure_all_finite="allow-nan",
                    ensure_min_samples=least,
                )
            except ValueError as error:
                if "could not convert" not in str(error):
                    raise
                kind = np.asarray(X).dtype
                raise ValueError(
                    f"{type(self).__name__}: X is an array of type {kind} that cannot be read as "
                    f"numbers: {error}; give a DataFrame, which may hold categories and dates"
                ) from error
            if reset:
                self._labels = None
                self._text_columns: list[str] = []
            return as_frame(checked)
        again = X.columns[X.columns.duplicated()]
        if len(again):
            raise ValueError(
                f"{type(self).__name__}: X has several columns of the name {again[0]!r}; give "
                "unique column names"
            )
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
        return self._forward(x)

    @torch.no_grad()
    def _forward(self, x: Tensor) -> NDArray[np.float64]:
        """The model's output for encoded rows."""
        parts = [self.model_(part) for part in x.split(_CHUNK)]
        return np.asarray(torch.cat(parts).numpy())

    def encode(self, X: Any) -> pd.DataFrame:
        """Rows as the model sees them, in the features' own units.

        Gaps are filled with the training rows' median, categories and gaps are 0/1 features
        of their own, dates are days since the earliest training date, years and months, and
        what lies more than 8 deviations from the mean is moved there. A category that training
        did not see is 0 in the features of the known ones (in a column of two, where the model sees
        the training rows' mean, the rules take it for that 0, too). The rules of `to_rules`
        and the first columns of a `PrototypeNetClassifier.prototypes_frame` speak of these
        features.

        Args:
            X: ``(n, columns)``.

        Returns:
            a row for each of ``X``, with its index, and a column for each of
            ``encoded_names_``; NaN where a step of a sequence is padding.
        """
        x, index = self._encoded(X)
        return pd.DataFrame(
            in_own_units(x, self._encoder), index=index, columns=self.encoded_names_
        )

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        for name in ("max_steps", "batch_size", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(
                    f"{owner}: {name}={value!r}; it must be a whole number of at least 1"
                )
        for name in ("early_stopping", "warm_start"):
            value = getattr(self, name)
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{owner}: {name}={value!r}; it must be True or False")
        if not isinstance(self.verbose, (bool, np.bool_, numbers.Integral)):
            raise ValueError(f"{owner}: verbose={self.verbose!r}; it must be True or False")
        fraction = self.validation_fraction
        if not is_number(fraction) or not 0 < fraction < 1:
            raise ValueError(
                f"{owner}: validation_fraction={fraction!r}; it must be a number between 0 and 1"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's own generator with a seed, one thread at a time; afterwards it is as before."""
    with _TORCH_RANDOM:
        state = torch.random.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            torch.random.set_rng_state(state)


def whole(value: Any) -> Any:
    """The whole numbers of numpy, as a grid search may give them, as Python's own."""
    return int(value) if isinstance(value, numbers.Integral) and value is not True else value
