"""scikit-learn estimators around the interpretable models, DenoGrad inside.

A classifier and a regressor for each model of `denograd.models`. They share parameters,
input handling and training (`DenoGradEstimator`); each has its model's own `explain(X)`, a
DataFrame with a row for each of ``X``, and `plot()`, a matplotlib figure.

Example:
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> tree = SoftTreeClassifier(random_state=0, max_steps=60).fit(X, y)
    >>> tree.explain(X.tail(2)).index.tolist()
    [148, 149]
"""

from denograd.estimators._base import DenoGradEstimator
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.estimators.additive_net import AdditiveNetClassifier, AdditiveNetRegressor
from denograd.estimators.feature_attention import (
    FeatureAttentionClassifier,
    FeatureAttentionRegressor,
)
from denograd.estimators.prototype_net import PrototypeNetClassifier, PrototypeNetRegressor
from denograd.estimators.rule_net import RuleNetClassifier, RuleNetRegressor
from denograd.estimators.soft_forest import SoftForestClassifier, SoftForestRegressor
from denograd.estimators.soft_tree import SoftTreeClassifier, SoftTreeRegressor
from denograd.estimators.temporal_attention import (
    TemporalAttentionClassifier,
    TemporalAttentionRegressor,
)

__all__ = [
    "AdditiveNetClassifier",
    "AdditiveNetRegressor",
    "DenoGradClassifier",
    "DenoGradEstimator",
    "DenoGradRegressor",
    "FeatureAttentionClassifier",
    "FeatureAttentionRegressor",
    "PrototypeNetClassifier",
    "PrototypeNetRegressor",
    "RuleNetClassifier",
    "RuleNetRegressor",
    "SoftForestClassifier",
    "SoftForestRegressor",
    "SoftTreeClassifier",
    "SoftTreeRegressor",
    "TemporalAttentionClassifier",
    "TemporalAttentionRegressor",
]
