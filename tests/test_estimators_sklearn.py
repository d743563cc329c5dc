"""scikit-learn's own checks of the estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import denograd.estimators as estimators
from denograd.estimators import (
    AdditiveNetClassifier,
    AdditiveNetRegressor,
    FeatureAttentionClassifier,
    FeatureAttentionRegressor,
    PrototypeNetClassifier,
    PrototypeNetRegressor,
    RuleNetClassifier,
    RuleNetRegressor,
    SoftForestClassifier,
    SoftForestRegressor,
    SoftTreeClassifier,
    SoftTreeRegressor,
    TemporalAttentionClassifier,
    TemporalAttentionRegressor,
)

# Steps enough for the accuracy that the checks ask for, and no more. No check is expected to
# fail, in any of them.
FAST = [
    SoftTreeClassifier(depth=2, max_steps=15, optimizer="adamw", learning_rate=0.1),
    SoftTreeRegressor(depth=2, max_steps=25, optimizer="adamw", learning_rate=0.1),
    FeatureAttentionClassifier(max_steps=30),
    FeatureAttentionRegressor(max_steps=40, learning_rate=0.005),
]
SLOW_LEARNERS = (
    PrototypeNetRegressor,
    RuleNetRegressor,
    SoftForestRegressor,
    SoftTreeRegressor,
    TemporalAttentionRegressor,
)
ALL = [
    kind(max_steps=500 if kind in SLOW_LEARNERS else 60)
    for kind in (
        AdditiveNetClassifier,
        AdditiveNetRegressor,
        FeatureAttentionClassifier,
        FeatureAttentionRegressor,
        PrototypeNetClassifier,
        PrototypeNetRegressor,
        RuleNetClassifier,
        RuleNetRegressor,
        SoftForestClassifier,
        SoftForestRegressor,
        SoftTreeClassifier,
        SoftTreeRegressor,
        TemporalAttentionClassifier,
        TemporalAttentionRegressor,
    )
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(FAST)
def test_scikit_learns_checks_on_few_steps(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(ALL)
def test_scikit_learns_checks_on_all_models(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_every_estimator_is_checked() -> None:
    named = {name for name in estimators.__all__ if not name.startswith("DenoGrad")}
    assert named == {type(model).__name__ for model in ALL}
