"""Items: every kind of row, and every row that cannot be used, named by its line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.questions.items import Item, checksum, parse_answer, read_items
from omnisink.synthav.dataset import draw_split
from training.score import asked, parse

COLOURS = ["red", "green", "blue"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with files in it, and one beside it."""
    inside = tmp_path / "data"
    (inside / "clips").mkdir(parents=True)
    for name in ("a.mp4", "clips/a.mp4", "tone.wav", "cat.png"):
        (inside / name).write_bytes(b"content")
    (inside / "empty.mp4").touch()
    (tmp_path / "secret.mp4").write_bytes(b"content")
    return inside


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "questions.jsonl"
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_one(folder: Path, **row: Any) -> Item:
    return read_items(write(folder, row))[0]


def test_a_question_with_all_it_can_have(folder: Path) -> None:
    row = {"id": "q1", "question": "Which colour?", "choices": COLOURS, "answer": "B", "category": "visual"}
    item = read_one(folder, **row, video="clips/a.mp4", audio="tone.wav", image="cat.png", other=[1])
    clip, tone, cat = (folder / name for name in ("clips/a.mp4", "tone.wav", "cat.png"))
    assert item == Item(
        "q1", "Which colour?", "B", tuple(COLOURS), clip, tone, cat, "visual", cluster="clips/a.mp4", passage=None
    )


def test_a_passage_is_a_text_alone(folder: Path) -> None:
    item = read_one(folder, text="Once upon a time.", category="tale")
    assert item == Item("line-0001", category="tale", cluster="line-0001", passage="Once upon a time.")


def test_a_free_question_is_left_as_it_is(folder: Path) -> None:
    item = read_one(folder, question="Who wrote it?", answer=" Ada ", id=7)
    assert (item.id, item.question, item.answer, item.choices, item.passage) == ("7", "Who wrote it?", "Ada", (), None)


@pytest.mark.parametrize("answer", ["C", "blue", " blue "])
def test_the_text_of_a_choice_becomes_its_letter(folder: Path, answer: str) -> None:
    assert read_one(folder, question="Which?", choices=COLOURS, answer=answer).answer == "C"


def test_a_letter_that_is_another_choices_text_is_not_guessed(folder: Path) -> None:
    assert read_one(folder, question="Which?", choices=["A", "B"], answer="A").answer == "A"
    with pytest.raises(OmnisinkError, match="names several choices, A, B"):
        read_one(folder, question="Which?", choices=["B", "A"], answer="A")
    with pytest.raises(OmnisinkError, match="names several choices, A, C"):
        read_one(folder, question="Which?", choices=["red", "blue", "red"], answer="red")


@pytest.mark.parametrize(
    ("question", "ends"),
    [
        ("Is it red?", "Is it red?\nAnswer yes or no."),
        ("Is it red? Answer with Yes or No, please.", "please."),
        ("Is it red? answer yes\nor no", "or no"),
        ("Can the answer be yes? Or no?", "Answer yes or no."),
    ],
)
def test_a_question_for_yes_or_no_asks_for_it_once(folder: Path, question: str, ends: str) -> None:
    item = read_one(folder, question=question, answer="Yes")
    assert item.answer == "yes"
    assert item.question.endswith(ends)
    assert item.question.startswith(question)


@pytest.mark.parametrize(
    ("choices", "answer", "right"),
    [
        (["A. bell", "B. drum"], "B", "B"),
        (["A. bell", "B. drum"], "drum", "B"),
        (["A. bell", "B. drum"], "B. drum", "B"),
        (["(a) bell", "(b) drum"], "b", "B"),
        (["I. bell", "II. drum"], "II", "B"),
        (["1) bell", "2) drum"], "2", "B"),
        (["bell", "drum"], "(B)", "B"),
        (["bell", "drum"], "b", "B"),
        (["bell", "drum"], "B.", "B"),
        (["bell", "b"], "b", "B"),
    ],
)
def test_choices_have_their_letters_once(folder: Path, choices: list[str], answer: str, right: str) -> None:
    item = read_one(folder, question="Which?", choices=choices, answer=answer)
    assert item.answer == right
    assert item.choices == (("bell", "b") if choices[1] == "b" else ("bell", "drum"))


def test_choices_of_which_only_some_have_letters_stay(folder: Path) -> None:
    assert read_one(folder, question="Who?", choices=["A. Lincoln", "G. Washington"], answer="A").choices == (
        "A. Lincoln",
        "G. Washington",
    )


def test_byte_order_marks_are_no_part_of_a_row(folder: Path) -> None:
    path = folder / "questions.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\xef\xbb\xbf{"text": "two"}\r\n\xef\xbb\xbf\r\n')
    assert [item.passage for item in read_items(path)] == ["one", "two"]
    path.write_text('{"text": "one"}', encoding="utf-16")
    with pytest.raises(OmnisinkError, match="jsonl:1: it is not UTF-8; save the file in that encoding"):
        read_items(path)


def test_yes_among_choices_is_a_choice(folder: Path) -> None:
    item = read_one(folder, question="Is it?", choices=["yes", "no"], answer="no")
    assert (item.question, item.answer) == ("Is it?", "B")


def test_sound_is_the_videos_own_unless_said_otherwise(folder: Path) -> None:
    def sound(**row: Any) -> Any:
        return read_one(folder, question="What?", answer="this", **row).audio

    assert sound(video="a.mp4") is None
    assert sound(video="a.mp4", audio=True) is None
    assert sound(video="a.mp4", audio=None) is None
    assert sound(video="a.mp4", audio=False) is False
    assert sound(audio="tone.wav") == folder / "tone.wav"


def test_items_about_one_file_are_one_cluster(folder: Path) -> None:
    (folder / "link.mp4").symlink_to("a.mp4")
    rows = [
        {"question": "What?", "answer": "this", **media}
        for media in (
            {"video": "a.mp4"},
            {"video": "clips/../a.mp4"},
            {"video": "link.mp4"},
            {"video": "clips/a.mp4"},
            {"audio": "tone.wav"},
            {"image": "cat.png"},
            {},
        )
    ]
    clusters = [item.cluster for item in read_items(write(folder, *rows))]
    assert clusters == ["a.mp4", "a.mp4", "a.mp4", "clips/a.mp4", "tone.wav", "cat.png", "line-0007"]


def test_a_row_may_name_its_cluster(folder: Path) -> None:
    assert read_one(folder, text="Once upon a time.", cluster="tales").cluster == "tales"
    assert read_one(folder, question="What?", answer="this", video="a.mp4", cluster="mine").cluster == "mine"


def test_what_synthav_writes_is_read_and_asked_as_it_is_scored(folder: Path) -> None:
    questions = [question for _, drawn in draw_split("tune", 40) for question in drawn]
    for question in questions:
        (folder / f"{question.clip}.mp4").write_bytes(b"content")
    items = read_items(write(folder, *({"video": f"{q.clip}.mp4", **q.to_dict()} for q in questions)))
    assert len(items) == 40
    for item, question in zip(items, questions, strict=True):
        assert item.question == asked(question)
        assert (item.answer, item.choices, item.category) == (question.answer, question.choices, question.category)
        assert item.cluster == f"{question.clip}.mp4"
        for said in ("A", "(B) red", "yes.", "No", "perhaps"):
            assert parse_answer(said, item) == parse(said, question)
    assert {True, False} == {bool(item.choices) for item in items}


def test_blank_lines_are_skipped_and_counted(folder: Path) -> None:
    path = write(folder, b"", {"text": "one"}, b"  ", {"text": "two"})
    assert [item.id for item in read_items(path)] == ["line-0002", "line-0004"]


def test_a_limit_reads_the_first_items_alone(folder: Path) -> None:
    path = write(folder, {"text": "one"}, {"text": "two"}, b"broken")
    assert [item.passage for item in read_items(path, limit=2)] == ["one", "two"]
    with pytest.raises(OmnisinkError, match="jsonl:3: it is not JSON"):
        read_items(path, limit=3)
    with pytest.raises(OmnisinkError, match="must be positive, got 0"):
        read_items(path, limit=0)


ASK = {"question": "Which?", "answer": "red"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"\xff\xfe", "it is not UTF-8"),
        (b"{'a': 1}", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[1]", "not a JSON object but list"),
        ({}, "question is missing"),
        ({"answer": "red"}, "question is missing"),
        ({"question": " ", "answer": "red"}, "question must be text and not empty"),
        ({"text": "", "answer": "red"}, "text must be text and not empty"),
        ({"text": ""}, "text must be text and not empty"),
        ({"question": 3, "answer": "red"}, "question must be text and not empty, got 3"),
        ({"question": "Which?"}, "answer is missing"),
        ({"question": "Which?", "answer": None}, "answer is missing"),
        ({"question": "Which?", "answer": True}, "answer must be text and not empty, got True"),
        ({"text": "Which?", "choices": COLOURS}, "a question without an answer, or a passage with choices"),
        ({"text": "Which?", "video": "a.mp4"}, "a question without an answer, or a passage with video"),
        ({**ASK, "choices": ["red"]}, "choices must be two texts or more"),
        ({**ASK, "choices": ["red", " "]}, "one of the choices is empty: B"),
        ({**ASK, "choices": "red"}, "choices must be a list of texts"),
        ({**ASK, "choices": ["red", 1]}, "choices must be a list of texts"),
        ({**ASK, "choices": ["blue", "green"]}, "the answer 'red' is not among the choices"),
        ({"question": "Which?", "answer": "D", "choices": COLOURS}, "the answer 'D' is not among the choices"),
        ({**ASK, "question": "\ud800?"}, "question has half of a surrogate pair, '.ud800'"),
        ({**ASK, "answer": "\udc00"}, "answer has half of a surrogate pair"),
        ({**ASK, "id": "a\ud800"}, "id has half of a surrogate pair"),
        ({**ASK, "category": "\ud800"}, "category has half of a surrogate pair"),
        ({**ASK, "choices": ["red", "\ud800"]}, "choices has half of a surrogate pair"),
        (b'{"question": "Which?", "answer": "a", "answer": "b"}', "the key 'answer' is there twice"),
        (b'{"question": "Which?", "answer": NaN}', "answer must be text and not empty, got nan"),
        ({**ASK, "choices": ["B. red", "A. blue"]}, "the choices carry the letters B, A"),
        ({**ASK, "choices": {"A": "red"}}, "choices must be a list of texts"),
        ({**ASK, "id": ""}, "id must be text and not empty"),
        ({**ASK, "id": True}, "id must be text and not empty"),
        ({**ASK, "category": 1}, "category must be text"),
        ({**ASK, "video": "none.mp4"}, "video: .*none.mp4: there is no such file"),
        ({**ASK, "video": "empty.mp4"}, "video: .*: the file is empty"),
        ({**ASK, "video": "clips"}, "video: .*: is a folder"),
        ({**ASK, "video": "a\0.mp4"}, "video: "),
        ({**ASK, "video": True}, "video must be text"),
        ({**ASK, "audio": True}, "audio: true means the sound of the video"),
        ({**ASK, "video": "../secret.mp4"}, "video: ../secret.mp4 must be inside the folder"),
        ({**ASK, "image": "clips/../../secret.mp4"}, "image: .* must be inside the folder"),
        ({**ASK, "audio": "/etc/hostname"}, "audio: /etc/hostname must be inside the folder"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder: Path, row: Any, reason: str) -> None:
    path = write(folder, {"text": "one"}, row)
    with pytest.raises(OmnisinkError, match=rf"^{path}:2: {reason}"):
        read_items(path)


def test_links_may_not_lead_outside(folder: Path) -> None:
    (folder / "out.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "up").symlink_to("..")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    for name in ("out.mp4", "up/secret.mp4"):
        with pytest.raises(OmnisinkError, match=f"jsonl:1: video: {name} must be inside the folder"):
            read_one(folder, **ASK, video=name)
    with pytest.raises(OmnisinkError, match="jsonl:1: video: "):
        read_one(folder, **ASK, video="loop.mp4")
    with pytest.raises(OmnisinkError, match="must be inside the folder of the questions, and named relative to it"):
        read_one(folder, **ASK, video=str(folder / "a.mp4"))


def test_the_file_of_questions_may_be_named_in_any_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {**ASK, "video": "a.mp4"})
    monkeypatch.chdir(folder)
    assert read_items("questions.jsonl")[0].video == (folder / "a.mp4").resolve()


@pytest.mark.parametrize("rows", [({"id": "x", "text": "one"},) * 2, ({"text": "one"}, {"id": "line-0001", **ASK})])
def test_ids_are_used_once(folder: Path, rows: tuple[Any, ...]) -> None:
    with pytest.raises(OmnisinkError, match=r"jsonl:2: the id '[\w-]+' was used before"):
        read_items(write(folder, *rows))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_items_is_an_error(folder: Path, content: bytes) -> None:
    path = folder / "questions.jsonl"
    path.write_bytes(content)
    with pytest.raises(OmnisinkError, match=r"questions\.jsonl: there is no item"):
        read_items(path)


def test_a_file_that_cannot_be_read_is_an_error(folder: Path) -> None:
    for use in (read_items, checksum):
        with pytest.raises(OmnisinkError, match=r"none\.jsonl: cannot be read: No such file"):
            use(folder / "none.jsonl")


def test_the_checksum_is_that_of_the_bytes(folder: Path) -> None:
    path = write(folder, {"text": "é"})
    assert checksum(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("said", "parsed"),
    [("Yes.", "yes"), (" no, it is not", "no"), ("nothing", None), ("It is yes", None), ("", None)],
)
def test_yes_or_no_is_not_guessed(said: str, parsed: str | None) -> None:
    assert parse_answer(said, Item("1", "Is it?", "yes")) == parsed


def test_letters_and_free_answers() -> None:
    choice = Item("1", "Which?", "A", ("red", "blue"))
    assert [parse_answer(said, choice) for said in ("B. blue", "(A)", "C", "red")] == ["B", "A", None, None]
    assert parse_answer(" Ada \n", Item("1", "Who?", "Ada")) == " Ada \n"


@given(st.binary(max_size=80))
def test_any_content_gives_items_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    told = ""
    try:
        told = read_items(path)[0].id
    except OmnisinkError as error:
        told = str(error)
    assert told.startswith(("line-", str(path)))
