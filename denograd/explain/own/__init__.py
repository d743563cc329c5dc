"""The models' own explanations, row by row: one function, and one file for each kind."""

from denograd.explain.own import additive, attention, prototypes, rules, temporal, trees
from denograd.explain.own._dispatch import own_attributions

__all__ = [
    "additive",
    "attention",
    "own_attributions",
    "prototypes",
    "rules",
    "temporal",
    "trees",
]
