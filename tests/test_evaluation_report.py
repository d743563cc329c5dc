"""The report of an evaluation: what it says, and that it says what the summary does."""

from __future__ import annotations

import copy
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from denograd.evaluation import curves
from denograd.evaluation.curves import aligned_runs, plot_curves, plot_ratios
from denograd.evaluation.html import render, svg, verdicts, write_report
from denograd.evaluation.html.words import caveats, judge, rivals
from denograd.evaluation.report import results_table, verdict
from denograd.evaluation.summary import summarise
from denograd.evaluation.train import Cell, CellResult, curve_steps

HOSTILE = '</title></svg><script src="http://evil.example/x.js">alert(\'x\')</script> & "co'
VOID = {"meta", "wbr", "br"}
MODELS = ("soft_tree", "attention")
Results = tuple[dict[str, Any], dict[Cell, CellResult]]


def results_of(
    data_sets: Sequence[str],
    effects: dict[str, float],
    *,
    models: Sequence[str] = MODELS,
    sizes: Sequence[int] = (16, 64),
    seeds: int = 2,
    noise: float = 0.02,
    context: bool = False,
    diverged: int = 0,
    apart: float = 0.0,
) -> Results:
    """Made-up runs: each optimizer's log loss is a data set's own, times exp(effect).

    On every other data set what is not the reference is worse by ``apart``, else better.
    """
    rng = np.random.default_rng(5)
    rows, runs, left = [], {}, diverged
    steps = curve_steps(60)
    for number, data_set in enumerate(data_sets):
        hard = rng.uniform(0.2, 0.6)
        for model in models:
            for size in sizes:
                for place, (name, effect) in enumerate(effects.items()):
                    shift = (place > 0) * apart * (-1) ** number
                    for seed in range(seeds):
                        loss = hard * math.exp(effect + shift + rng.normal(0, noise))
                        share = np.array(steps) / 60
                        curve = loss + (1.2 - loss) * np.exp(-6 * share)
                        broken = name == "sgd" and left > 0
                        left -= broken
                        kept = 3 if broken else len(steps)
                        row = {
                            **Cell(data_set, model, name, size, seed)._asdict(),
                            "steps": 60,
                            "log_loss": math.nan if broken else float(curve[-1]),
                            **dict.fromkeys(
                                ("brier", "calibration_error", "balanced_accuracy", "roc_auc"),
                                math.nan if broken else float(rng.uniform(0.3, 0.7)),
                            ),
                            "accuracy": math.nan if broken else 1 - loss / 2,
                            "train_seconds": 0.6 if name == "adamw" else 0.9,
                            "n_classes": 3,
                            "diverged": int(broken),
                        }
                        rows.append(row)
                        runs[Cell(data_set, model, name, size, seed)] = CellResult(
                            row,
                            {
                                "step": [float(step) for step in steps[:kept]],
                                "train_loss": (0.8 * curve[:kept]).tolist(),
                                "test_loss": curve[:kept].tolist(),
                                "seconds": (0.6 * share[:kept]).tolist(),
                            },
                            None if broken else rng.uniform(size=4).tolist(),
                            None if broken else [1 - loss / 2, loss / 2, None],
                            [30, 12 + seed, 0],
                        )
                if context:
                    forest = {**rows[-1], "model": "random_forest", "optimizer": "fit", "seed": 0}
                    forest |= {"log_loss": hard, "diverged": 0}
                    if model == models[0]:
                        rows.append(forest)
                        runs[Cell(data_set, "random_forest", "fit", size, 0)] = CellResult(
                            forest, recalls=[0.9, 0.7, None], class_rows=[30, 12, 0]
                        )
    summary = {
        "schema": 2,
        "command": "denograd evaluate --builtin wine --out results",
        "finished_at": "2026-02-03T04:05:06+00:00",
        "versions": {"python": "3.12.1", "denograd-optim": "0.1.0"},
        "settings": {
            "models": list(models),
            "sizes": list(sizes),
            "seeds": seeds,
            "steps": 60,
            "batch_size": 32,
            "optimizers": {name: {"lr": 0.1} for name in effects},
            "tables": dict.fromkeys(data_sets, "0f" * 32),
        },
        "reference": next(iter(effects)),
        "cells_finished": len(rows),
        "cells_failed": 0,
        **summarise(pd.DataFrame(rows), next(iter(effects)), runs),
    }
    return summary, runs


def named(count: int) -> list[str]:
    return [f"table_{number}" for number in range(count)]


@pytest.fixture(scope="module")
def full() -> Results:
    """Enough of everything: many data sets, four optimizers, divergence and context."""
    effects = {"adamw": 0.0, "sgd": 0.3, "lion": -0.02, "denograd": -0.2}
    return results_of(named(10), effects, context=True, diverged=3)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return "".join(parts)

    def all(self, tag: str) -> list[Element]:
        found = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] if child.tag == tag else []
                found += child.all(tag)
        return found

    def one(self, name: str) -> Element:
        every = [self, *(e for tag in ("section", "article") for e in self.all(tag))]
        (found,) = [element for element in every if element.attributes.get("id") == name]
        return found


class Reader(HTMLParser):
    """A tree of elements; an end tag that fits no start tag is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        keys = [key for key, _ in attrs]
        assert len(keys) == len(set(keys)), f"<{tag}> has an attribute twice: {keys}"
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Element:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is never closed"
    return reader.root


def values_of(table: Element) -> dict[str, list[float | None]]:
    """Exact numbers of a table by the name of the row; None where a cell has none."""
    found: dict[str, list[float | None]] = {}
    for row in table.all("tbody")[0].all("tr"):
        cells = [cell.all("data") for cell in row.all("td")]
        numbers = [float(data[0].attributes["value"]) if data else None for data in cells]
        found[row.all("th")[0].text] = numbers
    return found


def as_read(value: Element) -> float:
    """The number that a reader sees."""
    text = value.text.lstrip("\u25b2\u25bc= ")
    scale = 0.01 if text.endswith("%") else 1.0
    return float(text.split()[0].replace(",", "")) * scale


def test_the_page_is_whole_and_needs_nothing_from_outside(full: Results, tmp_path: Path) -> None:
    summary, runs = full
    errors = [(Cell("table_1", "soft_tree", "sgd", 16, 0), "ValueError: a <strange> error")]
    path = write_report(summary, runs, errors, tmp_path)
    assert path == tmp_path / "report.html"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    root = read(page)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    for tag in ("script", "link", "img", "iframe", "object"):
        assert not root.all(tag), tag
    elements = [e for tag in ("a", "svg", "p", "td", "section", "div", "figure", "text", "body")
                for e in root.all(tag)]  # fmt: skip
    assert not [e for e in elements if {"src", "style", "onclick", "onload"} & set(e.attributes)]
    ids = [e.attributes["id"] for e in elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = [link.attributes["href"] for link in root.all("a")]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    policy = [m for m in root.all("meta") if "http-equiv" in m.attributes]
    assert policy[0].attributes["content"].startswith("default-src 'none'")
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_chapters_stand_in_the_order_that_was_agreed(full: Results) -> None:
    root = read(render(*full, []))
    assert [section.attributes["id"] for section in root.all("section")] == [
        "verdict",
        "matrix",
        "curves",
        "ranks",
        "ratios",
        "stability",
        "convergence",
        "calibration",
        "classes",
        "consistency",
        "cost",
        "context",
        "worst",
        "failures",
        "making",
    ]


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(dark: bool) -> None:
    """Contrast as WCAG 2.2 defines it: 4.5 for text, 3 for lines."""
    page = render({"schema": 2, "reference": "adamw"}, {}, [])
    light, _, rest = page.partition("@media screen and (prefers-color-scheme: dark)")
    style = rest.partition("}\n}")[0] if dark else light
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style))

    def luminance(name: str) -> float:
        parts = [int(colours[name][place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "raised"):
        assert all(contrast(ink, ground) >= 4.5 for ink in ("ink", "soft", "link", "s1", "s2"))
    for ground in [name for name in colours if name.startswith(("better", "worse"))]:
        assert contrast("ink", ground) >= 4.5
    assert all(contrast(f"s{style}", "paper") >= 3 for style in range(svg.STYLES))


def test_pictures_and_tables_can_be_had_without_seeing(full: Results) -> None:
    root = read(render(*full, []))
    pictures = [e for e in root.all("svg") if "aria-hidden" not in e.attributes]
    assert len(pictures) > 10
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        assert len(picture.attributes["aria-label"]) > 20
    for table in root.all("table"):
        caption = table.attributes["aria-labelledby"]
        assert [f for f in root.all("figcaption") if f.attributes.get("id") == caption]
        cells = [[*row.all("th"), *row.all("td")] for row in table.all("tr")]
        assert len({sum(int(c.attributes.get("colspan", 1)) for c in row) for row in cells}) == 1
        kinds = ("row", "col", "rowgroup")
        assert all(head.attributes["scope"] in kinds for head in table.all("th"))
        # A heading over rows is the first thing of a body of its own.
        for head in (h for h in table.all("th") if h.attributes["scope"] == "rowgroup"):
            assert any(head in body.all("tr")[0].children for body in table.all("tbody"))
    assert root.all("html")[0].attributes["lang"] == "en"
    mean = root.one("ranks").all("svg")[0].attributes["aria-label"]
    for name, rank in full[0]["critical_difference"]["ranks"].items():
        assert f"{name} {rank:.2f}" in mean


def test_what_is_shown_is_the_exact_number_rounded(full: Results) -> None:
    checked = 0
    for value in read(render(*full, [])).all("data"):
        if re.fullmatch(r"[\u25b2\u25bc=]? ?-?[\d.]+( %)?", value.text):
            exact, shown = float(value.attributes["value"]), as_read(value)
            digits = len(value.text.removesuffix(" %").partition(".")[2])
            unit = 10.0**-digits * (0.01 if value.text.endswith("%") else 1.0)
            assert abs(shown - exact) <= 0.5001 * unit
            checked += 1
    assert checked > 200


def test_the_matrix_has_the_numbers_of_the_summary(full: Results) -> None:
    summary, runs = full
    root = read(render(summary, runs, []))
    tables = root.one("matrix").all("table")
    assert len(tables) == 3
    for name, table in zip(["denograd", "sgd", "lion"], tables, strict=True):
        found, comparison = values_of(table), summary["comparisons"][name]
        for model in MODELS:
            for size, value in zip((16, 64), found[model], strict=False):
                own = [c["ratio"][name] for c in summary["cases"]
                       if (c["model"], c["n_train"]) == (model, size)]  # fmt: skip
                assert value == pytest.approx(math.prod(own) ** (1 / len(own)))
            assert found[model][2] == comparison["by_model"][model]["log_loss_ratio"]
        assert found["all models"] == [
            comparison["by_size"]["16"]["log_loss_ratio"],
            comparison["by_size"]["64"]["log_loss_ratio"],
            comparison["overall"]["log_loss_ratio"],
        ]
        last = table.all("tr")[-1].all("td")[-1].all("span")[0].text
        overall = comparison["overall"]
        assert last == f"{overall['clear_wins']}–{overall['ties']}–{overall['clear_losses']}"  # noqa: RUF001
    # Colour is not all that tells better from worse.
    better = [c for c in root.one("matrix").all("td") if "better" in c.attributes.get("class", "")]
    assert better
    assert all(cell.text.startswith("\u25bc") for cell in better)


def test_the_other_tables_have_the_numbers_of_the_summary(full: Results) -> None:
    summary, runs = full
    root = read(render(summary, runs, []))
    comparisons = summary["comparisons"]

    stability = values_of(root.one("stability").all("table")[0])
    assert stability["adamw (reference)"] == [1.0, 1.0, 0]
    assert stability["sgd"][0] == comparisons["sgd"]["overall"]["deviation_ratio"]
    assert stability["sgd"][2] == comparisons["sgd"]["overall"]["diverged"] == 3
    worst = [
        case["optimizers"]["lion"]["log_loss_worst"] / case["optimizers"]["adamw"]["log_loss_worst"]
        for case in summary["cases"]
    ]
    assert stability["lion"][1] == pytest.approx(math.prod(worst) ** (1 / len(worst)))

    convergence = by_group(root.one("convergence").all("table")[0])
    groups = [*comparisons["lion"]["by_size"].values(), comparisons["lion"]["overall"]]
    for heading, key in (
        ("to a loss that both reach", "common_steps_ratio"),
        ("to the reference's best", "steps_ratio"),
    ):
        assert convergence[heading, "lion"] == [group[key] for group in groups]
    soon = values_of(root.one("convergence").all("table")[1])
    seconds = [
        [case["optimizers"][name]["seconds_to_reference"] for name in ("denograd", "adamw")]
        for case in summary["cases"]
    ]
    ratios = [own / other for own, other in seconds if own is not None and other is not None]
    assert len(ratios) > 10
    assert soon["denograd"][1] == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))
    both = [case["optimizers"]["denograd"]["common_seconds_ratio"] for case in summary["cases"]]
    assert soon["denograd"][0] == pytest.approx(math.prod(both) ** (1 / len(both)))

    calibration = values_of(root.one("calibration").all("table")[0])
    brier = [case["optimizers"]["denograd"]["brier"] for case in summary["cases"]]
    assert calibration["denograd"][1] == pytest.approx(np.mean(brier))

    consistency = values_of(root.one("consistency").all("table")[0])
    own = comparisons["denograd"]
    assert consistency["denograd"] == [
        *(own["by_model"][model]["consistency"] for model in MODELS),
        own["overall"]["consistency"],
    ]

    cost = root.one("cost").all("table")[0]
    assert values_of(cost)["denograd"] == pytest.approx([15.0, 15.0, 15.0])
    times = comparisons["denograd"]["overall"]["step_cost_ratio"]
    assert cost.all("tr")[2].all("span")[-1].text == f"{times:.2f} times"

    context = values_of(root.one("context").all("table")[0])
    for size, value in zip((16, 64), context["random_forest"], strict=True):
        losses = [entry["models"]["random_forest"]["log_loss"]
                  for entry in summary["context"] if entry["n_train"] == size]  # fmt: skip
        assert value == pytest.approx(np.mean(losses))

    case = max(summary["cases"], key=lambda case: case["ratio"]["denograd"])
    table = root.one("worst").all("table")[0]
    full_case = values_of(table)
    assert [head.text for head in table.all("th")[:3]] == ["measure", "adamw", "denograd"]
    for measure, key in (("log loss", "log_loss"), ("ROC AUC", "roc_auc")):
        shown = [case["optimizers"][name][key] for name in ("adamw", "denograd")]
        assert full_case[measure][:2] == shown


def test_the_making_is_told(full: Results) -> None:
    root = read(render(*full, []))
    making = root.one("making")
    assert making.all("code")[0].text == "denograd evaluate --builtin wine --out results"
    for word in ("0.1.0", "3.12.1", "0, 1", "16 and 64", "2026-02-03", "table_9", "0f0f"):
        assert word in making.text.replace("0 and 1", "0, 1")
    assert root.one("failures").text.strip().endswith("None.")
    errors = [(Cell("table_1", "m", "sgd", 16, n), f"E: number {n}") for n in range(60)]
    failures = read(render(*full, errors)).one("failures")
    assert "E: number 0" in failures.text
    assert "10 more are in errors.csv" in failures.text


def test_a_sure_win() -> None:
    summary, _ = results_of(named(12), {"adamw": 0.0, "denograd": -0.2})
    (found,) = verdicts(summary)
    assert found.kind == "better"
    ratio = summary["comparisons"]["denograd"]["overall"]["log_loss_ratio"]
    assert found.headline == (
        f"denograd is better than adamw: its log loss is {100 * (1 - ratio):.1f} % lower."
    )
    assert "lower log loss in 48 of 48 cases" in found.tally
    text = " ".join(found.details)
    assert "Over 12 data sets" in text
    assert "is over 0.99" in text
    assert "All agree." in text
    assert "lower log loss with 16 and 64 rows (nominal 95 % interval below 1)" in text
    assert "These intervals are not corrected for their number." in text
    assert "of 12 data sets such an interval holds the true mean in about 91 % at best" in text
    assert "It lost by more than 1 % in none of the 48 cases." in text
    assert "a step takes 1.50 times as long." in text
    # Of two seeds the spread is mostly chance.
    assert "cannot be told: that takes 10 seeds in every case and 6 data sets." in text
    assert "its spread over seeds is" not in text


def test_a_sure_loss() -> None:
    summary, _ = results_of(named(12), {"adamw": 0.0, "denograd": 0.2})
    (found,) = verdicts(summary)
    assert found.kind == "worse"
    assert found.headline.startswith("denograd is worse than adamw: its log loss is 2")
    assert found.headline.endswith("% higher.")
    text = " ".join(found.details)
    assert "higher log loss with soft_tree and attention (nominal 95 % interval above 1)" in text
    overall = summary["comparisons"]["denograd"]["overall"]
    assert f"lost by more than 1 % in 48 of 48 cases, worst in {overall['worst_case']}" in text
    assert "Behind on average on 12 of 12 data sets" in text
    assert "and 7 more." in text


def test_whoever_did_better_than_denograd_is_named() -> None:
    effects = {"adamw": 0.0, "lion": -0.3, "sgd": 0.1, "denograd": -0.2}
    summary, _ = results_of(named(3), effects)
    found = {one.optimizer: " ".join(one.details) for one in verdicts(summary)}
    assert "Of 4 optimizers, 1 did better by mean ratio: lion." in found["denograd"]
    assert "None of the 4 optimizers has a lower mean ratio." in found["lion"]
    assert "3 did better by mean ratio: lion, denograd and adamw." in found["sgd"]


def test_nothing_can_be_told_apart() -> None:
    summary, _ = results_of(named(12), {"adamw": 0.0, "denograd": 0.0}, apart=0.2)
    (found,) = verdicts(summary)
    assert found.kind == "undecided"
    assert "It cannot be told whether denograd or adamw is better" in found.headline
    assert "includes 1" in " ".join(found.details)


def test_as_good_as_each_other() -> None:
    summary, _ = results_of(named(12), {"adamw": 0.0, "denograd": 0.0}, noise=0.002)
    (found,) = verdicts(summary)
    assert found.kind == "equivalent"
    assert found.headline == "denograd and adamw are as good as each other, within 1 %."


def test_a_mean_that_may_be_far_off_is_not_called_as_good() -> None:
    """Nine data sets of ten are alike; on one the loss is twice as high."""
    summary, _ = results_of(named(10), {"adamw": 0.0, "denograd": 0.0}, noise=0.0)
    rows = [
        {**Cell(case["dataset"], case["model"], name, case["n_train"], seed)._asdict(),
         "log_loss": case["optimizers"][name]["log_loss"]
         * (2 if (name, case["dataset"]) == ("denograd", "table_0") else 1)}
        for case in summary["cases"] for name in ("adamw", "denograd") for seed in range(2)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).assign(
        brier=0.3, calibration_error=0.1, accuracy=0.8, balanced_accuracy=0.8, roc_auc=0.8,
        train_seconds=1.0, steps=60, n_classes=3, diverged=0,
    )  # fmt: skip
    summary = {"reference": "adamw", **summarise(frame, "adamw")}
    tests = summary["comparisons"]["denograd"]["tests"]
    assert tests["bayes"]["equivalent"] > 0.95
    (found,) = verdicts(summary)
    assert found.kind == "undecided"
    assert "as good as each other" not in found.headline
    assert "On most of them the two are within 1 %, but the interval" in found.details[0]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_data_sets_are_too_little_however_clear(count: int) -> None:
    summary, runs = results_of(named(count), {"adamw": 0.0, "denograd": -0.5})
    (found,) = verdicts(summary)
    assert found.kind == "too little data"
    sets = "1 data set." if count == 1 else f"{count} data sets."
    assert found.headline.startswith(
        f"Too little data to say whether denograd is better than adamw in general: {sets}"
    )
    assert "no test is believed" in found.details[0]
    # What happened there is said nevertheless.
    assert "lower log loss with 16 and 64 rows." in " ".join(found.details)
    page = read(render(summary, runs, []))
    assert found.headline in page.one("verdict").text
    assert page.one("ranks").text.count("Left out") == 1


def test_one_table_has_an_interval_over_its_seeds_and_says_so() -> None:
    summary, runs = results_of(["wine"], {"adamw": 0.0, "denograd": -0.1}, seeds=8)
    low, high = summary["comparisons"]["denograd"]["by_dataset"]["wine"]["seeds_interval"]
    assert low < math.exp(-0.1) < high < 1
    said = " ".join(verdicts(summary)[0].details)
    assert "Over seeds of this table, not over data sets, the ratio of log loss is on wine 0." in (
        said
    )
    assert f"with a 95 % interval of {low:.3f} to {high:.3f} (8 seeds)" in said
    assert f"{low:.3f} to {high:.3f}" in read(render(summary, runs, [])).one("verdict").text
    two, _ = results_of(["a", "b"], {"adamw": 0.0, "denograd": -0.1}, seeds=8)
    assert "Over seeds of the same table" in " ".join(verdicts(two)[0].details)
    # Two seeds are too few, and with six tables the data sets speak.
    for tables, seeds in ((1, 2), (6, 8)):
        other, _ = results_of(named(tables), {"adamw": 0.0, "denograd": -0.1}, seeds=seeds)
        assert "Over seeds of" not in " ".join(verdicts(other)[0].details)


def test_speed_is_told_with_what_selects() -> None:
    summary, runs = results_of(named(7), {"adamw": 0.0, "denograd": -0.1})
    overall = summary["comparisons"]["denograd"]["overall"]
    said = next(text for text in verdicts(summary)[0].details if "both reach" in text)
    assert said.startswith(
        f"To a test loss that both reach it took {overall['common_steps_ratio']:.2f} times the "
        "steps of adamw. Half of its seeds reached the best test loss of adamw in "
        f"{100 * overall['reached_cases']:.0f} % of the cases"
    )
    assert "optimizers that are alike come out below 1" in said
    page = read(render(summary, runs, [])).one("convergence")
    assert "alike come out below 1" in page.all("figcaption")[0].text
    assert f"{100 * overall['reached_cases']:.0f} % of cases" in page.all("table")[0].text


@pytest.mark.parametrize(("tables", "seeds", "stated"), [(6, 10, True), (5, 10, False),
                                                         (6, 9, False)])  # fmt: skip
def test_spread_is_stated_of_enough_seeds_and_data_sets(
    tables: int, seeds: int, stated: bool
) -> None:
    summary, runs = results_of(
        named(tables), {"adamw": 0.0, "mine": 0.1}, models=("m",), sizes=(16,), seeds=seeds
    )
    said = " ".join(verdicts(summary)[0].details)
    assert ("its spread over seeds is" in said) is stated
    told = read(render(summary, runs, [])).one("stability").text
    assert ("no difference can be read off them" in told) is not stated


def test_what_limits_a_comparison_is_told() -> None:
    summary, runs = results_of(named(2), {"adamw": 0.0, "mine": 0.1}, seeds=10)
    assert caveats(summary) == []
    summary |= {"runs_left_out": 6, "tuned_elsewhere": ["adamw was not tuned for 9 steps."]}
    found = caveats(summary)
    assert found[0] == "adamw was not tuned for 9 steps."
    assert found[1].startswith("6 runs that were finished are left out of every comparison, ")
    assert all(sentence in read(render(summary, runs, [])).text for sentence in found)


def test_metrics_of_different_units_are_not_averaged() -> None:
    """Two tables of one kind, the second in units a thousand times smaller."""
    rows = []
    for data_set, unit in (("metres", 1.0), ("millimetres", 1000.0)):
        for seed in range(2):
            for name, worse in (("adamw", 1.0), ("mine", 1.5)):
                rows.append({
                    **Cell(data_set, "m", name, 16, seed)._asdict(), "steps": 60, "diverged": 0,
                    "rmse": unit * worse, "crps": 0.6 * unit * worse, "r2": 1 - 0.3 * worse,
                    "nll": math.log(unit * worse), "train_seconds": 1.0, "target_deviation": unit,
                })  # fmt: skip
    frame = pd.DataFrame(rows)
    summary = {"schema": 2, "reference": "adamw", **summarise(frame, "adamw")}
    section = read(render(summary, {}, [])).one("calibration")
    found = values_of(section.all("table")[0])
    assert found["adamw (reference)"] == pytest.approx([1.0, 0.7, 0.0, 1.0])
    assert found["mine"] == pytest.approx([1.5, 0.55, math.log(1.5), 1.5])
    # With one table the plain numbers have a unit.
    one = frame[frame["dataset"] == "metres"]
    summary = {"schema": 2, "reference": "adamw", **summarise(one, "adamw")}
    section = read(render(summary, {}, [])).one("calibration")
    assert values_of(section.all("table")[0])["mine"] == pytest.approx(
        [1.5, math.log(1.5), 0.9, 0.55]
    )


def test_the_picture_of_ratios_counts_as_the_report_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, _ = results_of(named(3), {"adamw": 0.0, "mine": -0.004}, noise=0.0)
    assert summary["comparisons"]["mine"]["overall"]["wins"] == 12
    drawn: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        drawn.append(figure)
        return path

    monkeypatch.setattr(curves, "_save", keep)
    plot_ratios(summary, tmp_path)
    title = drawn[0].axes[0].get_title()
    assert "0 won, 12 tied, 0 lost, mean ratio 0.99" in title


def by_group(table: Element) -> dict[tuple[str, str], list[float | None]]:
    """As `values_of`, by the heading of the group and the name of the row."""
    found = {}
    for body in table.all("tbody"):
        heading, *rows = body.all("tr")
        for row in rows:
            cells = [cell.all("data") for cell in row.all("td")]
            found[heading.text.strip(), row.all("th")[0].text] = [
                float(data[0].attributes["value"]) if data else None for data in cells
            ]
    return found


def test_the_recall_of_each_class_is_the_mean_over_seeds(full: Results) -> None:
    summary, runs = full
    section = read(render(summary, runs, [])).one("classes")
    tables = section.all("table")
    assert len(tables) == 10
    # The first three are open, or a reader would not see what the others hold.
    folds = section.all("details")
    assert [fold.all("summary")[0].text for fold in folds] == named(10)[3:]
    assert [len(fold.all("table")) for fold in folds] == [1] * 7
    for data_set, table in zip(named(10), tables, strict=True):
        assert [head.text for head in table.all("thead")[0].all("th")] == [
            *("optimizer", "0", "1", "2"),
        ]
        found = by_group(table)
        assert len(found) == 2 * 2 * 4 + 2
        for model in MODELS:
            for size in (16, 64):
                shown_ones = ("adamw", "sgd", "lion", "denograd")
                recalls_of = {
                    name: [
                        runs[Cell(data_set, model, name, size, seed)].recalls for seed in range(2)
                    ]
                    for name in shown_ones
                }
                lasting = [found for found in recalls_of.values() if any(found)]
                counted = [seed for seed in range(2) if all(found[seed] for found in lasting)]
                for name in shown_ones:
                    lasted = [recalls_of[name][seed] for seed in counted if recalls_of[name][seed]]
                    shown = found[f"{model}, {size} rows", name]
                    for place in range(2):
                        known = [recalls[place] for recalls in lasted]
                        expected = pytest.approx(np.mean(known)) if known else None
                        assert shown[place] == expected
                    assert shown[2] is None
        for size in (16, 64):
            heading = f"models outside torch, {size} rows"
            assert found[heading, "random_forest"] == [0.9, 0.7, None]
        assert re.search(r"on average: 0 30, 1 12\.[56] and 2 0\.$", caption_of(section, table)), (
            "12 and 13 rows, less the seeds that do not count"
        )


def caption_of(section: Element, table: Element) -> str:
    label = table.attributes["aria-labelledby"]
    (found,) = [f for f in section.all("figcaption") if f.attributes.get("id") == label]
    return found.text


def test_of_two_classes_it_is_said_what_a_recall_is() -> None:
    runs = {
        Cell("heart", "soft_tree", name, 16, seed): CellResult(
            {
                **Cell("heart", "soft_tree", name, 16, seed)._asdict(),
                "steps": 9,
                "log_loss": 0.5,
                "brier": 0.3,
                "calibration_error": 0.1,
                "accuracy": 0.7,
                "balanced_accuracy": 0.7,
                "roc_auc": 0.8,
                "train_seconds": 1.0,
                "n_classes": 2,
                "diverged": 0,
            },
            recalls=[0.25, 0.75],
            class_rows=[8, 4],
        )
        for name in ("adamw", "denograd")
        for seed in range(2)
    }
    rows = pd.DataFrame([run.row for run in runs.values()])
    summary = {"schema": 2, "reference": "adamw"}
    labels = ["ill", "<b>well"]
    summary |= summarise(rows, "adamw", runs, {"heart": labels})
    (case,) = summary["cases"]
    assert case["classes"] == {"seeds": 2, "test_rows": {"ill": 8.0, "<b>well": 4.0}}
    assert case["optimizers"]["denograd"]["recalls"] == {"ill": 0.25, "<b>well": 0.75}
    section = read(render(summary, runs, [])).one("classes")
    assert not section.all("details")
    (table,) = section.all("table")
    said = caption_of(section, table)
    assert "the recall of ill is the sensitivity for ill and the specificity for <b>well" in (
        said.lower()
    )
    assert "likeliest class, so the threshold is 1/2" in said
    assert "on average: ill 8 and <b>well 4." in said
    # A seed counts if all of its runs kept their recalls.
    old = Cell("heart", "soft_tree", "adamw", 16, 1)
    runs[old] = CellResult(runs[old].row)
    summary |= summarise(rows, "adamw", runs, {"heart": labels})
    assert summary["cases"][0]["classes"]["seeds"] == 1
    assert "Seeds are left out, for all optimizers alike" in (
        read(render(summary, runs, [])).one("classes").all("p")[0].text
    )
    with pytest.raises(ValueError, match=r"labels has 1 names \(ill\) and the runs know of 2"):
        summarise(rows, "adamw", runs, {"heart": ["ill"]})
    # Runs of an earlier version kept none, and then there is nothing to say.
    runs = {cell: CellResult(run.row) for cell, run in runs.items()}
    summary = {"schema": 2, "reference": "adamw", **summarise(rows, "adamw", runs)}
    assert "classes" not in summary["cases"][0]
    assert "Class by class" not in render(summary, runs, [])


def test_of_many_optimizers_the_foremost_have_their_recalls_shown() -> None:
    effects = {"adamw": 0.0, "lion": 0.1, "sam": 0.2, "rm3": 0.3, "sgd": 0.4, "denograd": -0.1}
    summary, runs = results_of(["a"], effects, sizes=(16,))
    section = read(render(summary, runs, [])).one("classes")
    names = [name for _, name in by_group(section.all("table")[0])]
    assert names == 2 * ["adamw", "denograd", "lion", "sam"]
    assert "but in summary.json: rm3 and sgd." in section.all("p")[0].text


def test_sizes_at_which_it_lost_are_named() -> None:
    summary, _ = results_of(named(8), {"adamw": 0.0, "mine": -0.1}, sizes=(16, 32, 64))
    summary = copy.deepcopy(summary)
    of_64 = summary["comparisons"]["mine"]["by_size"]["64"]
    of_64 |= {"log_loss_ratio": 1.2, "ratio_interval": [0.9, 1.4]}
    of_32 = summary["comparisons"]["mine"]["by_size"]["32"]
    of_32 |= {"log_loss_ratio": 1.003, "ratio_interval": [0.9, 1.1]}
    text = " ".join(verdicts(summary)[0].details)
    assert (
        "By size, mine has lower log loss with 16 rows (nominal 95 % interval below 1); the same "
        "log loss within 1 % with 32 rows; higher log loss with 64 rows. These intervals are not "
        "corrected for their number."
    ) in text


@settings(max_examples=200)
@given(
    st.tuples(*[st.floats(0, 1)] * 3).filter(lambda p: sum(p) > 0),
    st.floats(0, 1),
    st.floats(0.1, 3),
    st.floats(1, 2),
    st.integers(1, 40),
)
def test_only_what_all_agree_on_is_called_sure(
    chances: tuple[float, float, float], p: float, ratio: float, width: float, data_sets: int
) -> None:
    better, equivalent, worse = (chance / sum(chances) for chance in chances)
    interval = [ratio / width, ratio * width]
    overall = {"cases": 9, "log_loss_ratio": ratio, "ratio_interval": interval}
    bayes = {"better": better, "equivalent": equivalent, "worse": worse}
    tests = {"data_sets": data_sets, "wilcoxon": {"p": p}, "bayes": bayes}
    kind = judge(overall, tests)
    alike = equivalent >= 0.95 and interval[0] >= math.exp(-0.01) and interval[1] <= math.exp(0.01)
    assert (kind == "equivalent") == (alike and data_sets >= 6)
    sure = data_sets >= 6 and p < 0.05
    assert (kind == "better") == (sure and better >= 0.95 and interval[1] < 1)
    assert (kind == "worse") == (sure and worse >= 0.95 and interval[0] > 1)
    assert (kind == "too little data") == (data_sets < 6)
    if kind == "probably better":
        assert better > 0.5
    # Turned around, it says the opposite.
    turned = judge(
        overall
        | {"log_loss_ratio": 1 / ratio, "ratio_interval": [1 / end for end in interval[::-1]]},
        tests | {"bayes": bayes | {"better": worse, "worse": better}},
    )
    opposite = {"better": "worse", "probably better": "probably worse"}
    opposite |= {value: key for key, value in opposite.items()}
    assert turned == opposite.get(kind, kind)


def test_a_p_value_counts_as_it_is_corrected_for_many_optimizers() -> None:
    overall = {"cases": 9, "log_loss_ratio": 0.9, "ratio_interval": [0.8, 0.95]}
    bayes = {"better": 0.99, "equivalent": 0.01, "worse": 0.0}
    wilcoxon = {"p": 0.02, "p_holm": 0.2}
    tests = {"data_sets": 9, "wilcoxon": wilcoxon, "bayes": bayes}
    assert judge(overall, tests) == "probably better"
    assert judge(overall, tests | {"wilcoxon": wilcoxon | {"p_holm": 0.04}}) == "better"


def test_the_terminal_says_what_the_page_says(full: Results) -> None:
    summary, runs = full
    sentences = verdict(summary)
    page = read(render(summary, runs, [])).one("verdict")
    articles = page.all("article")
    assert len(articles) == 3 == len(sentences) - 1
    assert sentences[0].startswith("denograd is better than adamw")
    for sentence, article in zip(sentences, articles, strict=False):
        headline, tally = (paragraph.text for paragraph in article.all("p")[1:])
        assert sentence.startswith(f"{headline} {tally}")
    # In full for denograd's, which alone stands open in the page.
    details = [item.text for item in articles[0].all("li")]
    assert sentences[0].endswith(" ".join(details))
    assert len(details) == 7
    assert len(page.all("details")[0].all("article")) == 2
    assert "Only 2 seeds" in sentences[-1]
    assert sentences[-1] in page.text
    assert "3 runs of sgd diverged" in articles[1].text
    console = Console(width=200, record=True, file=io.StringIO())
    table = results_table(summary)
    console.print(table)
    assert len(table.rows) == len(summary["cases"]) == 40
    text = console.export_text()
    first = summary["cases"][0]
    assert f"{first['optimizers']['denograd']['log_loss']:.3f}" in text


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    effects = {"adamw": 0.0, "sgd": 0.2, f"denograd:{HOSTILE}": -0.1}
    summary, runs = results_of([HOSTILE, *named(6)], effects)
    summary = {**summary, "command": f"denograd evaluate --data {HOSTILE}", "cells_failed": 1}
    summary["versions"] = {"python": HOSTILE}
    errors = [(Cell(HOSTILE, HOSTILE, HOSTILE, 16, 0), f"Error: {HOSTILE}")]
    page = write_report(summary, runs, errors, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page
    root = read(page)
    assert not root.all("script")
    assert len(root.all("title")) >= 1
    assert HOSTILE in root.one("failures").text
    assert HOSTILE in root.one("making").all("code")[0].text
    assert any(HOSTILE in e.attributes["aria-label"] for e in root.one("ratios").all("svg"))
    alone, runs = results_of([HOSTILE], {"adamw": 0.0, "mine": 0.1})
    root = read(render(alone, runs, []))
    assert root.all("title")[0].text == f"Optimizers compared on {HOSTILE}"


def test_pictures_take_names_as_they_are(tmp_path: Path) -> None:
    names = ["a$x_$", "a%x_$"]
    summary, runs = results_of(names, {"adamw$_$": 0.0, "denograd:b$_$": -0.1}, seeds=1)
    files = plot_curves(runs, list(summary["settings"]["optimizers"]), tmp_path)
    assert [path.name for path in files] == ["curves_a_x__.png", "curves_a_x___2.png"]
    files += plot_ratios(summary, tmp_path)
    assert all(path.stat().st_size > 1000 for path in files)
    assert len(files) == 3


def test_the_terminal_takes_names_as_they_are() -> None:
    name = "[bold]x[/red]"
    summary, _ = results_of([name], {"adamw": 0.0, "denograd:[i]y": -0.1})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(summary))
    text = console.export_text()
    assert text.count(name) == 4
    assert "denograd:[i]y" in text


def test_of_many_optimizers_the_foremost_are_shown() -> None:
    others = {f"o{number}": 0.1 * number for number in (8, 3, 7, 1, 6, 2, 5, 4)}
    effects = {"adamw": 0.0, **others, "denograd": 0.9, "denograd:mine": 0.95}
    summary, runs = results_of(named(2), effects, models=("m",), sizes=(16,), seeds=1, noise=0.0)
    # Of eight lines: the reference, denograd's two, and the five best, in the order of the names.
    legend = read(render(summary, runs, [])).one("curves").all("ul")[0]
    shown = [entry.text.strip() for entry in legend.all("li")]
    assert shown == ["adamw", "denograd", "denograd:mine", "o3", "o1", "o2", "o5", "o4"]
    console = Console(width=200, record=True, file=io.StringIO())
    table = results_table(summary)
    console.print(table)
    columns = [str(column.header).partition("\n")[2] for column in table.columns]
    assert [name for name in columns if name] == 2 * ["adamw", "o1", "denograd", "denograd:mine"]
    assert "7 more optimizers are in the report" in console.export_text()


def test_shared_seconds_are_said_to_be_shared() -> None:
    summary, runs = results_of(named(7), {"adamw": 0.0, "adamw_cv": 0.0, "denograd": -0.1})
    page = render(summary, runs, [])
    assert "took their steps together" not in page
    assert "in one stack" not in page
    summary["settings"]["engine"] = "batched"
    page = render(summary, runs, [])
    assert "took their steps together" in page
    assert "they differ by rounding, which denograd on few rows" in page
    assert "1.50 times as long (all seeds in one stack" in page
    # The search of a rival that tunes itself is not in its seconds.
    assert page.count("For adamw_cv without the trainings that it chose") == 2


def test_what_is_missing_is_left_out_with_a_reason() -> None:
    summary, runs = results_of(named(2), {"adamw": 0.0, "mine": 0.1}, seeds=1)
    summary = copy.deepcopy(summary)
    summary |= {"critical_difference": None, "context": [], "command": None}
    for case in summary["cases"]:
        for values in case["optimizers"].values():
            values |= dict.fromkeys(
                ("roc_auc", "steps_to_reference", "seconds_to_reference", "reached", "consistency",
                 "seconds_per_step", "accuracy")
            )  # fmt: skip
    comparison = summary["comparisons"]["mine"]
    groups = [comparison["overall"]]
    groups += [group for key in ("by_model", "by_size", "by_dataset")
               for group in comparison[key].values()]  # fmt: skip
    for group in groups:
        group |= dict.fromkeys(
            ("ratio_interval", "steps_ratio", "seconds_ratio", "reached", "consistency",
             "consistency_reference", "step_cost_ratio", "deviation_ratio", "accuracy",
             "accuracy_reference", "reached_cases", "common_steps_ratio", "common_seconds_ratio")
        )  # fmt: skip
    comparison["tests"] |= {"wilcoxon": None, "bayes": None}
    without = {cell: CellResult(result.row, {}) for cell, result in runs.items()}
    root = read(render(summary, without, []))
    reasons = {
        "curves": "No run recorded a curve",
        "ranks": "at least three optimizers and three data sets, and here there are 2 optimizers",
        "stability": "With one seed",
        "convergence": "Not known",
        "consistency": "Not known",
        "cost": "Not measured",
        "context": "None were fitted",
        "making": "Made from Python",
    }
    for name, reason in reasons.items():
        assert reason in root.one(name).text
    assert "None " not in root.one("verdict").text
    assert "nan" not in root.one("worst").text
    assert verdict(summary)[0].startswith("Too little data")
    assert len(results_table(summary).rows) == 8


def test_one_optimizer_and_runs_that_all_failed() -> None:
    summary, runs = results_of(named(1), {"sgd": 0.0})
    root = read(render(summary, runs, []))
    assert "Nothing was compared" in root.one("verdict").text
    assert root.one("curves").all("svg")
    assert verdict(summary) == []
    kept = ("schema", "command", "settings", "versions", "reference")
    failed = {key: summary[key] for key in kept} | {"cells_finished": 0, "cells_failed": 2}
    errors = [(Cell("a", "m", "sgd", 16, seed), "RuntimeError: no") for seed in range(2)]
    root = read(render(failed, {}, errors))
    assert "RuntimeError: no" in root.one("failures").text
    with pytest.raises(ValueError, match=r"schema 1; give one of schema 2"):
        render({**failed, "schema": 1}, {}, [])


def test_no_case_that_all_finished() -> None:
    group: dict[str, Any] = {"cases": 0}
    comparison = {"overall": group, "by_model": {}, "by_size": {}, "by_dataset": {}, "tests": {}}
    summary = {
        "schema": 2,
        "reference": "adamw",
        "cases": [],
        "comparisons": {"mine": comparison},
        "critical_difference": None,
        "context": [],
    }
    root = read(render(summary, {}, []))
    assert "no case in which every optimizer finished a seed" in root.one("verdict").text
    assert rivals(summary) == ["mine"]


def test_a_large_evaluation_stays_a_page_one_can_mail() -> None:
    models = ("soft_tree", "attention", "additive_net", "prototype_net")
    effects = {"adamw": 0.0, "lion": 0.1, "denograd": -0.1}
    sizes = (16, 32, 64, 128, 256)
    summary, runs = results_of(named(39), effects, models=models, sizes=sizes, seeds=1)
    page = render(summary, runs, [])
    assert len(page) < 1_500_000
    curves = read(page).one("curves")
    assert len(curves.all("details")) == 8
    # Those on which denograd did worst, and the rest is named.
    by_dataset = summary["comparisons"]["denograd"]["by_dataset"]
    worst = sorted(by_dataset, key=lambda name: -by_dataset[name]["log_loss_ratio"])
    shown = [fold.all("summary")[0].text for fold in curves.all("details")]
    assert shown == [f"Curves of {name}" for name in worst[:8]]
    told = next(p.text for p in curves.all("p") if "Left out" in p.text)
    assert set(re.findall(r"table_\d+", told)) == set(worst[8:])


def test_learning_curves_are_means_relative_to_the_references_best() -> None:
    effects = {"adamw": 0.0, "mine": math.log(0.5)}
    summary, runs = results_of(named(3), effects, models=("m",), sizes=(16,), noise=0.0)
    root = read(render(summary, runs, []))
    picture = root.one("curves").all("svg")[2]
    label = picture.attributes["aria-label"]
    ends: dict[str, list[float]] = {name: [] for name in effects}
    for name in named(3):
        of = {key: runs[Cell(name, "m", key, 16, 0)].curve["test_loss"] for key in effects}
        for key in effects:
            ends[key].append(of[key][-1] / min(of["adamw"]))
    mean = math.prod(ends["mine"]) ** (1 / 3)
    assert f"line 1: 1, line 2: {mean:.3g}." in label
    lines = [e for e in picture.all("polyline") if "line" in e.attributes["class"]]
    assert [line.attributes["class"] for line in lines] == ["line s1", "line s0"]
    heights = [float(point.split(",")[1]) for point in lines[0].attributes["points"].split()]
    assert heights == sorted(heights)  # a falling loss goes down the picture


def test_runs_that_diverged_are_not_averaged(full: Results, tmp_path: Path) -> None:
    summary, runs = full
    curves = [
        result for cell, result in runs.items()
        if (cell.dataset, cell.model, cell.optimizer, cell.n_train)
        == ("table_0", "soft_tree", "sgd", 64)
    ]  # fmt: skip
    found = aligned_runs(curves)
    assert found.left_out == 1
    assert found.test.shape == (1, 25)
    assert aligned_runs([]).test.shape == (0, 0)
    curve = {"step": [0.0, 1.0], "test_loss": [1.0, math.inf], "train_loss": [1.0, 1.0]}
    assert aligned_runs([CellResult({"diverged": 0}, curve)]).left_out == 1
    assert "3 runs that diverged cannot be drawn" in render(summary, runs, [])
    small = {c: r for c, r in runs.items() if c.dataset == "table_0"}
    pictures = plot_curves(small, list(summary["settings"]["optimizers"]), tmp_path)
    pictures += plot_ratios(summary, tmp_path)
    assert [path.name for path in pictures] == ["curves_table_0.png", "ratios.png"]


def test_pictures_leave_out_diverged_runs_and_models_without_curves(tmp_path: Path) -> None:
    effects = {"adamw": 0.0, "sgd": 0.3}
    _, runs = results_of(["a", "b"], effects, models=("m",), context=True)
    # On one data set nothing lasted, on the other one size of one optimizer did not.
    for cell, result in runs.items():
        if cell.dataset == "b" or (cell.optimizer, cell.n_train) == ("sgd", 64):
            runs[cell] = CellResult({**result.row, "diverged": 1}, result.curve)
    lasted = {
        cell: result
        for cell, result in runs.items()
        if cell.optimizer != "fit" and not result.diverged
    }
    pictures = []
    for number, drawn in enumerate((runs, lasted)):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = plot_curves(drawn, list(effects), folder)
        assert [path.name for path in files] == ["curves_a.png"]
        pictures.append(files[0].read_bytes())
    assert pictures[0] == pictures[1]


@given(st.floats(1e-3, 1e3), st.floats(1.05, 1e4))
def test_ticks_are_round_and_inside(low: float, spread: float) -> None:
    scale = svg.LogScale(low, low * spread, 0.0, 100.0)
    ticks = scale.ticks()
    assert len(ticks) <= 7
    if spread > 1.2:
        assert ticks
    assert all(low * 0.999 <= tick <= low * spread * 1.001 for tick in ticks)
    places = [scale(tick) for tick in ticks]
    assert places == sorted(places)
    assert all(-0.1 <= place <= 100.1 for place in places)
