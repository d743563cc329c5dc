"""What soft trees and forests share: the way down, and the hard trees read off them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from denograd.models._base import TabularModel, is_number, shares
from denograd.models.rules import (
    Condition,
    Rule,
    bare,
    names_or_default,
    number,
    significant,
    verdict,
)

MAX_DEPTH = 16
"""Deepest tree that is made; it has 65,536 leaves."""


class HardTrees(NamedTuple):
    """Trees with linear gates, one leaf for each way down.

    Attributes:
        weight: ``(T, 2**depth - 1, F)``; a gate sends a row right if ``x weight > threshold``.
        threshold: ``(T, 2**depth - 1)``.
        leaves: ``(T, 2**depth, n_outputs)``.
    """

    weight: Tensor
    threshold: Tensor
    leaves: Tensor


def check_depth(owner: str, depth: int) -> None:
    """Raise a `ValueError` if a tree of this depth has too many leaves."""
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{owner}: depth={depth} makes {2**depth} leaves; use a depth of at most {MAX_DEPTH}"
        )


def check_temperature(owner: str, temperature: float) -> float:
    """The temperature as a float, or a `ValueError` if it is not a finite number above 0."""
    if not is_number(temperature) or not 0 < temperature < float("inf"):
        raise ValueError(f"{owner}: temperature={temperature!r}; it must be a number above 0")
    return float(temperature)


def descend(gates: Tensor, depth: int, *, oblivious: bool = False) -> list[Tensor]:
    """Log probability of each node, level by level: ``(..., 1)`` to ``(..., 2**depth)``.

    Args:
        gates: log odds of going right, ``(..., 2**depth - 1)`` node by node from the root,
            or ``(..., depth)`` if all nodes of a level share one gate.
        depth: levels of gates.
        oblivious: whether they do.
    """
    levels = [torch.zeros_like(gates[..., :1])]
    for level in range(depth):
        if oblivious:
            gate = gates[..., level : level + 1]
        else:
            gate = gates[..., 2**level - 1 : 2 ** (level + 1) - 1]
        branches = torch.stack((F.logsigmoid(-gate), F.logsigmoid(gate)), dim=-1)
        levels.append((levels[-1].unsqueeze(-1) + branches).flatten(-2))
    return levels


class TreeModel(TabularModel):
    """Soft trees that can be read as hard ones.

    The hard tree sends each row to the likelier side of each gate. Printed gates are
    simplified: of each linear gate only the ``max_terms`` features with the largest weights
    are kept, the others count as 0 (the mean of a standardised feature), and all numbers are
    rounded to ``digits`` significant digits. `hard_predict` and `fidelity` use the gates and
    leaves exactly as `to_rules` and `to_text` print them with the same arguments.
    """

    depth: int

    @abstractmethod
    def _hard_trees(self) -> HardTrees:
        """The trees before anything is left out or rounded."""

    @abstractmethod
    def _node_reach(self, x: Tensor) -> Tensor:
        """Probability of passing each gate, ``(batch, T, 2**depth - 1)``."""

    def _printed_trees(self, max_terms: int | None, digits: int) -> HardTrees:
        owner = type(self).__name__
        for name, value in (("max_terms", max_terms), ("digits", digits)):
            if value is None and name == "max_terms":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{owner}: {name}={value!r}; it must be a whole number above 0")
        weight, threshold, leaves = (part.detach().double().cpu() for part in self._hard_trees())
        if max_terms is not None and max_terms < self.n_features:
            kept = weight.abs().topk(max_terms, dim=-1).indices
            weight = torch.zeros_like(weight).scatter(-1, kept, weight.gather(-1, kept))
        # A gate's scale does not move its boundary: the largest weight becomes 1 or -1.
        size = weight.abs().amax(-1)
        size = torch.where(size > 0, size, 1.0)
        weight, threshold = weight / size.unsqueeze(-1), threshold / size
        return HardTrees(*(significant(part, digits) for part in (weight, threshold, leaves)))

    @torch.no_grad()
    def _hard_leaves(self, x: Tensor, trees: HardTrees) -> Tensor:
        """Number of the leaf that each row comes to, ``(batch, T)``."""
        rows = self._check_input(x).detach().double().cpu()
        threshold = trees.threshold.to(x.dtype).double()
        right = torch.einsum("bf,tnf->btn", rows, trees.weight) > threshold
        leaf = torch.zeros(right.shape[:2], dtype=torch.long)
        for level in range(self.depth):
            turn = right.gather(-1, (2**level - 1 + leaf).unsqueeze(-1)).squeeze(-1)
            leaf = 2 * leaf + turn
        return leaf

    def hard_scores(self, x: Tensor, max_terms: int | None = 5, digits: int = 3) -> Tensor:
        """Leaf scores of the printed trees, summed over trees, ``(batch, n_outputs)``."""
        trees = self._printed_trees(max_terms, digits)
        leaf = self._hard_leaves(x, trees)
        chosen = trees.leaves[torch.arange(leaf.shape[1]), leaf]
        return chosen.sum(1).to(x)

    def hard_predict(self, x: Tensor, max_terms: int | None = 5, digits: int = 3) -> Tensor:
        """What the printed trees say of each row: class numbers or values, ``(batch,)``.

        Args:
            x: rows, ``(batch, F)``.
            max_terms: features kept in a gate; None for all.
            digits: significant digits of the printed numbers.

        Raises:
            ValueError: ``x`` has the wrong shape, or a number is not whole and above 0.
        """
        scores = self.hard_scores(x, max_terms, digits)
        return scores[:, 0] if self.n_classes is None else scores.argmax(-1)

    @torch.no_grad()
    def fidelity(self, x: Tensor, max_terms: int | None = 5, digits: int = 3) -> float:
        """How well the printed trees stand for the model on rows ``x``.

        Classification: share of rows whose printed class is the model's. Regression: the
        coefficient of determination of the printed values for the model's (1 is perfect,
        below 0 is worse than a constant).

        Args:
            x: rows, ``(batch, F)``.
            max_terms: features kept in a gate; None for all.
            digits: significant digits of the printed numbers.

        Raises:
            ValueError: ``x`` has the wrong shape or no rows.
        """
        if self._check_input(x).shape[0] == 0:
            raise ValueError(f"{type(self).__name__}: x has no rows; fidelity needs at least one")
        hard, soft = self.hard_predict(x, max_terms, digits), self(x)
        if self.n_classes is not None:
            return float((hard == soft.argmax(-1)).double().mean())
        soft = soft[:, 0].double()
        left = float((hard.double() - soft).square().sum())
        total = float((soft - soft.mean()).square().sum())
        if total <= 1e-12 * float(soft.square().sum()):
            # The model is constant on these rows, up to rounding.
            return 1.0 if left <= total else 0.0
        return 1 - left / total

    def to_rules(
        self,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        x: Tensor | None = None,
        max_terms: int | None = 5,
        digits: int = 3,
    ) -> list[Rule]:
        """The hard trees, one rule a leaf.

        Args:
            feature_names: ``F`` names; default: ``x0``, ``x1``, ...
            class_names: ``C`` names; default: ``0``, ``1``, ...
            x: rows to count each rule's support on, ``(batch, F)``.
            max_terms: features kept in a gate, those with the largest weights; None for all.
            digits: significant digits of the printed numbers.

        Returns:
            ``2**depth`` rules a tree, tree by tree, leaf by leaf from the left; a row meets
            one of each tree.

        Raises:
            ValueError: the number of names is wrong, ``x`` has the wrong shape, or a number
                is not whole and above 0.
        """
        features, classes = self._names(feature_names, class_names)
        trees = self._printed_trees(max_terms, digits)
        support = self._support(trees, x)
        rules = []
        for tree in range(trees.leaves.shape[0]):
            gates = self._conditions(trees, tree)
            for leaf, scores in enumerate(trees.leaves[tree].tolist()):
                tests, node = [], 0
                for level in reversed(range(self.depth)):
                    right = bool(leaf >> level & 1)
                    tests.append(gates[node][int(right)])
                    node = 2 * node + 1 + right
                prediction, weight = verdict(scores, classes)
                rules.append(
                    Rule(
                        conditions=tuple(test.text(features) for test in tests),
                        prediction=prediction,
                        support=None if support is None else float(support[tree, leaf]),
                        weight=weight,
                        scores=tuple(scores),
                        tests=tuple(tests),
                        index=tree,
                    )
                )
        return rules

    def to_text(
        self,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        x: Tensor | None = None,
        max_terms: int | None = 5,
        digits: int = 3,
    ) -> str:
        """The hard trees as indented text, with their fidelity if rows are given.

        Arguments and errors are those of `to_rules`.
        """
        features, classes = self._names(feature_names, class_names)
        trees = self._printed_trees(max_terms, digits)
        support = self._support(trees, x)
        count = trees.leaves.shape[0]
        lines = []
        if x is not None:
            share = self.fidelity(x, max_terms, digits)
            what = "of rows agree with" if classes else "R2 for"
            lines.append(f"fidelity {share:.3f} ({what} the soft model, {len(x)} rows)")
        for tree in range(count):
            if count > 1:
                lines.append(f"tree {tree + 1} of {count}, scores are added up:")
            gates = self._conditions(trees, tree)
            self._write(lines, gates, trees.leaves[tree].tolist(), features, classes,
                        None if support is None else support[tree].tolist())  # fmt: skip
        return "\n".join(lines)

    def _write(
        self,
        lines: list[str],
        gates: list[tuple[Condition, Condition]],
        leaves: list[list[float]],
        features: list[str],
        classes: list[str] | None,
        support: list[float] | None,
    ) -> None:
        def visit(node: int, level: int) -> None:
            indent = "  " * level
            if level == self.depth:
                leaf = node - (2**self.depth - 1)
                lines.append(f"{indent}{self._leaf_text(leaves[leaf], classes)}")
                if support is not None:
                    lines[-1] += f" [{100 * support[leaf]:.3g} % of rows]"
                return
            for side in (1, 0):
                lines.append(f"{indent}if {gates[node][side].text(features)}:")
                visit(2 * node + 1 + side, level + 1)

        visit(0, 0)

    def _leaf_text(self, scores: list[float], classes: list[str] | None) -> str:
        if classes is None:
            return number(scores[0])
        listed = ", ".join(f"{n} {number(s)}" for n, s in zip(classes, scores, strict=True))
        return f"{verdict(scores, classes)[0]} (scores: {listed})"

    def _names(
        self, feature_names: Sequence[str] | None, class_names: Sequence[str] | None
    ) -> tuple[list[str], list[str] | None]:
        owner = type(self).__name__
        features = names_or_default(owner, "feature_names", feature_names, self.n_features, "x")
        if self.n_classes is None:
            return features, None
        return features, names_or_default(owner, "class_names", class_names, self.n_classes, "")

    def _conditions(self, trees: HardTrees, tree: int) -> list[tuple[Condition, Condition]]:
        """Each gate's condition for going left and right."""
        pairs = []
        rows = zip(trees.weight[tree].tolist(), trees.threshold[tree].tolist(), strict=True)
        for weights, threshold in rows:
            order = sorted(range(self.n_features), key=lambda i: -abs(weights[i]))
            terms = tuple((i, weights[i]) for i in order if weights[i] != 0)
            sides = (Condition(terms, relation, threshold) for relation in ("<=", ">"))
            left, right = map(bare, sides)
            pairs.append((left, right))
        return pairs

    def _support(self, trees: HardTrees, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        if self._check_input(x).shape[0] == 0:
            raise ValueError(f"{type(self).__name__}: x has no rows to count the support on")
        leaf = self._hard_leaves(x, trees)
        return F.one_hot(leaf, 2**self.depth).double().mean(0)

    @torch.no_grad()
    def feature_importance(self, x: Tensor) -> Tensor:
        """How much each feature moves the gates that rows of ``x`` pass, ``(F,)``.

        The gate weights' magnitudes, each gate counted by the share of rows that reach it,
        times the feature's standard deviation over ``x``; they sum to 1.
        """
        reach = self._node_reach(self._check_input(x)).mean(0)
        weight = (reach.unsqueeze(-1) * self._hard_trees().weight.abs()).sum((0, 1))
        return shares(weight * x.std(0, correction=0))
