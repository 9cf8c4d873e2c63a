"""Letters of choices, and what a reply names: one answer, or none where it names two, denies one, or means a word."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.questions.letters import split_letters
from omnisink.questions.parsing import parse_letter, parse_yes_no


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        *((said, "A") for said in ("A", "A.", "A)", "(A)", "[A]", "A:", "**A**", '"A"', " A \n", "A!")),
        *((said, "A") for said in ("A. bell", "A) bell", "(A) bell", "A: bell", "A - bell", "A (bell)", "A, a bell")),
        *((said, "A") for said in ("A is correct", "A because it rings", "Answer: A", "The best answer is (A).")),
        *((said, "B") for said in ("B. A drum", "B because A is wrong", "B) because A is wrong", "Option B", "B B")),
        *((said, "B") for said in ("B. Plan C", "B. I think so", "I think it is (B)", "the answer is: B")),
    ],
)
def test_one_letter_is_read(said: str, letter: str) -> None:
    assert parse_letter(said, 4) == letter


@pytest.mark.parametrize(
    "said",
    [
        *("A or B", "A and B", "A, B", "A/B", "A & B", "A + B", "A|B", "A;B", "A-D", "A B", "A\nB", "A. B. C. D."),
        *("A (B)", "A (or B)", "A or maybe B", "A, possibly B", "A, or else B", "A and also B", "A vs B", "A nor B"),
        *(
            "Both A and B",
            "either A or B",
            "neither A nor B",
            "(A) or (B)",
            "(A)/(B)",
            "A) bell or B) drum",
            "A, not B",
        ),
        *("The answer is A or B", "The answer is A, B", "Answer: (A) or (B)", "A? No, B", "A\n\nThe answer is B"),
        *("A bell.", "A man rings a bell", "The answer is A bell", "Another", "C-sharp", "A's", "it is a", "", "E"),
        *(
            "not A",
            "not (A)",
            "It's not (A)",
            "A is wrong",
            "A is not right",
            "The answer is not B",
            "(A) is incorrect",
        ),
    ],
)
def test_two_letters_or_none_are_not_read(said: str) -> None:
    assert parse_letter(said, 4) is None


def test_a_pronoun_is_no_letter() -> None:
    assert [parse_letter(said, 10) for said in ("I", "I.", "(I)", "I: bell")] == ["I"] * 4
    assert [parse_letter(said, 10) for said in ("I think it is C", "I am", "A, I", "I'm")] == [None] * 4
    assert parse_letter("A", 0) is None


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        *(
            (said, "yes")
            for said in ("Yes", " yes.", "YES!", "Yes, it is", "Yes, there are no dogs", "Yes. It has no sound.")
        ),
        *((said, "no") for said in ("No", "no, it is not", "No one is there", "No. The bell rings.")),
        *(
            (said, None)
            for said in ("Yes or no", "Yes or No?", "yes/no", "Yes and no.", "yes|no", "yes-no", "Yes, no")
        ),
        *((said, None) for said in ("No. Yes.", "Yes (no)", "Yes\nNo", "No yes", "Yes, or maybe no", "Yes, but no")),
        *(
            (said, None)
            for said in ("neither yes nor no", "not yes", "Yes, it is. No, wait.", "Nothing", "no-one", "")
        ),
    ],
)
def test_yes_and_no(said: str, answer: str | None) -> None:
    assert parse_yes_no(said) == answer


@given(st.text(st.sampled_from(string.ascii_letters + " .,:()[]/\n'é-"), max_size=40), st.integers(0, 26))
def test_what_is_read_is_a_letter_of_a_choice(said: str, count: int) -> None:
    found = parse_letter(said, count)
    assert found is None or found in string.ascii_uppercase[:count]


@given(
    first=st.sampled_from("ABCD"),
    second=st.sampled_from("ABCD"),
    between=st.sampled_from(["/", " or ", ", ", " and "]),
)
def test_two_letters_are_one_only_where_they_are_the_same(first: str, second: str, between: str) -> None:
    assert parse_letter(first + between + second, 4) == (first if first == second else None)


@pytest.mark.parametrize(
    ("filed", "texts", "labels"),
    [
        (["A. bell", "B. drum"], ["bell", "drum"], "AB"),
        (["A) bell", "B) drum"], ["bell", "drum"], "AB"),
        (["(A) bell", "(B) drum"], ["bell", "drum"], "AB"),
        (["[A] bell", "[B] drum"], ["bell", "drum"], "AB"),
        (["A: bell", "B: drum"], ["bell", "drum"], "AB"),
        (["A.bell", "B.drum"], ["bell", "drum"], "AB"),
        (["A、钟", "B、鼓"], ["钟", "鼓"], "AB"),
        (["a. bell", "b. drum"], ["bell", "drum"], "AB"),
        (["(a)bell", "(b)drum"], ["bell", "drum"], "AB"),
        (["(A): bell", "( B ). drum"], ["bell", "drum"], "AB"),
        (["A . bell", "B . drum"], ["bell", "drum"], "AB"),
        (["A. bell", "b) drum"], ["bell", "drum"], "AB"),
        (["(a) bell", "(b) drum"], ["bell", "drum"], "AB"),
        (["1. bell", "2. drum"], ["bell", "drum"], "12"),
        ([" A.  bell ", "B.\tdrum"], ["bell", "drum"], "AB"),
        (["A. ", "B. drum"], ["", "drum"], "AB"),
    ],
)
def test_letters_are_taken_off(filed: list[str], texts: list[str], labels: str) -> None:
    assert split_letters(filed) == (tuple(texts), tuple(labels))


def test_in_the_files_of_benchmarks_one_blank_alone_belongs_to_a_letter() -> None:
    assert split_letters(["A.  bell", "B. drum "], letters_only=True) == ((" bell", "drum "), ("A", "B"))
    assert split_letters(["a. bell", "b. drum"], letters_only=True) == (("a. bell", "b. drum"), ())


def test_roman_numbers_are_taken_off() -> None:
    assert split_letters(["I. bell", "II. drum", "III. horn"]) == (("bell", "drum", "horn"), ("I", "II", "III"))
    assert split_letters(["i) bell", "ii) drum"]) == (("bell", "drum"), ("i", "ii"))


@pytest.mark.parametrize(
    "filed",
    [
        ["A. Lincoln", "G. Washington"],
        ["A. bell", "drum"],
        ["A. bell", "C. drum"],
        ["A major", "B minor"],
        ["A.M.", "B.C."],
        ["a.m.", "b.c."],
        ["1.5", "2.5"],
        ["A", "B"],
        ["A.", "B."],
        ["1", "2"],
        [],
    ],
)
def test_what_is_no_letter_stays(filed: list[str]) -> None:
    assert split_letters(filed) == (tuple(filed), ())


def test_letters_in_another_order_are_refused() -> None:
    with pytest.raises(OmnisinkError, match="carry the letters B, A, and stand in another order"):
        split_letters(["B. bell", "A. drum"])
    assert split_letters(["B. bell", "A. drum"], letters_only=True)[1] == ()
