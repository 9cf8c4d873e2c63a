"""Metrics: each by hand, and errors that are no wrong answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.metrics import Cell, in_order, measure


def record(right: bool | float, gold: str = "A", parsed: str | None = "A", **groups: str | tuple[str, ...]) -> Any:
    given = {k: (v,) if isinstance(v, str) else v for k, v in groups.items()}
    return {"right": right, "gold": gold, "parsed": parsed, "groups": given}


def test_accuracy_and_breakdowns() -> None:
    records = [record(True, task="x"), record(False, task="x"), record(0.5, task=("x", "y")), record(True)]
    scores = measure(records, breakdowns=("task",))
    assert scores.value == pytest.approx(2.5 / 4)
    assert scores.breakdowns == {"task": {"x": Cell(0.5, 3), "y": Cell(0.5, 1)}}, "a question counts in both"
    assert (scores.questions, scores.errors, scores.unparsed, scores.extra) == (4, 0, 0, {})


def test_an_error_is_no_wrong_answer() -> None:
    failed = {"error": "MediaError: cut off", "right": None, "gold": "A", "parsed": None, "groups": {}}
    scores = measure([record(True), record(False, parsed=None), failed])
    assert (scores.value, scores.questions, scores.errors, scores.unparsed) == (0.5, 2, 1, 1)
    assert measure([{**record(True), "error": None}]).value == 1


def test_nothing_answered_is_no_number() -> None:
    failed = {"error": "x", "groups": {}}
    for metric in ("accuracy", "group_mean", "yes_no", "cmm", "readable"):
        scores = measure([failed], metric, ("task",), "task")
        assert (scores.value, scores.questions, scores.errors) == (None, 0, 1)


def test_a_mean_over_groups_weighs_them_the_same() -> None:
    records = [record(True, task="a")] + [record(False, task="b")] * 3
    scores = measure(records, "group_mean", ("task",), "task")
    assert scores.value == 0.5
    assert scores.extra == {"all": {"mean over questions": 0.25}}
    with pytest.raises(OmnisinkError, match="needs every question to be in such a group"):
        measure([*records, record(True)], "group_mean", (), "task")


def test_video_mme_reports_the_accuracy_of_what_could_be_read_too() -> None:
    records = [record(True, task="x"), record(False, task="x"), record(False, parsed=None, task="y")]
    scores = measure(records, "readable", ("task",))
    assert (scores.value, scores.unparsed) == (pytest.approx(1 / 3), 1)
    assert scores.extra["all"] == scores.extra["x"] == {"accuracy of readable answers": 0.5}
    assert scores.extra["y"] == {}, "nothing was read"


def test_avhbench_reports_how_yes_is_said() -> None:
    pairs = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no"), ("yes", None)]
    records = [record(gold == said, gold, said, task="x") for gold, said in pairs]
    scores = measure(records, "yes_no", ("task",))
    assert scores.value == pytest.approx(2 / 5)
    expected = {"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "yes": 2 / 5}
    assert scores.extra["all"] == pytest.approx(expected)
    assert scores.extra["x"] == pytest.approx(expected)
    never = measure([record(True, "no", "no")], "yes_no").extra["all"]
    assert never == {"precision": 0, "recall": 0, "f1": 0, "yes": 0}


def test_cmm_parts_perception_from_resistance() -> None:
    records = [
        record(True, "yes", "yes", sub_category="v"),
        record(False, "yes", "no", sub_category="v"),
        record(True, "no", "no", sub_category="a"),
    ]
    scores = measure(records, "cmm", ("sub_category",))
    assert scores.value == pytest.approx(2 / 3)
    assert scores.extra["all"] == {"perception accuracy": 0.5, "hallucination resistance": 1}
    assert scores.extra["v"] == {"perception accuracy": 0.5}
    assert scores.extra["a"] == {"hallucination resistance": 1}


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(OmnisinkError, match="unknown metric 'luck': use one of accuracy"):
        measure([], "luck")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1))
def test_the_mean_is_that_of_the_groups_by_their_size(rows: list[tuple[bool, str]]) -> None:
    scores = measure([record(right, task=task) for right, task in rows], breakdowns=("task",))
    cells = scores.breakdowns["task"].values()
    assert scores.value == pytest.approx(sum(c.score * c.questions for c in cells) / len(rows))
    assert sum(c.questions for c in cells) == len(rows)
    assert scores.to_dict()["questions"] == len(rows)


@pytest.mark.parametrize(
    "names",
    [
        ["512", "1024", "10240"],
        ["0 %", "25 %", "100 %"],
        ["part 2", "part 10", "whole"],
        ["a", "a1", "a2", "b"],
        ["7" * 5000, "8" * 5000, "7" * 5001],
        ["", "007", "8", "٣"],
    ],
)
def test_numbers_in_names_are_in_order_of_their_size(names: list[str]) -> None:
    turned = names[::-1]
    turned.sort(key=in_order)
    assert turned == names
