"""Long-context questions: the same everywhere, with one right answer, and as long as they are asked to be."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.long_context import filler
from omnisink.evaluation.tasks.long_context.common_words import COMMON
from omnisink.evaluation.tasks.long_context.draws import Draws
from omnisink.evaluation.tasks.long_context.generate import DEPTHS, GENERATORS, PLACED, generate
from omnisink.evaluation.tasks.long_context.made import Made, largest_size
from omnisink.evaluation.tasks.long_context.words import NAMES, WORDS

#: SHA-256 of the first five questions of 600 words under seed 1. A change of these is a change of the benchmark.
GOLDEN = {
    "needle": "b2eb590720c9d09fa3e22fb3359d6fcf89091cf5787e80a5d8dd1b65412f28d4",
    "needle-multi": "d81b17cf9ec6486348a8422a3fc239748b9bccf40608f156dbda372f660f2839",
    "key-value": "221b5f68a6fb2383bf2afc8d7299f73008d63e88832f88807e6b0d3b1b24e6bb",
    "variable-tracking": "7a2670fad3111cc00bfa96c3d0f1c92472e4ffc702da82d1bd92147a030d9bdc",
    "common-words": "943793e272ef2315348d41f39331dce24f6ff565eb7b92444c39b293c3f6cef6",
}
QUESTIONS = {
    "task": st.sampled_from(sorted(GENERATORS)),
    "length": st.integers(400, 3000),
    "seed": st.integers(0, 2**32),
    "index": st.integers(0, 10_000),
}


def tokens(made: Made) -> int:
    """Count words and marks, as a tokenizer does about."""
    return len(re.findall(r"\w+|[^\w\s]", f"{made.context}\n{made.question}"))


def text_of(made: Made) -> str:
    return json.dumps(asdict(made), sort_keys=True)


@pytest.mark.parametrize("task", GENERATORS)
def test_questions_are_the_same_on_every_platform(task: str) -> None:
    made = [text_of(generate(task, 600, 1, index, tokens)[0]) for index in range(5)]
    assert hashlib.sha256("\n".join(made).encode()).hexdigest() == GOLDEN[task]


@settings(max_examples=60, deadline=None)
@given(**QUESTIONS)
def test_a_question_is_as_long_as_it_can_be(task: str, length: int, seed: int, index: int) -> None:
    made, depth = generate(task, length, seed, index, tokens)
    assert length * 0.93 <= tokens(made) <= length
    assert depth == DEPTHS[index % len(DEPTHS)]
    assert generate(task, length, seed, index, tokens) == (made, depth), "the same arguments, the same question"


@settings(max_examples=60, deadline=None)
@given(**QUESTIONS)
def test_a_question_has_its_right_answers_and_no_other(task: str, length: int, seed: int, index: int) -> None:
    made, depth = generate(task, length, seed, index, tokens)
    answers = {answer.casefold() for answer in made.answers}
    assert len(answers) == len(made.answers) == {"common-words": COMMON, "variable-tracking": 5}.get(task, 1)
    assert all(answer in made.context for answer in made.answers)
    assert not any(a in b for a in answers for b in answers if a != b)
    assert not any(answer in made.question.casefold() for answer in answers), "the question does not tell"
    assert len(set(made.options)) == 4
    assert [option.casefold() in answers for option in made.options] == [i == made.right for i in range(4)]
    if task in PLACED:
        (answer,) = made.answers
        assert made.context.count(answer) == 1
        assert abs(made.context.index(answer) / len(made.context) - depth) < 0.15


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 100), task=st.sampled_from(["needle", "needle-multi"]))
def test_a_needle_is_in_the_text_once_and_alone_where_it_should_be(task: str, seed: int, index: int) -> None:
    made, _ = generate(task, 800, seed, index, tokens)
    name = re.fullmatch(r"What is the access code of the (.+)\?", made.question)
    assert name is not None
    assert name[1] in NAMES
    assert made.context.count(f"The access code of the {name[1]} is {made.answers[0]}.") == 1
    assert made.context.count(name[1]) == 1
    assert len(re.findall(r"\d+", made.context)) == {"needle": 1, "needle-multi": 4}[task]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(300, 2000))
def test_following_the_variables_gives_the_answer(seed: int, length: int) -> None:
    made, _ = generate("variable-tracking", length, seed, 0, tokens)
    values: dict[str, str] = {}
    for name, value in re.findall(r"Let (\w+) be equal to (\w+)\.", made.context):
        assert name not in values
        values[name] = values[value] if value.isalpha() else value  # It fails where a variable has no value yet.
    (asked,) = re.findall(r"\d{5}", made.question)
    assert {name for name, value in values.items() if value == asked} == set(made.answers)
    assert len(values) == 10
    assert [values[option] == asked for option in made.options] == [i == made.right for i in range(4)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(400, 6000))
def test_common_words_are_five_times_as_frequent_as_any_other(seed: int, length: int) -> None:
    made, _ = generate("common-words", length, seed, 0, tokens)
    listed = made.context.split()
    times = {word: listed.count(word) for word in set(listed)}
    assert len({times[word] for word in made.answers}) == 1
    assert min(times[word] for word in made.answers) >= 5 * max(n for w, n in times.items() if w not in made.answers)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 100))
def test_every_key_and_value_is_there_once(seed: int, index: int) -> None:
    made, _ = generate("key-value", 2000, seed, index, tokens)
    pairs = json.loads(made.context, object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs) == len({value for _, value in pairs}) > 50
    (asked,) = re.findall(r'"(.+)"', made.question)
    assert dict(pairs)[asked] == made.answers[0]


def test_seeds_lengths_and_indices_make_different_questions() -> None:
    made = {
        generate("needle", length, seed, index, tokens)[0].answers
        for length in (400, 500)
        for seed in (1, 2)
        for index in range(50)
    }
    assert len(made) == 200


def test_the_sentences_around_tell_nothing() -> None:
    parts = [*filler.WHO, *filler.DID, *filler.WHERE, *filler.WHEN]
    assert len(parts) == len(set(parts))
    assert not any(re.search(r"\d|code|access|equal|[A-Z]{2}", part) for part in parts)
    assert not any(name in part for name in NAMES for part in parts)


def test_no_word_of_a_list_is_part_of_another() -> None:
    assert len(WORDS) == len(set(WORDS)) > 200
    assert not [(a, b) for a in WORDS for b in WORDS if a != b and a in b]
    assert len(NAMES) == len(set(NAMES))


def test_a_length_that_is_too_short_is_an_error() -> None:
    with pytest.raises(OmnisinkError, match=r"common-words with room for its answer has \d+ tokens .* length of 50"):
        generate("common-words", 50, 1, 0, tokens)


@given(
    least=st.integers(0, 100),
    parts=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    limit=st.integers(0, 3000),
)
def test_the_largest_size_is_found(least: int, parts: list[int], limit: int) -> None:
    calls = 0

    def count(size: int) -> int:
        nonlocal calls
        calls += 1
        whole, rest = divmod(size, len(parts))
        return least + whole * sum(parts) + sum(parts[:rest])

    found = largest_size(count, limit)
    assert calls <= 40
    if found is None:
        assert least > limit
    else:
        assert count(found) <= limit < count(found + 1)


def test_few_prompts_are_made_for_a_length() -> None:
    sizes: list[int] = []
    assert largest_size(lambda size: sizes.append(size) or 37 + 16 * size, 100_000) == 6247  # type: ignore[func-returns-value]
    assert len(sizes) < 8


def test_draws_do_not_depend_on_what_else_is_drawn() -> None:
    draws = Draws("a")
    first = draws.stream("b").sample(range(100), 5)
    draws.below(10)
    assert draws.stream("b").sample(range(100), 5) == first == Draws("a/b").sample(range(100), 5)
    assert sorted(Draws("c").shuffled(range(9))) == list(range(9))
    assert all(Draws(str(i)).digits(4)[0] != "0" for i in range(50))
