"""Small parts of the loaders: letters of options, answers, files of annotations in every state that programs leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.annotation_files import read_rows
from omnisink.evaluation.tasks.odd import LeftOutError
from omnisink.evaluation.tasks.rows import Bad, find_letter, split_options


def test_letters_are_taken_off_only_where_all_options_have_theirs() -> None:
    assert split_options(["A. x", "B. y"]) == (("x", "y"), ("A. x", "B. y"))
    assert split_options(["(A) x", "(B) y"])[0] == ("x", "y")
    assert split_options(["A: x", "B: y"])[0] == ("x", "y")
    assert split_options(["A. x", "C. y"])[0] == ("A. x", "C. y")
    assert split_options(["A major", "B minor"])[0] == ("A major", "B minor")
    assert split_options(["A.  x", "B. y"])[0] == (" x", "y"), "one blank alone belongs to the letter"
    assert split_options("['A. x', 'B. y']")[0] == ("x", "y"), "tables write their lists out"


def test_an_answer_is_a_letter_a_text_or_both() -> None:
    options, filed = split_options(["A. red", "B. blue"])
    assert [find_letter(a, options, filed) for a in ("B", "blue", "B. blue", " blue ")] == ["B"] * 4
    with pytest.raises(LeftOutError, match="the text of several options"):
        find_letter("red", ["red", "red"], ["red", "red"])
    assert find_letter("A", ["B", "A"], ["B", "A"], by_text=True) == "B", "the text of an option, not a letter"
    assert find_letter("A", ["B", "A"], ["B", "A"]) == "A"


def test_lines_that_are_no_json_are_told_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n\nnothing\n{"b": 2}\n', encoding="utf-8")
    found = list(read_rows(file))
    assert [f if isinstance(f, Bad) else f[0] for f in found] == [
        "x.jsonl, line 1",
        Bad("x.jsonl, line 3", "it is not JSON: Expecting value: line 1 column 1 (char 0)"),
        "x.jsonl, line 4",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf[{"a": "x"}, {"a": "y"}]',
        b'\xef\xbb\xbf{"a": "x"}\r\n\r\n{"a": "y"}\r\n',
        b'{"a": "x"}\n\xef\xbb\xbf{"a": "y"}\n',
        b'{"\xef\xbb\xbfa": "x"}\n{"a": "\xef\xbb\xbfy"}\n',
    ],
)
def test_byte_order_marks_are_taken_off(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    assert [row for _, row in read_rows(file)] == [{"a": "x"}, {"a": "y"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_are_one_line_or_none(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes('[{"a": "é"}]'.encode(encoding))
    with pytest.raises(OmnisinkError, match=r"^.*: it is not (UTF-8; save it in that encoding|JSON: .*)$"):
        list(read_rows(file))


def test_a_list_in_the_first_of_several_lines_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('[]\n{"a": 1}\n', encoding="utf-8")
    assert list(read_rows(file)) == [
        Bad("x.jsonl, line 1", "not a JSON object but list"),
        ("x.jsonl, line 2", {"a": 1}),
    ]
