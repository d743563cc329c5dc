"""Settings that share a folder: what grows, and what contradicts."""

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from denograd.evaluation.joining import join

NAMES = st.lists(st.sampled_from("abcd"), min_size=1, unique=True)
DESCRIBED = {
    "adamw": {"soft_tree": [{"lr": 0.1}], "attention": [{"lr": 0.2}]},
    "denograd": {"sha256": "4e90", "base": {"lr": 0.01}},
}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that agree in what happens in a cell."""
    tables, models = draw(NAMES), draw(st.sampled_from([["soft_tree"], ["soft_tree", "attention"]]))
    optimizers: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(DESCRIBED)), min_size=1, unique=True)):
        optimizers[name] = dict(DESCRIBED[name])
        if name == "adamw":
            optimizers[name] = {m: DESCRIBED[name][m] for m in models}
    return {
        "models": models,
        "optimizers": optimizers,
        "sizes": [16, 64],
        "seeds": draw(st.integers(1, 9)),
        "steps": 200,
        "context": draw(st.booleans()),
        "tables": {name: f"hash of {name}" for name in tables},
    }


def sets(settings: dict[str, Any]) -> dict[str, Any]:
    """With lists of names as sets, whose order means nothing."""
    return {**settings, "models": set(settings["models"])}


@given(grids(), grids())
def test_joined_settings_hold_both_and_joining_again_adds_nothing(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    before = copy.deepcopy(one)
    both, contradictions = join(json.loads(json.dumps(one)), two)
    assert not contradictions
    assert one == before
    assert both["seeds"] == max(one["seeds"], two["seeds"])
    assert both["context"] is (one["context"] or two["context"])
    assert set(both["models"]) == {*one["models"], *two["models"]}
    assert both["tables"] == one["tables"] | two["tables"]
    for part in (one, two):
        for name, described in part["optimizers"].items():
            assert described.items() <= both["optimizers"][name].items()
    for again, none in (join(two, one), join(both, one), join(both, two)):
        assert not none
        assert sets(again) == sets(both)


@given(grids(), grids(), st.sampled_from(["steps", "sizes", "table", "tuned", "weights", "task"]))
def test_contradictions_do_not_share_a_folder(
    one: dict[str, Any], two: dict[str, Any], changed: str
) -> None:
    for grid in (one, two):
        grid["optimizers"] = copy.deepcopy(DESCRIBED)
        grid["tables"]["a"] = "hash of a"
    if changed == "steps":
        two["steps"] = 100
    elif changed == "sizes":
        two["sizes"] = [16, 64, 128]
    elif changed == "table":
        two["tables"]["a"] = "other rows"
    elif changed == "tuned":
        two["optimizers"]["adamw"]["soft_tree"] = [{"lr": 0.3}]
    elif changed == "weights":
        two["optimizers"]["denograd"]["sha256"] = "77c0"
    else:
        two["task"] = "regression"
    # However much else has grown, the words are of what contradicts.
    contradictions = join(one, two)[1]
    assert len(contradictions) == 1
    named = {"table": "tables.a", "tuned": "optimizers.adamw.soft_tree", "weights": "sha256"}
    assert named.get(changed, changed) in contradictions[0]
    assert join([], one)[1]


def test_a_name_that_stands_for_something_else_now_is_a_contradiction() -> None:
    untuned = {"source": "a paper", "settings": {"lr": 0.001}}
    tuned = {"source": "a paper", "version": "4", "soft_tree": [{"lr": 0.003}]}
    grids = [
        {"models": ["soft_tree"], "optimizers": {"lion": described}}
        for described in (untuned, tuned)
    ]
    said = join(*grids)[1]
    assert [words.split()[0] for words in said] == [
        "optimizers.lion.settings",
        "optimizers.lion.version",
    ]
