"""What a file of annotations holds, whatever its format: questions, rows that are left out, rows that are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError

#: What an answer is: one letter, yes or no, several letters, a word of a closed set, or any text.
KINDS = ("choice", "yes-no", "several", "words", "free")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
        A letter, letters with commas between, ``"yes"`` or ``"no"``, a word or a text.
    options, filed : tuple of str
        The choices as texts alone, and as the file has them, which may be with letters.
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


@dataclass(frozen=True)
class Left:
    """A row that is no question of the task, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Bad:
    """A row that should be a question and cannot be one, and why."""

    where: str
    why: str


Outcome = Row | Left | Bad


@dataclass(frozen=True)
class Source:
    """Where a loader reads: the data folder, the file of annotations where there is one, and the task's own fields."""

    folder: Path
    file: Path | None
    fields: Mapping[str, Any]


#: Reads the annotations of a task, row by row; what is wrong with a row is told, not raised.
Loader = Callable[[Source], Iterator[Outcome]]


class LeftOutError(OmnisinkError):
    """Raised inside a loader for a row that is to be left out."""


def guarded(where: str, make: Callable[..., Row], *given: Any) -> Outcome:
    """Return what ``make(where, *given)`` returns, or what it raises, as an outcome."""
    try:
        return make(where, *given)
    except LeftOutError as error:
        return Left(where, str(error))
    except OmnisinkError as error:
        return Bad(where, str(error))


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


def split_options(given: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return choices without their letters, and as they are filed.

    Parameters
    ----------
    given : list of str, or dict of letter to str
        With or without letters in front. A letter is taken off only where all choices have theirs, in order.

    Returns
    -------
    tuple of str, tuple of str
        The texts, of which one may be blank, and what was given.

    Raises
    ------
    OmnisinkError
        If they are no two texts or more.
    """
    if isinstance(given, Mapping):
        if list(given) != list(LETTERS[: len(given)]):
            raise OmnisinkError(f"the options are not lettered A, B, C, ...: {', '.join(map(str, given))}")
        given = list(given.values())
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(o, str) for o in given):
        raise OmnisinkError(f"the options must be a list of texts, got {given!r}")
    if not 2 <= len(given) <= len(LETTERS):
        raise OmnisinkError(f"there must be two options at least and {len(LETTERS)} at most, got {len(given)}")
    filed = tuple(given)
    found = [re.match(rf"\s*\(?{letter}[.:)]\s*", o) for letter, o in zip(LETTERS, filed, strict=False)]
    if all(found):
        return tuple(o[m.end() :] for o, m in zip(filed, found, strict=True) if m), filed
    return filed, filed


def find_letter(answer: str, options: Sequence[str], filed: Sequence[str]) -> str:
    """Return the letter of an answer that is given as a letter, as the text of a choice, or as both.

    Raises
    ------
    LeftOutError
        If the answer names a blank choice, or one that is there twice: no answer could be told right.
    OmnisinkError
        If the answer is none of the choices.
    """
    said = answer.strip()
    letters = LETTERS[: len(options)]
    if len(said) == 1 and said in letters:
        named = [said]
    else:
        pairs = zip(letters, options, filed, strict=True)
        named = [letter for letter, text, whole in pairs if said in (text.strip(), whole.strip())]
    if not named:
        raise OmnisinkError(f"the answer {answer!r} is none of the {len(options)} options")
    if len(named) > 1:
        raise LeftOutError(f"the answer {answer!r} is the text of several options: {', '.join(named)}")
    if not options[letters.index(named[0])].strip():
        raise LeftOutError(f"the right answer, {named[0]}, is a blank option")
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
    if isinstance(value, Sequence):
        return tuple(dict.fromkeys(str(v) for v in value))
    raise OmnisinkError(f"a group must be a text or a list of texts, got {value!r}")
