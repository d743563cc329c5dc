"""Models that are not trained by a torch optimizer, so that figures can be put into context.

What a penalised logistic regression, a pruned tree, a random forest, boosted trees and an
explainable boosting machine reach on the same encoded rows. They take no part in comparisons
of optimizers. What each lets its owner choose is chosen on the training rows alone, by the
log loss that they are judged by.

**Probabilities.** Every probability is above 0, so that a log loss is finite:

* A class without a training row gets ``1 / (n + C)``, Laplace's rule of succession for what
  did not happen in ``n`` rows with ``C`` classes; the other classes share the rest as the
  model says.
* A tree's leaf with ``k`` of its ``m`` rows in a class says ``(k + 1) / (m + C)``, the same
  rule (Provost & Domingos 2003 found that it ranks better than ``k / m``, which is 0 or 1
  in a pure leaf). A forest counts its trees in this way.
* The others give no zeros of their own; rounding is kept off 0 by a floor of 1e-6.

**Groups.** Rows that belong together, such as the visits of a patient, may be named as groups.
Then each is whole in one fold, the forest chooses by folds too (a row out of a tree's bag may have
its group's other rows in it), and the explainable boosting machine stops each bag by whole
groups. Where no group can be left out, because there is a single one or, for that machine, because
each holds all rows of a class, nothing can be chosen: each model is then the simplest of those
that it chooses from, and that machine takes ten rounds.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from denograd.baselines.cross_validation import draw_folds, numbered_groups
from denograd.baselines.errors import BaselineError

# scikit-learn is imported where it is used: what only wants an optimizer need not wait for it.

FLOOR = 1e-6
"""No probability is lower."""

FOLDS = 5
"""Folds that a setting is chosen by, or as many as there are rows."""

STRENGTHS = tuple(float(f"{c:.4g}") for c in np.geomspace(1e-3, 10, 9))
"""Inverse penalties ``C`` of the logistic regression, the strongest penalty first.

A penalty is a normal prior of deviation ``sqrt(C)``. On standardised columns 3 is a weak one
already (Gelman et al. 2008); beyond it, cross-validation on a few rows that lie apart runs to
the end of any range.
"""

TREES = 200
"""Trees of the random forest."""

_LEAVES = (5, 2, 1)
_ROUNDS = (10, 30, 100)
_EBM_BAGS = 14
"""As many as the machine draws itself."""
_EBM_SHARE = 0.15
"""Share of the rows that it leaves out of each."""
_EBM_ROUNDS = 2000
"""Of more than a handful of rows it never takes so many; of a handful it would take 50,000."""

Floats: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int64]
Predict: TypeAlias = Callable[[Any, Floats, int], Floats]
"""A fitted classifier, rows, and its number of classes, to probabilities."""


@dataclass(frozen=True)
class ContextModel:
    """A model outside torch.

    Attributes:
        name: by which `fit_context_model` knows it.
        source: papers, and the class whose code it is.
        fit: rows ``(n, F)``, classes from 0 of which each has a row, at least two of them,
            a seed, and groups ``(n,)`` from 0 or None, to a fitted classifier.
        predict: probabilities of a fitted classifier.
        package: that has to be installed for it; None for nothing more.
    """

    name: str
    source: str
    fit: Callable[[Floats, Codes, int, Codes | None], Any]
    predict: Predict
    package: str | None = None


def context_available(name: str) -> bool:
    """Whether a model can be fitted with the packages that are installed.

    Raises:
        BaselineError: the name is not known.

    Example:
        >>> context_available("random_forest")
        True
    """
    package = _known(name).package
    return package is None or importlib.util.find_spec(package) is not None


def fit_context_model(
    name: str,
    x_train: NDArray[Any],
    y_train: NDArray[Any],
    x_test: NDArray[Any],
    n_classes: int,
    seed: int,
    groups: NDArray[Any] | None = None,
) -> Floats:
    """Fit a model on training rows and predict test rows.

    The same arguments give the same result, on one thread.

    Args:
        name: one of `CONTEXT_MODELS`.
        x_train: ``(n, F)``, finite numbers, standardised as `denograd.data.Encoder` does.
        y_train: ``(n,)``, whole numbers from 0; not every class needs a row.
        x_test: ``(m, F)``.
        n_classes: number of classes of the table.
        seed: of folds and of what the model draws.
        groups: ``(n,)``, whole numbers or text that tell which training rows belong together;
            what is chosen is chosen by other groups' rows. None if each row stands for itself.

    Returns:
        probabilities ``(m, n_classes)``; each row sums to 1, and none is 0.

    Raises:
        BaselineError: the name is not known, its package is not installed, or the rows or groups
            are not as said.

    Example:
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> found = fit_context_model("logistic_regression", x, np.array([0, 0, 1, 1]), x, 3, 0)
        >>> found.shape, found[:, 2].round(3).tolist()
        ((4, 3), [0.143, 0.143, 0.143, 0.143])
    """
    model = _known(name)
    if not context_available(name):
        raise BaselineError(
            f"the package {model.package} is needed for {name!r} and is not installed; install it "
            "with: pip install 'denograd-optim[context]', or leave this model out"
        )
    if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 2:
        raise BaselineError(f"fit_context_model: n_classes={n_classes!r}; it must be at least 2")
    x = _rows("x_train", x_train)
    test = _rows("x_test", x_test)
    if len(x) == 0 or x.shape[1] == 0:
        raise BaselineError(
            f"fit_context_model: x_train has shape {x.shape}; give at least one row and column"
        )
    if test.shape[1] != x.shape[1]:
        raise BaselineError(
            f"fit_context_model: x_test has {test.shape[1]} columns and x_train {x.shape[1]}; "
            "encode both with the same encoder"
        )
    y = np.asarray(y_train)
    whole = y.dtype.kind in "iu" and y.shape == (len(x),)
    if not whole or y.min() < 0 or y.max() >= n_classes:
        raise BaselineError(
            f"fit_context_model: y_train is of type {y.dtype} and shape {y.shape}; it must be "
            f"({len(x)},), whole numbers from 0 to {n_classes - 1}"
        )
    owners = None if groups is None else numbered_groups("fit_context_model", groups, len(x))
    if len(test) == 0:
        return np.empty((0, n_classes))

    from threadpoolctl import threadpool_limits

    def fit(rows: Floats, codes: Codes) -> Any:
        return model.fit(rows, codes, seed, owners)

    # A forest, boosting and the linear algebra below would take all cores.
    with threadpool_limits(limits=1):
        return _probabilities(fit, model.predict, x, y.astype(np.int64), test, n_classes)


def _known(name: str) -> ContextModel:
    if name not in CONTEXT:
        raise BaselineError(f"model {name!r} is not known; use one of {', '.join(CONTEXT)}")
    return CONTEXT[name]


def _rows(name: str, x: NDArray[Any]) -> Floats:
    rows = np.asarray(x)
    if rows.ndim != 2 or rows.dtype.kind not in "iuf" or not np.isfinite(rows).all():
        raise BaselineError(
            f"fit_context_model: {name} is of type {rows.dtype} and shape {rows.shape}; it must "
            "be (rows, columns) of finite numbers, as denograd.data.Encoder makes them"
        )
    return rows.astype(np.float64)


def _probabilities(
    fit: Callable[[Floats, Codes], Any],
    predict: Predict,
    x: Floats,
    y: Codes,
    test: Floats,
    n_classes: int,
) -> Floats:
    """Fit with the classes that have rows, and give the others their share."""
    present, codes = np.unique(y, return_inverse=True)
    own = np.ones((len(test), 1))
    if len(present) > 1:
        own = predict(fit(x, codes.astype(np.int64)), test, len(present))
    absent = 1 / (len(y) + n_classes)
    found = np.full((len(test), n_classes), absent)
    found[:, present] = own * (1 - absent * (n_classes - len(present)))
    found = np.maximum(found, FLOOR)
    shares: Floats = found / found.sum(axis=1, keepdims=True)
    return shares


def _laplace(shares: Floats, count: Floats | float) -> Floats:
    """``(k + 1) / (m + C)`` for shares ``k / m`` ``(rows, C)`` of ``m`` votes."""
    smoothed: Floats = (shares * count + 1) / (count + shares.shape[1])
    return smoothed


def _choose(
    values: Sequence[Any],
    make: Callable[[Any], Any],
    predict: Predict,
    x: Floats,
    y: Codes,
    seed: int,
    groups: Codes | None,
) -> Any:
    """The value whose log loss over all left-out rows is lowest; of equals the first.

    Args:
        values: to choose from, the simplest model first.
        make: a value to a classifier that is not fitted yet.
        predict: probabilities of a fitted one.
        x: ``(n, F)``.
        y: ``(n,)``, classes from 0.
        seed: of the folds.
        groups: ``(n,)``, each whole in one fold; of a single one nothing can be left out, and the
            first value is taken.
    """
    if groups is not None and len(np.unique(groups)) < 2:
        return values[0]
    classes = int(y.max()) + 1
    fold = draw_folds(y, min(FOLDS, len(y)), seed, groups)
    losses = []
    for value in values:

        def fit(rows: Floats, codes: Codes, value: Any = value) -> Any:
            return make(value).fit(rows, codes)

        left_out = np.empty((len(y), classes))
        for k in np.unique(fold):
            inside = fold != k
            left_out[~inside] = _probabilities(
                fit, predict, x[inside], y[inside], x[~inside], classes
            )
        losses.append(_loss(y, left_out))
    return values[int(np.argmin(losses))]


def _loss(y: Codes, probabilities: Floats) -> float:
    return float(-np.log(probabilities[np.arange(len(y)), y]).mean())


def _as_it_says(fitted: Any, x: Floats, n_classes: int) -> Floats:
    probabilities: Floats = np.asarray(fitted.predict_proba(x), dtype=np.float64)
    return probabilities


# Logistic regression.


def _logistic(x: Floats, y: Codes, seed: int, groups: Codes | None) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    def make(strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=10_000)

    with warnings.catch_warnings():
        # With hardly a penalty and classes that lie apart there is no end to converge to.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make(_choose(STRENGTHS, make, _as_it_says, x, y, seed, groups)).fit(x, y)


# A tree.


def _tree(x: Floats, y: Codes, seed: int, groups: Codes | None) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    def make(alpha: float) -> Any:
        return DecisionTreeClassifier(min_samples_leaf=2, ccp_alpha=alpha, random_state=seed)

    found = make(0.0).cost_complexity_pruning_path(x, y).ccp_alphas
    # The last penalty leaves the root alone. Between two the tree is the same; their geometric
    # mean stands for the interval (Breiman et al. 1984, section 11.5).
    alphas = np.unique(np.maximum(found, 0.0))
    middles = [*np.sqrt(alphas[:-1] * alphas[1:]).tolist(), 2 * float(alphas[-1])]
    return make(_choose(middles[::-1], make, _leaf_shares, x, y, seed, groups)).fit(x, y)


def _leaf_shares(fitted: Any, x: Floats, n_classes: int) -> Floats:
    rows = fitted.tree_.n_node_samples[fitted.apply(x)].astype(np.float64)
    return _laplace(_as_it_says(fitted, x, n_classes), rows[:, None])


# A forest.


def _forest(x: Floats, y: Codes, seed: int, groups: Codes | None) -> Any:
    """The forest whose leaves have the size that is best on rows out of the bag, or on folds."""
    from sklearn.ensemble import RandomForestClassifier

    def make(leaf: int, out_of_bag: bool = False) -> Any:
        return RandomForestClassifier(
            TREES, min_samples_leaf=leaf, oob_score=out_of_bag, random_state=seed, n_jobs=1
        )

    if groups is not None:
        return make(_choose(_LEAVES, make, _tree_shares, x, y, seed, groups)).fit(x, y)
    grown = [make(leaf, out_of_bag=True).fit(x, y) for leaf in _LEAVES]
    losses = [_loss(y, _laplace(forest.oob_decision_function_, TREES)) for forest in grown]
    return grown[int(np.argmin(losses))]


def _tree_shares(fitted: Any, x: Floats, n_classes: int) -> Floats:
    return _laplace(_as_it_says(fitted, x, n_classes), TREES)


# Boosting.


def _boosting(x: Floats, y: Codes, seed: int, groups: Codes | None) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # The 20 rows that a leaf has to have otherwise are more than there may be.
    leaf = min(20, max(2, len(y) // 8))

    def make(rounds: int) -> Any:
        return HistGradientBoostingClassifier(
            max_iter=rounds, min_samples_leaf=leaf, early_stopping=False, random_state=seed
        )

    return make(_choose(_ROUNDS, make, _as_it_says, x, y, seed, groups)).fit(x, y)


def _explainable(x: Floats, y: Codes, seed: int, groups: Codes | None) -> Any:
    # It bags, and stops each bag by rows of its own. Columns are encoded already, so none is
    # to be guessed to be a category; pairs would be noise with so few rows.
    bags = None if groups is None else _bags(y, groups, seed)
    nothing_left_out = bags is not None and bool((bags > 0).all())
    return (
        importlib.import_module("interpret.glassbox")
        .ExplainableBoostingClassifier(
            feature_types=["continuous"] * x.shape[1],
            interactions=0,
            max_rounds=_ROUNDS[0] if nothing_left_out else _EBM_ROUNDS,
            outer_bags=_EBM_BAGS,
            n_jobs=1,
            random_state=seed,
        )
        .fit(x, y, bags=bags)
    )


def _bags(y: Codes, groups: Codes, seed: int) -> NDArray[np.int8]:
    """What each bag does with each row, ``(n, bags)``: 1 to train on it, -1 to stop by it.

    Groups are left out in a random order until they have 15 % of the rows: never more than half
    of them, and none whose rows are the last of a class, which the machine has to see. If no
    group can be left out of one bag, none is left out of any.
    """
    rng = np.random.default_rng([seed, len(y), _EBM_BAGS])
    counts = np.zeros((int(groups.max()) + 1, int(y.max()) + 1), dtype=np.int64)
    np.add.at(counts, (groups, y), 1)
    bags = np.ones((len(y), _EBM_BAGS), dtype=np.int8)
    for bag in range(_EBM_BAGS):
        kept = counts.sum(0)
        for group in rng.permutation(len(counts)):
            rest = kept - counts[group]
            if rest.all() and 2 * rest.sum() >= len(y):
                bags[groups == group, bag] = -1
                kept = rest
            if len(y) - kept.sum() >= _EBM_SHARE * len(y):
                break
    return bags


_ALL = (
    ContextModel(
        "logistic_regression",
        "Ridge logistic regression, le Cessie & van Houwelingen 1992; "
        "sklearn.linear_model.LogisticRegression, C by cross-validation",
        _logistic,
        _as_it_says,
    ),
    ContextModel(
        "decision_tree",
        "CART with cost-complexity pruning, Breiman et al. 1984; Laplace's rule in the leaves, "
        "Provost & Domingos 2003; sklearn.tree.DecisionTreeClassifier, ccp_alpha by "
        "cross-validation",
        _tree,
        _leaf_shares,
    ),
    ContextModel(
        "random_forest",
        "Breiman 2001; sklearn.ensemble.RandomForestClassifier, 200 trees, the size of leaves "
        "by the rows out of the bag, or with groups by cross-validation",
        _forest,
        _tree_shares,
    ),
    ContextModel(
        "hist_gradient_boosting",
        "Gradient boosting, Friedman 2001, on histograms, Ke et al. 2017 (LightGBM); "
        "sklearn.ensemble.HistGradientBoostingClassifier, rounds by cross-validation",
        _boosting,
        _as_it_says,
    ),
    ContextModel(
        "explainable_boosting",
        "Lou, Caruana, Gehrke & Hooker 2013; Nori, Jenkins, Koch & Caruana 2019; "
        "interpret.glassbox.ExplainableBoostingClassifier without pairs",
        _explainable,
        _as_it_says,
        package="interpret",
    ),
)

CONTEXT: Mapping[str, ContextModel] = {model.name: model for model in _ALL}
"""The models by name, each with its source."""

CONTEXT_MODELS: tuple[str, ...] = tuple(CONTEXT)
"""Names that `fit_context_model` knows."""
