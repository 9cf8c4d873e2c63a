"""Rows as odd as those of official files: asked and scored as the official programs do, and named once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks import answers
from omnisink.evaluation.tasks.check import check_task
from omnisink.evaluation.tasks.questions import Questions
from omnisink.evaluation.tasks.scoring import score
from omnisink.evaluation.tasks.task import find_task, parse_task
from tests.evaluation.benchmark_folders import NAMES, lay_out
from tests.evaluation.test_loaders import FILES, changed
from tests.evaluation.test_tasks import YAML

MVBENCH = "json/counterfactual_inference.json"
MLVU = {"video": "a.mp4", "question": "How many?", "candidates": ["Six", "Three", "Three", "Eight"], "answer": "Three"}


def read(name: str, folder: Path, file: str, rows: list[Any], **options: Any) -> Questions:
    """Put rows in the place of those of one file of a fixture."""
    lay_out(name, folder)
    (folder / file).write_text(json.dumps(rows), encoding="utf-8")
    return find_task(name).read(folder, allow_missing=True, **options)


def mlvu(folder: Path, *rows: dict[str, Any]) -> Questions:
    return read("mlvu", folder, "json/1_plotQA.json", [MLVU | row for row in rows], where={"task": "plotQA"})


# --- what the benchmarks' own programs do, written down anew from their descriptions ---


def officially(row: dict[str, Any]) -> tuple[str, str]:
    """Write a row as MVBench's and MLVU's programs do, and return the text with the letter that is right there."""
    lines = [f"Question: {row['question']}", "Options:"]
    right = "@"
    for place, option in enumerate(row["candidates"]):
        letter = chr(ord("A") + place)
        lines.append(f"({letter}) {option}")
        right = letter if option == row["answer"] else right
    return "\n".join([*lines, ""]).rstrip(), right


ODD: list[dict[str, Any]] = [
    {},
    {"candidates": ["Six", "Three", "Nine", "Eight"]},
    {"candidates": ["Red", "Blue", "Green "], "answer": "Blue"},
    {"candidates": ["A", "B", "A or B"], "answer": "B"},
    {"candidates": ["B", "A"], "answer": "A"},
    {"candidates": ["In the garage", "In the toolbox", "", "On the shelf"], "answer": ""},
    {"candidates": ["", "", "", ""], "question": "", "answer": ""},
    {"candidates": ["Catching it", "Launching it"], "answer": "Catching a flying one"},
    {"candidates": ["blue", "blue "], "answer": "blue "},
]


@pytest.mark.parametrize("row", ODD)
def test_mlvu_asks_and_scores_every_row_as_its_own_program_does(row: dict[str, Any], tmp_path: Path) -> None:
    found = mlvu(tmp_path, row)
    (asked,) = found.instances
    text, right = officially(MLVU | row)
    assert asked.text == f"{text}\nOnly give the best option."
    assert found.bad == []
    scored = {a: score(answers.parse(f"{a}) so", asked), asked) for a in asked.answers}
    assert scored == {a: float(a == right) for a in asked.answers}


def test_odd_rows_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    found = mlvu(tmp_path, {"answer": "Six"}, *[{}] * 2, {"answer": "Ten"}, {"question": " ", "answer": "Six"})
    assert len(found.instances) == 5
    assert [line for line in found.remarks if "left out" not in line] == [
        "2 rows whose right answer is the text of several options, of which the last is right, are kept, as by the "
        "benchmark's own program; the first: 1_plotQA.json, row 2",
        "1 row whose right answer is none of the options, so that no reply is right, is kept, as by the benchmark's "
        "own program; the first: 1_plotQA.json, row 4",
        "1 row without the text of a question is kept, as by the benchmark's own program; "
        "the first: 1_plotQA.json, row 5",
    ]


def test_mvbench_asks_rows_with_one_option_and_counts_them(tmp_path: Path) -> None:
    one = {"video": "a.mp4", "question": "What then?", "candidates": ["It collides "], "answer": "It collides "}
    found = read("mvbench", tmp_path, MVBENCH, [one] * 2, where={"task": "counterfactual_inference"})
    assert [i.answers for i in found.instances] == [("A",)] * 2
    system = str(find_task("mvbench").protocol().system)
    assert found.instances[0].text == f"{system}{officially(one)[0]}\nOnly give the best option.\n"
    assert score(answers.parse("A) It collides", found.instances[0]), found.instances[0]) == 1
    (remark,) = found.remarks
    assert remark.startswith("2 rows with one option only are kept")
    assert remark.endswith("the first: counterfactual_inference.json, row 1")


def test_no_row_of_mvbench_stops_the_others(tmp_path: Path) -> None:
    found = read("mvbench", tmp_path, MVBENCH, [1, {"video": "a.mp4"}, {"candidates": []}])
    assert len(found.instances) == 19
    assert [bad.why.split(",")[0] for bad in found.bad] == [
        "not a JSON object but int",
        "the options must be a list of texts",
        "there must be two options at least and 26 at most",
    ]


def test_music_avqa_asks_both_questions_of_an_id_that_is_there_twice(tmp_path: Path) -> None:
    def twice(rows: Any) -> Any:
        return [rows[0], {**rows[0], "anser": "three"}, {**rows[0], "question_id": "1/2", "anser": "four"}, rows[0]]

    folder = changed("music-avqa", tmp_path, twice)
    found = find_task("music-avqa").read(folder)
    assert [i.id for i in found.instances] == ["1", "1/2", "1/2/2", "1/3"]
    assert [i.gold for i in found.instances] == ["two", "three", "four", "two"]
    assert len({i.cluster for i in found.instances}) == 1
    assert found.remarks[0].startswith("3 rows whose id was used before, and which get a number, are kept")
    checked = check_task(find_task("music-avqa"), folder)
    assert all(problem.where.endswith(".mp4") for problem in checked.problems if problem.severity == "error")
    assert checked.remarks == found.remarks


def test_whole_numbers_and_texts_are_one_id(tmp_path: Path) -> None:
    folder = changed("avut", tmp_path, lambda rows: [rows[0], {**rows[0], "QA_id": str(rows[0]["QA_id"])}])
    found = find_task("avut").read(folder)
    assert [bad.why for bad in found.bad] == ["the id '454' was used before, in AV_Human_data.json, row 1"]


# --- what is missing in a folder stops a run before the model is loaded, unless it is allowed ---


def test_annotations_that_are_missing_may_be_done_without(tmp_path: Path) -> None:
    folder = lay_out("mvbench", tmp_path)
    (folder / MVBENCH).unlink()
    with pytest.raises(OmnisinkError, match=r"counterfactual_inference\.json: there is no such file"):
        find_task("mvbench").load(folder)
    found = find_task("mvbench").read(folder, allow_missing=True)
    assert len(found.instances) == 19
    assert found.remarks == [f"1 row that cannot be asked is left out; the first: {MVBENCH}: there is no such file"]


def test_a_link_out_of_the_folder_is_one_error(tmp_path: Path) -> None:
    folder = lay_out("avhbench", tmp_path / "data")
    (folder / "videos").rename(tmp_path / "elsewhere")
    (folder / "videos").symlink_to(tmp_path / "elsewhere")
    (error,) = [p for p in check_task(find_task("avhbench"), folder).problems if p.severity == "error"]
    assert error.where == "videos"
    assert error.what.endswith("(4 questions would read through it)")
    with pytest.raises(OmnisinkError, match="avhbench: the link videos leaves the data folder"):
        find_task("avhbench").load(folder)
    with pytest.raises(OmnisinkError, match="no question is left; rows that cannot be asked: 4"):
        find_task("avhbench").load(folder, allow_missing=True)


def test_a_folder_of_links_is_one_error_too(tmp_path: Path) -> None:
    folder = lay_out("avhbench", tmp_path / "data")
    for video in sorted((folder / "videos").iterdir()):
        video.rename(tmp_path / video.name)
        video.symlink_to(tmp_path / video.name)
    (error,) = [p for p in check_task(find_task("avhbench"), folder).problems if p.severity == "error"]
    assert error.where == "videos/00001.mp4"
    assert error.what.endswith("(1 more links do so; 4 questions would read through them)")


def test_avhbench_is_read_under_the_name_of_outros_release(tmp_path: Path) -> None:
    folder = lay_out("avhbench", tmp_path)
    expected = find_task("avhbench").load(folder)
    (folder / "json").mkdir()
    (folder / "QA.json").rename(folder / "json" / "avhbench.json")
    assert find_task("avhbench").load(folder) == expected


# --- values of any type, in any place of any row ---

VALUES = (
    None,
    1,
    -1,
    10**400,
    1.5,
    float("nan"),
    True,
    "",
    " ",
    "\ud800",
    "\0",
    "x" * 5000,
    [],
    [[1]],
    {},
    {"a": [1]},
)


def spoiled(data: Any, value: Any) -> list[Callable[[Any], Any]]:
    """Return changes that put a value into every place of the first row, and the row itself."""

    def at(path: list[Any]) -> Callable[[Any], Any]:
        def change(whole: Any) -> Any:
            here = whole
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = value
            return whole

        return change

    def places(here: Any, path: list[Any]) -> list[list[Any]]:
        inside = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        return [p for key, part in inside for p in ([*path, key], *places(part, [*path, key]))]

    first: Any = 0 if isinstance(data, list) else next(iter(data))
    return [at([first]), *(at(path) for path in places(data[first], [first]))]


@pytest.mark.parametrize("name", NAMES)
def test_no_value_of_a_row_stops_a_benchmark(name: str, tmp_path: Path) -> None:
    folder = lay_out(name, tmp_path)
    file, task = folder / FILES[name], find_task(name)
    text = file.read_text(encoding="utf-8")
    lines = not text.lstrip().startswith("[") and name != "worldsense"

    def fresh() -> Any:
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)

    for value in VALUES:
        for change in spoiled(fresh(), value):
            data = change(fresh())
            file.write_text("\n".join(map(json.dumps, data)) if lines else json.dumps(data), encoding="utf-8")
            said = ""
            try:
                found = task.read(folder, allow_missing=True)
            except OmnisinkError as error:
                said = str(error)
            if said:
                assert "no question is left" in said, (value, said)
                continue
            for instance in found.instances:
                (instance.text + instance.id + instance.cluster + "".join(instance.answers)).encode()
            assert len(found.remarks) <= 5


def test_what_a_task_says_of_odd_rows_is_checked() -> None:
    with pytest.raises(OmnisinkError, match="odd_rows: unknown kind 'strange'"):
        parse_task("mine", YAML + "odd_rows: {strange: keep}")
    with pytest.raises(OmnisinkError, match="odd_rows: one_option must be one of refuse, leave_out, keep, got 'last'"):
        parse_task("mine", YAML + "odd_rows: {one_option: last}")
    assert parse_task("mine", YAML + "odd_rows: {one_option: keep}").odd_rows == {"one_option": "keep"}
