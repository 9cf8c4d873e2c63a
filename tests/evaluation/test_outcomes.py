"""Reading runs: last attempts, errors, what is missing, and which runs are seeds of one task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.comparing.outcomes import read_run, score, tasks_of, unparsed
from omnisink.results.records import MANIFEST, RECORDS
from tests.evaluation.scored_runs import failed, manifest, record, write, write_scores

METHODS = ("baseline", "outro")


def test_the_last_attempt_counts_wherever_it_stands(tmp_path: Path) -> None:
    rows = [
        failed("a", "baseline"),
        record("a", "baseline", False, attempt=2),
        failed("a", "baseline", attempt=1),
        record("a", "outro"),
    ]
    (task,) = tasks_of([write(tmp_path / "run", manifest(METHODS, 1), rows)])
    assert task.scores("baseline").tolist() == [[0.0]]
    assert task.records("baseline") == [rows[1]]


def test_an_error_is_no_wrong_answer_and_an_unparsed_one_is() -> None:
    assert math.isnan(score(failed("a", "outro")))
    assert not unparsed(failed("a", "outro"))
    silent = record("a", "outro", False, parsed=None, text="perhaps")
    assert score(silent) == 0
    assert unparsed(silent)
    assert score(silent | {"right": None}) == 0
    # Nobody judged it: neither right nor wrong.
    assert math.isnan(score(record("a", "outro", None, parsed="B", text="B")))
    assert score(record("a", "outro", 0.25)) == 0.25


def test_questions_that_some_method_has_not_reached_are_left_out(tmp_path: Path) -> None:
    rows = [record(name, "baseline") for name in "abcd"] + [record(name, "outro") for name in "ca"]
    (task,) = tasks_of([write(tmp_path / "run", manifest(METHODS, 10), rows)])
    assert task.ids == ("a", "c")
    assert task.questions == 10
    assert task.clusters == ["clip-a", "clip-c"]


def test_a_method_without_an_answer_does_not_empty_the_others(tmp_path: Path) -> None:
    rows = [record(name, method) for name in "ab" for method in METHODS]
    (task,) = tasks_of([write(tmp_path / "run", manifest([*METHODS, "later"], 2), rows)])
    assert task.methods == METHODS
    assert task.ids == ("a", "b")


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "run", {"baseline": [True, True], "outro": [True, False]})
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        file.write('{"id": "q2", "meth')
    assert list(read_run(folder).last["outro"]) == ["q0", "q1"]


def test_records_of_all_ranks_are_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = write(folder, manifest(METHODS, 2), [record("a", method) for method in METHODS])
    (whole / RECORDS).rename(tmp_path / "first")
    for i, name in enumerate("ab"):
        part = write(folder / f"part-{i}-of-2", {}, [record(name, method) for method in METHODS])
        (part / MANIFEST).unlink()
    (task,) = tasks_of([folder])
    assert sorted(task.ids) == ["a", "b"]


def test_groups_are_of_questions_that_count(tmp_path: Path) -> None:
    groups = [{"kind": ["x", "y"]}, {"kind": "y"}, {}]
    folder = write_scores(tmp_path / "run", {"baseline": [True] * 3, "outro": [True] * 3}, groups=groups)
    (task,) = tasks_of([folder])
    assert task.groups() == {("kind", "x"): [0], ("kind", "y"): [0, 1]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "omnisink.study.v1"}, "not the run of a benchmark: its format is 'omnisink.study.v1'"),
        ({"methods": None}, "does not say which task was asked with which methods"),
        ({"task": {"name": ""}}, "does not say which task"),
    ],
)
def test_another_folder_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    folder = write(tmp_path / "run", manifest(METHODS, 1) | change, [record("a", "baseline")])
    with pytest.raises(OmnisinkError, match=reason):
        read_run(folder)


def test_an_empty_folder_and_a_run_without_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="holds no run: there is no manifest.json"):
        read_run(tmp_path)
    with pytest.raises(OmnisinkError, match="no question has been answered yet"):
        read_run(write(tmp_path / "run", manifest(METHODS, 1), []))
    with pytest.raises(OmnisinkError, match="at least one folder"):
        tasks_of([])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "a"}, "jsonl:2: it has no 'attempt'"),
        (record("a", "else"), "record 2 cannot be used: method 'else' is not in the manifest"),
        (record("a", "outro", 1.5), "jsonl:2: right must be true or false, a number from 0 to 1 or null, got 1.5"),
        (record("a", "outro") | {"right": "yes"}, "jsonl:2: right must be .*, got 'yes'"),
        (record("a", "outro") | {"id": 1}, "jsonl:2: id must be a text, got 1"),
        (record("a", "outro") | {"attempt": "x"}, "attempt must be a whole number of at least 0, got 'x'"),
        (record("a", "outro") | {"attempt": None}, "attempt must be a whole number of at least 0, got None"),
        (record("a", "outro") | {"attempt": -1}, "attempt must be a whole number of at least 0, got -1"),
        (record("a", "outro") | {"attempt": 1.0}, "attempt must be a whole number of at least 0, got 1.0"),
        (record("a", "outro") | {"attempt": True}, "attempt must be a whole number of at least 0, got True"),
        (record("a", "outro") | {"seconds": "x"}, "seconds must be a number of at least 0 or null, got 'x'"),
        (record("a", "outro") | {"seconds": -1}, "seconds must be a number of at least 0 or null, got -1"),
        (record("a", "outro") | {"prompt_tokens": "12"}, "prompt_tokens must be a whole number"),
        (
            record("a", "outro") | {"prompt_tokens": 10**400},
            "prompt_tokens must be .* got a whole number of 1329 bits",
        ),
        (record("a", "outro") | {"memory_mb": [1]}, "memory_mb must be"),
        (record("a", "outro") | {"batch": {}}, "batch must be"),
        (record("a", "outro") | {"error": 7}, "error must be a text or null, got 7"),
        (record("a", "outro") | {"groups": ["x"]}, "groups must be an object"),
        (record("a", "outro") | {"groups": {"x": [1]}}, "groups.x.0 must be a text, got 1"),
        (record("a", "baseline"), "jsonl:2: a second record of id 'a', method 'baseline', attempt 0"),
        (record("a", "baseline", 0), "jsonl:2: a second record of id 'a', method 'baseline', attempt 0"),
        (record("a", "outro") | {"error": "no"}, "record 2 cannot be used: .*both an error and a score"),
    ],
)
def test_a_record_that_makes_no_sense_is_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    folder = write(tmp_path / "run", manifest(METHODS, 1), [record("a", "baseline"), row])
    with pytest.raises(OmnisinkError, match=reason):
        read_run(folder)


def test_seeds_of_a_task_come_together_in_their_order(tmp_path: Path) -> None:
    folders = [
        write_scores(tmp_path / f"{seed}", {"baseline": [False] * 2, "outro": [seed > 2, True]}, seed=seed)
        for seed in (10, 2)
    ]
    (task,) = tasks_of(folders)
    assert [run.manifest["seed"] for run in task.runs] == [2, 10]
    assert np.array_equal(task.scores("outro"), [[0, 1], [1, 1]])


def test_tasks_models_and_protocols_are_told_apart(tmp_path: Path) -> None:
    scores = {"baseline": [True], "outro": [True]}
    changes: list[dict[str, Any]] = [{}, {"task": {"protocol": "free"}}, {"task": {"name": "cmm", "title": "CMM"}}]
    folders = [write_scores(tmp_path / f"{i}", scores, **change) for i, change in enumerate(changes)]
    assert [task.label for task in tasks_of(folders)] == ["SynthAV, lettered", "SynthAV, free", "CMM"]
    other = write_scores(tmp_path / "model", scores, model={"name": "else"})
    assert [task.label for task in tasks_of([folders[0], other])] == ["SynthAV, smolomni", "SynthAV, else"]


def test_runs_that_are_no_seeds_of_each_other_are_refused(tmp_path: Path) -> None:
    scores = {"baseline": [True], "outro": [True]}
    first = write_scores(tmp_path / "first", scores)
    with pytest.raises(OmnisinkError, match="of the same seed: that is one run twice"):
        tasks_of([first, first])
    second = write_scores(tmp_path / "second", scores, seed=1, task={"sha256": "cd"}, versions={"omnisink": "1"})
    with pytest.raises(OmnisinkError, match="but differ in versions, task"):
        tasks_of([first, second])
    third = write_scores(tmp_path / "third", scores, seed=1, model={"device": "cuda"})
    about = json.loads((third / MANIFEST).read_text(encoding="utf-8"))
    about["methods"]["outro"]["seed"] = 1
    (third / MANIFEST).write_text(json.dumps(about), encoding="utf-8")
    assert len(tasks_of([first, third])) == 1, "a method of random directions has a seed of its own"
