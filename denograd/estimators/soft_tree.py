"""Soft decision trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from denograd.estimators import _plots as plots
from denograd.estimators._base import whole
from denograd.estimators._readable import RuleReader
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import Rule, SoftTree, TabularModel

_TERMS = 3
_DEEPEST = 5
_GREY = "#6b7680"
_MINUS = "\N{MINUS SIGN}"


@dataclass(kw_only=True, eq=False, repr=False)
class _SoftTree(RuleReader):
    _one_rule_each: ClassVar[bool] = True

    depth: int = 3
    temperature: float = 1.0

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        return SoftTree(n_features, n_classes, whole(self.depth), self.temperature)

    def _model_rules(self, x: Tensor) -> list[Rule]:
        assert isinstance(self.model_, SoftTree)
        names = self._class_names()
        return self.model_.to_rules(None, names, x, max_terms=_TERMS, digits=6)

    def _tree_outputs(self, x: Tensor) -> NDArray[np.float64]:
        output = self.model_(x)
        says: NDArray[np.float64] = (output if self._classes() is None else output.exp()).numpy()
        return says[:, None]

    @torch.no_grad()
    def _certainty(self, x: Tensor, held: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        assert isinstance(self.model_, SoftTree)
        paths = self.model_.log_path_probabilities(x).exp().numpy()
        certain: NDArray[np.float64] = (paths * held).sum(1)
        return certain

    @plots.as_written
    def plot(
        self, X: Any = None, *, figure: Figure | SubFigure | None = None
    ) -> Figure | SubFigure:
        """Draw the tree as its rules have it.

        A box is a gate, with up to three features that weigh most in it; rows that meet its
        inequality go right. Lines are as thick as the share of rows that take them. A leaf
        shows its classes' probabilities, or its value.

        Args:
            X: rows to count; None for the training rows.
            figure: to draw on; None for a new one.

        Returns:
            the figure.

        Raises:
            ValueError: the tree is deeper than 5, too wide for a picture.
        """
        rules = self.to_rules(X)
        depth = len(rules[0].tests)
        if depth > _DEEPEST:
            raise ValueError(
                f"{type(self).__name__}: a tree of depth {depth} has {len(rules)} leaves, too many "
                "for a picture; use to_text(), or a depth of at most 5"
            )
        agreement = self._trained_fidelity if X is None else self.fidelity(X)
        figure = plots.canvas(figure, max(7.0, 1.55 * len(rules)), 1.9 + 1.45 * depth)
        axes = figure.subplots()
        draw_tree(axes, rules, self._leaf_scores(), self._class_names())
        rows = "training rows" if X is None else "rows given"
        if self._classes() is None:
            title = f"Tree as read; R² for the soft tree's values {agreement:.2f} ({rows})"
        else:
            title = (
                f"Tree as read; agrees with the soft tree on {100 * agreement:.0f} % of the {rows}"
            )
        axes.set_title(title, loc="left", fontsize=plots.FONT + 1)
        return figure

    def _leaf_scores(self) -> NDArray[np.float64]:
        return np.array([rule.scores for rule in self._rules])


def draw_tree(
    axes: Axes,
    rules: list[Rule],
    leaves: NDArray[np.float64],
    class_names: list[str] | None,
) -> None:
    """Draw a tree from the rules of its leaves, left to right."""
    count, depth = len(rules), len(rules[0].tests)
    share = [np.array([rule.support or 0.0 for rule in rules])]
    while len(share[0]) > 1:
        share.insert(0, share[0].reshape(-1, 2).sum(1))
    places = [(np.arange(2**level) + 0.5) * count / 2**level for level in range(depth + 1)]
    for level in range(depth):
        for node, x in enumerate(places[level]):
            # The first leaf on the right of a gate has its inequality the way it is asked.
            leaf = (2 * node + 1) * 2 ** (depth - level - 1)
            y = depth - level
            for side in (0, 1):
                child = 2 * node + side
                thickness = 0.6 + 7 * share[level + 1][child]
                axes.plot([x, places[level + 1][child]], [y, y - 1], color=_GREY, zorder=1,
                          linewidth=thickness, solid_capstyle="round")  # fmt: skip
            axes.text(x, y, _gate_text(rules[leaf].conditions[level]), ha="center", va="center",
                      fontsize=plots.FONT - (1.5 if level == depth - 1 else 0.5), color=plots.INK,
                      zorder=3, linespacing=1.25,
                      bbox={"boxstyle": "round,pad=0.45", "fc": "white", "ec": _GREY})  # fmt: skip
    for word, side in (("no", 0), ("yes", 1)):
        middle = (places[0][0] + places[1][side]) / 2
        axes.text(middle, depth - 0.42, word, ha="right" if side == 0 else "left", va="bottom",
                  fontsize=plots.FONT, style="italic", color="#3c4043")  # fmt: skip
    spread = np.ptp(leaves) or 1.0
    for leaf, x in enumerate(places[depth]):
        if class_names is None:
            value = float(leaves[leaf, 0])
            tone = plots.SEQUENTIAL((value - leaves.min()) / spread)
            dark = (value - leaves.min()) / spread > 0.55
            axes.text(x, 0, plots.figures_of(value), ha="center", va="center", zorder=3,
                      fontsize=plots.FONT, color="white" if dark else plots.INK,
                      bbox={"boxstyle": "round,pad=0.5", "fc": tone, "ec": _GREY})  # fmt: skip
        else:
            _draw_shares(axes, x, leaves[leaf], class_names)
        axes.text(x, -0.38, f"{100 * share[depth][leaf]:.0f} % of rows", ha="center", va="top",
                  fontsize=plots.FONT - 2, color="#5f6368")  # fmt: skip
    axes.set_xlim(0, count)
    axes.set_ylim(-0.65, depth + 0.45)
    axes.set_axis_off()
    if class_names is not None:
        handles = [Patch(color=plots.colour(i), label=n) for i, n in enumerate(class_names)]
        axes.legend(handles=handles, loc="upper right", title="class", frameon=False,
                    fontsize=plots.FONT - 1, title_fontsize=plots.FONT - 1)  # fmt: skip


def _draw_shares(axes: Axes, x: float, shares: NDArray[np.float64], names: list[str]) -> None:
    """A leaf: the likeliest class over a bar of all classes' probabilities."""
    width, left = 0.74, x - 0.37
    for number, size in enumerate(shares / shares.sum()):
        axes.barh(-0.12, width * size, left=left, height=0.2, color=plots.colour(number), zorder=3)
        left += width * size
    best = int(shares.argmax())
    axes.text(x, 0.06, plots.shortened(names[best], 16), ha="center", va="bottom", zorder=4,
              fontsize=plots.FONT - 0.5, color=plots.INK, fontweight="bold",
              bbox={"boxstyle": "square,pad=0.12", "fc": "white", "ec": "none"})  # fmt: skip


def _gate_text(condition: str) -> str:
    """An inequality in several lines, one for each term."""
    for sign in (" > ", " <= "):
        left, found, right = condition.rpartition(sign)
        if found:
            break
    else:
        return plots.shortened(condition, 24)
    lines = left.replace(" + ", "\n+ ").replace(" - ", f"\n{_MINUS} ").split("\n")
    lines = [plots.shortened(line, 28) for line in lines]
    if lines[0].startswith("-"):
        lines[0] = f"{_MINUS} {lines[0][1:]}"
    lines.append(f"{'≤' if '<' in sign else '>'} {right.replace('-', _MINUS)}")
    return "\n".join(lines)


@dataclass(kw_only=True, eq=False, repr=False)
class SoftTreeClassifier(_SoftTree, DenoGradClassifier):
    """Classes from a soft decision tree; a row's leaf is the explanation.

    The model is `denograd.models.SoftTree`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too.

    Args:
        depth: number of gates on a path.
        temperature: how soft the gates are; near 0 the tree is hard.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> tree = SoftTreeClassifier(depth=2, max_steps=30, random_state=0).fit(X, y)
        >>> tree.predict(X).shape, len(tree.to_rules())
        ((150,), 4)
        >>> list(tree.explain(X).columns)
        ['prediction', 'fired', 'rule', 'weight', 'probability']
    """


@dataclass(kw_only=True, eq=False, repr=False)
class SoftTreeRegressor(_SoftTree, DenoGradRegressor):
    """Numbers from a soft decision tree; a row's leaf is the explanation.

    The model is `denograd.models.SoftTree`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too.

    Args:
        depth: number of gates on a path.
        temperature: how soft the gates are; near 0 the tree is hard.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> tree = SoftTreeRegressor(depth=2, max_steps=30, random_state=0).fit(X, X[:, 0])
        >>> tree.predict(X).shape, len(tree.to_rules())
        ((50,), 4)
    """
