"""Parsers: what each takes an answer to be, where the official ones go wrong on purpose, and that none guesses."""

from __future__ import annotations

import inspect
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisink.evaluation.tasks import answers
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.scoring import score

OPTIONS = ("a red bell", "a blue drum", "a green star", "a red bird")


def asked(parser: str, gold: str = "A", choices: tuple[str, ...] = ("A", "B", "C", "D")) -> Instance:
    return Instance("i", "What?", gold, choices, parser, "c", options=OPTIONS if choices[:1] == ("A",) else ())


def read(parser: str, text: str, choices: tuple[str, ...] = ("A", "B", "C", "D")) -> str | None:
    return answers.parse(text, asked(parser, choices=choices))


YES_NO = ("yes", "no")
WORDS = ("acoustic_guitar", "more than ten", "no", "one", "ten", "three", "two")


@pytest.mark.parametrize(
    ("parser", "text", "expected"),
    [
        ("letter", "B", "B"),
        ("letter", " B. a drum", "B"),
        ("letter", "The answer is B.", "B"),
        ("letter", "Because", None),
        ("letter", "B or C? (B) (C)", None),
        ("outro_letter", "b", "B"),
        ("outro_letter", "Because of (D)", "B"),
        ("outro_letter", "I say [C]", "C"),
        ("outro_letter", "(D) or (A)", "A"),
        ("outro_letter", "My answer: d", "D"),
        ("outro_letter", "None", None),
        ("daily_omni", "C", "C"),
        ("daily_omni", "system x assistant\nd. because", "D"),
        ("daily_omni", "The answer is A", None),
        ("daily_omni", "Certainly", "C"),
        ("video_holmes", "<answer>B</answer> <answer> D </answer>", "D"),
        ("video_holmes", "<think>A then B</think> so E: it is", "A"),
        ("video_holmes", "<answer>C: a star</answer>", "C"),
        ("video_holmes", "<answer>[E]</answer>", "E"),
        ("video_holmes", "<answer>DAB</answer>", "A"),
        ("video_holmes", "none", None),
        ("first_capital", "The best answer is C", "C"),
        ("first_capital", "Based on it, C", "B"),
        ("first_capital", "Best option: C", "B"),
        ("first_capital", "Best answer:Best option: C", "C"),
        ("first_capital", "it is e", None),
        ("first_token", "B) a blue drum", "B"),
        ("first_token", "b", "B"),
        ("first_token", "B.", "B"),
        ("first_token", "", None),
        ("first_token", "a blue drum", "A"),
        ("first_token", "drum (B)", None),
        ("first_token", "D)\nA)", "D"),
        ("mlvu", "C) a green star", "C"),
        ("mlvu", "(C) a green star", "C"),
        ("mlvu", "The best answer is (D).", "D"),
        ("mlvu", "B )", None),
        ("mlvu", "C", "C"),
        ("mlvu", "C. a green star", None),
        ("mlvu", "c)", None),
        ("mlvu", ")", None),
        ("worldsense", "Answer: B", "B"),
        ("worldsense", "Option: C", "C"),
        ("worldsense", "Best answer: C", "B"),
        ("first_capital", "Answer: B", "A"),
        ("lvbench", "(B) because", "B"),
        ("lvbench", "B) because", "B"),
        ("lvbench", "I say (D", "D"),
        ("lvbench", "Because", "B"),
        ("lvbench", "", None),
        ("lvbench", "so B", None),
        ("first_upper", "b because", "B"),
        ("first_upper", "It is B", None),
        ("omnibench", "(A) or (C)", "C"),
        ("omnibench", "C (A)", "A"),
        ("omnibench", "B", "B"),
        ("omnibench", "A cat. B it is", "B"),
        ("omnibench", "It is D.", "D"),
        ("omnibench", "I think it must be a blue drum", "B"),
        ("omnibench", "not a red bell but certainly a red bird", "D"),
        ("omnibench", "a blue drum", None),
        ("intent_choice", "<answer> B </answer><answer>C</answer>", "B"),
        ("intent_choice", "B", "B"),
        ("intent_choice", "<answer></answer>", None),
        ("intent_choice", "<answer>B.</answer>", None),
        ("intent_several", "<answer>A, E</answer>", "A, E"),
        ("intent_several", "", None),
        ("letters", "A, C and D", "A,C,D"),
        ("letters", "C A.", "A,C"),
        ("letters", "A bell", None),
        ("exact", " Ada\n Lovelace. ", "ada lovelace"),
        ("exact", " . ", None),
    ],
)
def test_letters_and_texts(parser: str, text: str, expected: str | None) -> None:
    assert read(parser, text) == expected


@pytest.mark.parametrize(
    ("parser", "text", "expected"),
    [
        ("yes_no", "Yes, it is", "yes"),
        ("yes_no", "It is: no", None),
        ("yes_no", "Nothing", None),
        ("outro_yes_no", "It is: NO, not yes", "no"),
        ("outro_yes_no", "yesterday", None),
        ("cmm", " Yes, there is", "yes"),
        ("cmm", "I know", "no"),
        ("cmm", "It is no", None),
        ("cmm", "It is yes", None),
        ("cmm", "noyes", None),
        ("intent_yes_no", "<answer>Yes</answer> no", "yes"),
        ("intent_yes_no", "I do not know", "no"),
        ("intent_yes_no", "yes or no", None),
    ],
)
def test_yes_and_no(parser: str, text: str, expected: str | None) -> None:
    assert read(parser, text, YES_NO) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two", "two"),
        ("more than ten.", "more than ten"),
        ("ten, I think", "ten"),
        ("tenor", None),
        ("there are two", None),
        ("", None),
        ("2", "two"),
        ("10 of them", "ten"),
        ("more than 10", "more than ten"),
        ("2.5", None),
        ("12", None),
        ("acoustic guitar", "acoustic_guitar"),
        ("Acoustic_Guitar.", "acoustic_guitar"),
        ("no, there is none", "no"),
        ("one or two", None),
        ("2 or 3", None),
        ("2-3", None),
        ("10 to 12", None),
        ("two, ten", None),
        ("two/ten", None),
        ("none", None),
        ("one, possibly two", None),
    ],
)
def test_words_of_a_closed_set(text: str, expected: str | None) -> None:
    assert read("words", text, WORDS) == expected


@pytest.mark.parametrize(
    "parser", [p for p in answers.PARSERS if p not in ("intent_several", "exact", "letters", "string_match")]
)
@given(text=st.text(st.sampled_from(string.ascii_letters + " .,:()[]<>/\n'é"), max_size=60))
def test_what_is_read_is_an_answer_or_nothing(parser: str, text: str) -> None:
    choices = YES_NO if "yes_no" in parser or parser == "cmm" else WORDS if parser == "words" else tuple("ABCDEF")
    found = read(parser, text, choices)
    assert found is None or found in choices
    assert found == read(parser, text, choices), "it is not drawn at random"


@pytest.mark.parametrize("parser", answers.PARSERS)
@given(text=st.text(max_size=40), golds=st.sampled_from([("A", "B"), ("yes", "no"), ("one", "two")]))
def test_no_parser_looks_at_the_right_answer(parser: str, text: str, golds: tuple[str, str]) -> None:
    first, second = (answers.parse(text, asked(parser, gold)) for gold in golds)
    assert first == second


@given(text=st.text(st.sampled_from("ABCD ()."), max_size=12), gold=st.sampled_from("ABCD"))
def test_mvbench_agrees_with_its_authors_where_one_option_fits(text: str, gold: str) -> None:
    """Compare with the authors' rule, written down anew from its description."""
    said = f"({text.strip()}".lower().split(" ")[0]

    def right(letter: str) -> bool:
        return said.replace(".", "") in f"({letter.lower()})" or f"({letter.lower()})" in said

    fitting = [letter for letter in "ABCD" if right(letter)]
    found = read("first_token", text)
    if len(fitting) == 1:
        assert (found == gold) == right(gold)
    else:
        assert found is None


@given(text=st.text(st.sampled_from("ABCD ()."), max_size=12), gold=st.sampled_from("ABCD@"))
def test_mlvu_agrees_with_its_authors(text: str, gold: str) -> None:
    """Compare with the rule of `choice_bench.py`, written down anew from its description."""
    said = text.strip()
    if ")" in said:
        said = said[said.index(")") - 1 : said.index(")")]
    assert (read("mlvu", text) == gold) == (said == gold and gold != "@")


PARTS = ("The answer is", "The answer", "Best answer:", "Best option:", "Answer:", "Option:", "A", "B", " ", "so", "E")


@given(st.lists(st.sampled_from(PARTS), max_size=6).map("".join))
def test_worldsense_and_video_mme_agree_with_their_authors(text: str) -> None:
    fused = ["The best answer is", "The correct answer is", "The answer is", "The answer"]
    fused += ["The best option isThe correct option is", "Best answer:Best option:"]
    for parser, phrases in (("first_capital", fused), ("worldsense", [*fused, "Answer:", "Option:"])):
        said = text.strip()
        for phrase in phrases:
            said = said.replace(phrase, "")
        assert read(parser, text) == next((c for c in said if c in "ABCD"), None)


@given(st.text(max_size=40))
def test_lvbench_agrees_with_its_authors(text: str) -> None:
    part = text.strip().split(")")[0].strip()
    part = part.split("(")[1].strip() if "(" in part else part
    expected = part.split(" ")[0][:1]
    assert read("lvbench", text) == (expected if expected and expected in "ABCD" else None)


def test_scores() -> None:
    assert score("B", asked("letter", "B")) == 1
    assert score("A", asked("letter", "B")) == 0
    assert score(None, asked("letter", "B")) == 0
    several = asked("intent_several", "A,E")
    assert score("A,E", several) == 1
    assert score("E,A", several) == 1
    assert score("A, E", several) == pytest.approx(0.5), "it is not stripped, as in IntentBench"
    assert score("A,B,E", several) == pytest.approx(0.8)
    assert score("A,A", several) == pytest.approx(0.5), "a letter said twice counts twice"
    assert score("C", several) == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("The words are: Apple, pear and\nfig tree.", 1),
        ("apple and pear", 2 / 3),
        ("pineapples", 1 / 3),
        ("none of them", 0),
        ("fig  tree", 1 / 3),
        (" \n", 0),
    ],
)
def test_several_right_answers_count_each(said: str, expected: float) -> None:
    instance = asked("string_match", "apple, Pear, fig tree", ())
    assert score(answers.parse(said, instance), instance) == pytest.approx(expected)
    assert answers.parse(said, instance) == (" ".join(said.split()).casefold() or None)


def test_every_parser_says_whose_it_is() -> None:
    for name, parser in answers.PARSERS.items():
        assert re.match(r"(Ours|OutRo|\S*'s|IntentBench)", inspect.getdoc(parser) or ""), name
