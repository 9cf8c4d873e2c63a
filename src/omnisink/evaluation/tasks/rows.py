"""What a file of annotations holds, whatever its format: questions, rows that are left out, rows that are wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.odd import LeftOutError, OddRows
from omnisink.questions.letters import LETTERS, split_letters

#: What an answer is: one letter, yes or no, several letters, a word of a closed set, or any text.
KINDS = ("choice", "yes-no", "several", "words", "free")
#: The right answer of a question that has none among its options; no reply is read as it.
NO_ANSWER = "@"
#: Longest list of options that is written out as a text; Python's own parser is not asked about longer ones.
_LONGEST_LIST = 100_000
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """One question, before a protocol has put it into words.

    Attributes
    ----------
    id : str
        Unique in its file.
    where : str
        File and row, for messages.
    question : str
        Without the choices.
    kind : str
        One of `KINDS`.
    gold : str
        A letter, letters with commas between, ``"yes"`` or ``"no"``, a word or a text; `NO_ANSWER` where there
        is none.
    options, filed : tuple of str
        The choices as plain texts, and as the file has them, which may be with letters.
    words : tuple of str
        The closed set, for the kind ``"words"``.
    video, audio, image : tuple of str
        Names relative to the data folder, the likeliest first; empty where there is no such file.
    cluster : str
        What makes questions dependent; empty is the first file.
    groups : mapping
        For breakdowns.
    extra : mapping
        Further fields for templates.
    odd : tuple of str
        What is odd about the row, in kinds of `omnisink.evaluation.tasks.odd.RULES`, and it is kept all the same.
    """

    id: str
    where: str
    question: str
    kind: str
    gold: str
    options: tuple[str, ...] = ()
    filed: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    video: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    cluster: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    odd: tuple[str, ...] = ()


@dataclass(frozen=True)
class Left:
    """A row that is not a question of the task, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Bad:
    """A row that should be a question and cannot be one, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Missing(Bad):
    """Something that can be fetched and that a run needs: a file of annotations, or videos that are cut to size."""


Outcome = Row | Left | Bad


@dataclass(frozen=True)
class Source:
    """Where a loader reads.

    Attributes
    ----------
    folder : Path
        The data folder.
    file : Path or None
        The file of annotations, where there is one.
    fields : mapping
        The task's own fields.
    odd : OddRows
        What the task does with odd rows.
    """

    folder: Path
    file: Path | None
    fields: Mapping[str, Any]
    odd: OddRows = field(default_factory=OddRows)


#: Reads the annotations of a task, row by row; what is wrong with a row is returned, not raised.
RowReader = Callable[[Source], Iterator[Outcome]]


class NotThereError(OmnisinkError):
    """Raised inside a loader for what a run needs and the data folder lacks."""


def guarded(where: str, odd: OddRows, make: Callable[..., Row], *given: Any) -> Outcome:
    """Return what ``make(where, *given)`` returns, or what it raises, as an outcome."""
    odd.taken()
    try:
        row = replace(make(where, *given), odd=odd.taken())
        check_texts(_texts_of(row))
    except LeftOutError as error:
        return Left(where, str(error))
    except NotThereError as error:
        return Missing(where, str(error))
    except OmnisinkError as error:
        return Bad(where, str(error))
    return row


def check_texts(texts: Iterable[str]) -> None:
    """Refuse text that no file can hold: half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    for text in texts:
        if found := _HALF.search(text):
            raise OmnisinkError(f"half of a surrogate pair, {found[0]!a}, stands in {text!a}")


def _texts_of(row: Row) -> Iterator[str]:
    yield from (row.id, row.where, row.question, row.gold, row.cluster)
    for several in (row.options, row.filed, row.words, row.video, row.audio, row.image, *row.groups.values()):
        yield from several
    yield from (*row.groups, *row.extra.values())


def value_of(row: Mapping[str, Any], key: str) -> Any:
    """Return a value that has to be there."""
    if row.get(key) is None:
        raise OmnisinkError(f"{key} is missing")
    return row[key]


def text_of(row: Mapping[str, Any], key: str) -> str:
    """Return a text that has to be there and not be empty; a whole number counts as one."""
    value = value_of(row, key)
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise OmnisinkError(f"{key} must be text and not empty, got {value!r}")
    return value


def question_of(row: Mapping[str, Any], key: str, odd: OddRows) -> str:
    """Return the text of a question; a blank one is odd."""
    value = value_of(row, key)
    if isinstance(value, str) and not value.strip():
        odd.meet("blank_question", f"{key} must be text and not empty, got {value!r}")
        return value
    return text_of(row, key)


def split_options(given: Any, odd: OddRows | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return choices without their letters, and as they are filed.

    Parameters
    ----------
    given : list of str, dict of letter to str, or str
        With or without letters in front; or a list written out as a text, as tables have it. A letter is taken off
        only where all choices have theirs, in order, and one blank with it.
    odd : OddRows, optional
        What is done with a single option; None refuses it.

    Returns
    -------
    tuple of str, tuple of str
        The texts, of which some may be blank, and what was given.

    Raises
    ------
    OmnisinkError
        If they are no two texts or more.
    """
    if isinstance(given, str):
        given = _written_out(given)
    if isinstance(given, Mapping):
        if list(given) != list(LETTERS[: len(given)]):
            raise OmnisinkError(f"the options are not lettered A, B, C, ...: {', '.join(map(str, given))}")
        given = list(given.values())
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(o, str) for o in given):
        raise OmnisinkError(f"the options must be a list of texts, got {given!r}")
    if not 2 <= len(given) <= len(LETTERS):
        wrong = f"there must be two options at least and {len(LETTERS)} at most, got {len(given)}"
        if len(given) != 1:
            raise OmnisinkError(wrong)
        (odd or OddRows()).meet("one_option", wrong)
    return split_letters(given, letters_only=True)[0], tuple(given)


def _written_out(text: str) -> Any:
    """Return the list that a text writes out in Python's way; the text itself where it is none."""
    if not text.lstrip().startswith("[") or len(text) > _LONGEST_LIST:
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text


def find_letter(
    answer: str, options: Sequence[str], filed: Sequence[str], odd: OddRows | None = None, *, by_text: bool = False
) -> str:
    """Return the letter of an answer that is given as a letter, as the text of a choice, or as both.

    Parameters
    ----------
    answer : str
        As the file has it.
    options, filed : sequence of str
        As `split_options` returns them.
    odd : OddRows, optional
        What is done where the answer names no option, several, or a blank one.
    by_text : bool
        Whether the file gives texts of options: "A" is then the option whose text it is, and not the first.

    Returns
    -------
    str
        A letter, or `NO_ANSWER` where the answer is none of the options and such rows are kept.

    Raises
    ------
    LeftOutError, OmnisinkError
        As `odd` says.
    """
    odd = odd or OddRows()
    letters = LETTERS[: len(options)]
    pairs = list(zip(letters, options, filed, strict=True))
    exact = [letter for letter, text, whole in pairs if answer in (text, whole)]
    said = answer.strip()
    loose = [letter for letter, text, whole in pairs if said in (text.strip(), whole.strip())]
    alone = [said] if len(said) == 1 and said in letters else []
    named = exact or loose or alone if by_text else alone or exact or loose
    if not named:
        odd.meet("answer_not_among_options", f"the answer {answer!r} is none of the {len(options)} options")
        return NO_ANSWER
    if len(named) > 1:
        rule = odd.meet(
            "answer_of_several_options", f"the answer {answer!r} is the text of several options: {', '.join(named)}"
        )
        named = named[-1:] if rule == "last" else named[:1]
    if not options[letters.index(named[0])].strip():
        odd.meet("answer_is_blank_option", f"the right answer, {named[0]}, is a blank option")
    return named[0]


def yes_or_no(answer: str) -> str:
    """Return ``"yes"`` or ``"no"``."""
    said = answer.strip().lower()
    if said not in ("yes", "no"):
        raise OmnisinkError(f"the answer {answer!r} is neither yes nor no")
    return said


def group(value: Any) -> tuple[str, ...]:
    """Return the groups that a value stands for: none, one, or all of a list."""
    if value is None or value == "":
        return ()
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, str | int | float):
        return (str(value),)
    if (
        isinstance(value, Sequence)
        and not isinstance(value, bytes)
        and all(isinstance(v, str | int | float) for v in value)
    ):
        return tuple(dict.fromkeys(str(v) for v in value))
    raise OmnisinkError(f"a group must be a text or a list of texts, got {value!r}")
