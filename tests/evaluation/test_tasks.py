"""Tasks: what they ask, to the letter, and what their files may say."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks import answers
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.long_context.generate import GENERATORS
from omnisink.evaluation.tasks.scoring import score
from omnisink.evaluation.tasks.task import find_task, parse_task, task_names
from tests.evaluation.benchmark_folders import NAMES, lay_out, load

SNAPSHOTS = Path(__file__).parent / "snapshots"
#: Say OMNISINK_RENEW=1 to write the snapshots anew, and read the difference before you commit it.
RENEW = "OMNISINK_RENEW"
FACTS = ("system", "text_first", "reply", "parser", "max_new_tokens", "answers", "gold", "cluster")


def protocols() -> Iterator[tuple[str, str]]:
    return ((name, protocol) for name in NAMES for protocol in find_task(name).protocols)


def drawn(instances: list[Instance], folder: Path) -> str:
    """Write instances out; a bar marks where every line of a text begins and ends, for the white space."""
    out = []
    for i in instances:
        out.append(f"=== {i.id}")
        out += [f"{fact}: {getattr(i, fact)!r}" for fact in FACTS]
        for role in ("video", "audio", "image"):
            path = getattr(i, role)
            out.append(f"{role}: {path.relative_to(folder.resolve()).as_posix() if isinstance(path, Path) else path}")
        out += [f"{field}: {', '.join(values)}" for field, values in i.groups.items()]
        out += [f"|{line}|" for line in i.text.split("\n")]
    return "\n".join(out) + "\n"


@pytest.mark.parametrize(("name", "protocol"), list(protocols()))
def test_prompts_do_not_change(name: str, protocol: str, tmp_path: Path) -> None:
    # The first of every kind of row is enough; the rest is for the loaders' own tests.
    found = drawn(load(name, tmp_path, protocol)[:4], tmp_path)
    file = SNAPSHOTS / f"{name}.{protocol}.txt"
    if os.environ.get(RENEW):
        file.write_text(found, encoding="utf-8")
    assert file.is_file(), f"there is no snapshot; {RENEW}=1 writes it"
    assert found == file.read_text(encoding="utf-8"), f"a prompt has changed; if it was meant to, say {RENEW}=1"


def test_no_snapshot_is_left_over() -> None:
    assert {f.stem for f in SNAPSHOTS.glob("*.txt")} == {f"{name}.{protocol}" for name, protocol in protocols()}


def test_every_task_has_a_fixture() -> None:
    assert set(NAMES) | {"synthav", *GENERATORS} == set(task_names()), "those without make their questions"
    assert task_names()[0] == "synthav"


@pytest.mark.parametrize("name", task_names())
def test_a_task_says_what_a_user_needs(name: str) -> None:
    task = find_task(name)
    for key in ("title", "paper", "licence", "size", "needs", "sources", "layout", "breakdowns"):
        assert getattr(task, key), key
    assert all(protocol.source for protocol in task.protocols.values())
    assert task.default in task.protocols
    assert {"strict", "lettered"} & task.protocols.keys(), "our own, strict way of asking"


@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_is_read_as_right(name: str, tmp_path: Path) -> None:
    for protocol in find_task(name).protocols:
        for instance in load(name, tmp_path, protocol):
            said = instance.gold
            if protocol == "official" and name in ("intentbench", "video-holmes"):
                said = f"<think>no</think><answer>{said}</answer>"
            assert answers.parse(said, instance) == instance.gold, (protocol, instance.id)
            assert score(answers.parse(said, instance), instance) == 1
            wrong = next((a for a in instance.answers if a != instance.gold), None)
            assert wrong is None or score(answers.parse(wrong, instance), instance) == 0


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_the_same_under_every_protocol(name: str, tmp_path: Path) -> None:
    found = {p: [i.id for i in load(name, tmp_path, p)] for p in find_task(name).protocols}
    first = next(iter(found.values()))
    assert all(ids == first for ids in found.values())
    assert len(set(first)) == len(first)


def test_braces_in_the_data_are_no_template(tmp_path: Path) -> None:
    assert "{the bell}" in load("daily-omni", tmp_path)[0].text


def test_outro_prints_the_options_of_daily_omni_without_letters(tmp_path: Path) -> None:
    text = load("daily-omni", tmp_path, "outro")[1].text
    assert "\nTo listen\nTo rest\nTo taste\nTo leave\n" in text
    assert "A. " not in text
    assert text.endswith("The best answer is:"), "the release strips the text"


def test_outro_asks_for_yes_or_no_once(tmp_path: Path) -> None:
    first, *_, last = load("avhbench", tmp_path)
    assert first.text == "Is the kettle making sound in the audio? Answer yes or no."
    assert last.text.count("nswer yes or no") == 1


def test_sound_is_spoken_of_only_where_it_is_given(tmp_path: Path) -> None:
    task = find_task("intentbench")
    silent = dataclasses.replace(task, sound="never").load(lay_out("intentbench", tmp_path))[0]
    hears = dataclasses.replace(task, sound="always").load(tmp_path)[0]
    assert (silent.audio, hears.audio) == (False, None)
    assert hears.text == "Here is a video, with the audio from the video.\n" + silent.text


def test_the_limit_is_the_first_so_many(tmp_path: Path) -> None:
    whole = load("daily-omni", tmp_path)
    assert load("daily-omni", tmp_path, limit=2) == whole[:2]
    with pytest.raises(OmnisinkError, match="must be positive"):
        load("daily-omni", tmp_path, limit=0)


def test_questions_of_one_group(tmp_path: Path) -> None:
    found = load("avhbench", tmp_path, where={"task": "AV Matching"})
    assert [i.cluster for i in found] == ["00001_swap"]
    with pytest.raises(OmnisinkError, match="no question is left"):
        load("avhbench", tmp_path, where={"task": "nothing"})


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    found = find_task("avhbench").read(lay_out("avhbench", tmp_path))
    assert [left.where for left in found.left_out] == ["QA.json, row 5"]
    assert "caption" in found.left_out[0].why


def test_missing_files_are_refused_unless_allowed(tmp_path: Path) -> None:
    folder = lay_out("daily-omni", tmp_path)
    (folder / "Videos" / "_vidB" / "_vidB_video.mp4").unlink()
    with pytest.raises(OmnisinkError, match="1 of its files are missing.*_vidB_video"):
        find_task("daily-omni").load(folder)
    assert len(find_task("daily-omni").load(folder, allow_missing=True)) == 3
    assert len(find_task("daily-omni").load(folder, limit=2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "nothing"}, "has no protocol 'nothing': use official, outro, lettered"),
        ({"split": "nothing"}, "has no split 'nothing': use test"),
        ({"data": None}, "needs its data: give the folder with --data. It holds: qa.json"),
        ({"data": "nothing"}, "there is no such folder"),
    ],
)
def test_what_is_unknown_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"data": lay_out("daily-omni", tmp_path), **options}
    with pytest.raises(OmnisinkError, match=message):
        find_task("daily-omni").load(**given)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(OmnisinkError, match="no task 'nothing': use one of synthav, avhbench"):
        find_task("nothing")
    with pytest.raises(OmnisinkError, match="no such file"):
        find_task("nothing.jsonl")


def test_annotations_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match=r"annotations of avhbench are not there: QA\.json or"):
        find_task("avhbench").load(tmp_path)


def test_facts_for_a_record_are_plain_data() -> None:
    facts = find_task("mvbench").facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["name"], facts["split"], facts["protocol"]) == ("mvbench", "test", "official")
    assert (facts["metric"], facts["mean_over"]) == ("group_mean", "task")
    assert facts["prompt"]["reply"] == "Best option:("
    assert find_task("avut").facts("omnizip", "gemini")["split"] == "gemini"


YAML = """
title: T
paper: P
licence: L
size: S
needs: [video]
sources: [here]
layout: a file
loader: listed
fields: {id: "{id}", question: q, answer: a, kind: yes-no, media: {video: "{v}"}}
annotations: {test: a.json}
sound: always
metric: accuracy
breakdowns: [x]
default: p
protocols:
  p: {text: "{question}", parser: yes_no}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: T", "titel: T", "unknown key 'titel'"),
        ("paper: P\n", "", "paper is missing"),
        ("needs: [video]", "needs: video", "needs is of the wrong type: must be list"),
        (
            "needs: [video]",
            "needs: [video]\nnotes: [a note: of two parts]",
            "notes is of the wrong type: must be texts",
        ),
        ("loader: listed", "loader: pickled", "unknown loader 'pickled'"),
        ("question: q", "qestion: q", "the loader listed has no field 'qestion'"),
        ("metric: accuracy", "metric: luck", "unknown metric 'luck'"),
        ("sound: always", "sound: loud", "sound must be one of"),
        ("default: p", "default: q", "the default protocol 'q' is none of p"),
        ("parser: yes_no", "parser: guess", "unknown parser 'guess'"),
        ("parser: yes_no", "parsr: yes_no", "unknown key 'parsr'"),
        ('text: "{question}"', 'text: "{qustion}"', "unknown field 'qustion' in a template"),
        ('text: "{question}"', 'text: "{question"', "not a template"),
        ('text: "{question}"', 'text: "{question}", suffix_unless: "("', "not a regular expression"),
        ('text: "{question}"', 'text: "{question}", max_new_tokens: 0', "max_new_tokens must be positive"),
        (
            'text: "{question}"',
            'text: "{question}", max_new_tokens: "5"',
            "max_new_tokens is of the wrong type: must be int",
        ),
        ('text: "{question}"', 'text: "{question}", by_kind: {odd: {}}', "unknown kind 'odd'"),
        ('text: "{question}"', 'text: "{question}", by_kind: {choice: {system: x}}', "'system' cannot differ"),
        ("title: T", "title: [", "not YAML"),
        ("title: T", "title: !!python/object/apply:os.system [true]", "not YAML"),
        ("sound: always", "sound: always\ncounts: {dev: {questions: 1}}", "counts of a split that is not there: dev"),
    ],
)
def test_what_a_task_file_may_not_say(old: str, new: str, message: str) -> None:
    assert parse_task("mine", YAML).name == "mine"
    assert old in YAML
    with pytest.raises(OmnisinkError, match="task mine") as raised:
        parse_task("mine", YAML.replace(old, new, 1))
    assert message in str(raised.value)


def test_a_users_own_task(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"content")
    rows = [
        {"id": "a", "question": "Which?", "choices": ["bell", "drum"], "answer": "drum", "video": "a.mp4"},
        {"id": "b", "question": "Is it there?", "answer": "No", "video": "a.mp4", "audio": False, "category": "seen"},
        {"id": "c", "question": "Who wrote it?", "answer": "Ada  Lovelace."},
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    a, b, c = find_task(file).load()
    assert (a.text, a.gold, a.parser) == ("Which?\nA. bell\nB. drum\nAnswer with the letter.", "B", "letter")
    assert (a.cluster, b.cluster, b.groups, b.audio) == ("a.mp4", "a.mp4", {"category": ("seen",)}, False)
    assert answers.parse("No.", b) == b.gold == "no"
    assert answers.parse("ada lovelace", c) == c.gold
    assert [i.id for i in find_task(file).load(where={"category": "seen"})] == ["b"]
    file.write_text(json.dumps({"text": "A passage."}) + "\n", encoding="utf-8")
    with pytest.raises(OmnisinkError, match="is a passage"):
        find_task(file).load()


def test_a_row_of_a_users_own_task_that_cannot_be_asked_is_left_out(tmp_path: Path) -> None:
    good = {"question": "Which?", "choices": ["(A) bell", "(B) drum"], "answer": "drum"}
    rows: list[Any] = [
        {**good, "id": "a"},
        {**good, "id": "b", "question": "\ud83d?"},
        {**good, "id": "c", "answer": "horn"},
        {**good, "id": "a"},
        {**good, "id": 5, "choices": ["bell", "drum"]},
        {**good, "id": "5"},
        {**good, "id": "e", "choices": [["bell"], "drum"]},
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("\ufeff" + "".join(json.dumps(row) + "\r\n" for row in rows), encoding="utf-8")
    found = find_task(file).read()
    assert [i.id for i in found.instances] == ["a", "5"]
    assert {i.text for i in found.instances} == {"Which?\nA. bell\nB. drum\nAnswer with the letter."}
    assert [bad.where for bad in found.bad] == [f"own.jsonl:{line}" for line in (2, 3, 4, 6, 7)]
    (remark,) = found.remarks
    assert remark.startswith("5 rows that cannot be asked are left out; the first: own.jsonl:2: question has half")
    with pytest.raises(OmnisinkError, match="1 of its files are missing"):
        file.write_text(json.dumps({**good, "video": "none.mp4"}), encoding="utf-8")
        find_task(file).read()
    assert len(find_task(file).load(allow_missing=True)) == 1, "asking it is then an error of its own"
