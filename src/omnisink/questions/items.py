"""Questions with known answers, and plain texts, from a JSON Lines file."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omnisink.errors import OmnisinkError
from omnisink.media.files import check_file
from omnisink.questions.choices import check_choices
from omnisink.questions.letters import LETTERS, split_letters
from omnisink.questions.parsing import parse_letter, parse_yes_no
from omnisink.results.reading import read_bounded

#: Bytes of a file of items at most; questions of the largest benchmarks take a tenth of it.
_LARGEST = 2**28
YES_NO = "Answer yes or no."
#: Behind a letter that is an answer, and around it.
_NAMED = re.compile(r"[(\[]?(\w+)[)\].:]*")
_ASKS_YES_NO = re.compile(r"\banswer\s+(with\s+)?yes\s+or\s+no\b", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A question with its known answer, or a passage, which is scored by the loss of its tokens.

    Attributes
    ----------
    id : str
        Unique in its file.
    question : str
        The question without the choices; empty for a passage.
    answer : str
        A letter where there are choices, ``"yes"`` or ``"no"``, or free text; empty for a passage.
    choices : tuple of str
        Without letters of their own; empty where there are none.
    video, image : Path or None
        Files, resolved.
    audio : Path, False or None
        A file with sound. None is the sound of the video, where there is one; False leaves it out.
    category : str or None
        Kind of the question.
    cluster : str
        Group of items that are not independent: what the row says, or else the file of the question, relative to the
        folder, or else the id.
    passage : str or None
        The text of a passage; None for a question.
    """

    id: str
    question: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()
    video: Path | None = None
    audio: Path | Literal[False] | None = None
    image: Path | None = None
    category: str | None = None
    cluster: str = ""
    passage: str | None = None


def read_items(path: str | Path, limit: int | None = None) -> list[Item]:
    """Read items, one JSON object a line; blank lines are skipped.

    A row with an ``answer`` is a question, in ``question`` or ``text``; one that has only ``text`` is a passage. A
    question has ``choices``, ``video``, ``audio`` and ``image`` as it needs; any row may have an ``id`` (else the
    number of its line), a ``category`` and a ``cluster``. Files are named relative to the folder of `path`. Other keys
    are ignored.

    Parameters
    ----------
    path : str or Path
        The JSON Lines file, in UTF-8.
    limit : int, optional
        Read only the first items, this many.

    Returns
    -------
    list of Item
        The items in the order of the file. A question for yes or no asks for that in its last line.

    Raises
    ------
    OmnisinkError
        If the file cannot be read or holds no item, or a row cannot be used; the message names the line.
    """
    items, bad = read_usable_items(path, limit, strict=True)
    assert not bad
    return items


def read_usable_items(
    path: str | Path, limit: int | None = None, *, strict: bool = False
) -> tuple[list[Item], list[tuple[int, str]]]:
    """Read items as `read_items`, and leave out rows that cannot be used, unless `strict`.

    Returns
    -------
    list of Item
        The items in the order of the file.
    list of (int, str)
        The number of the line of every row that was left out before the last item, and why.

    Raises
    ------
    OmnisinkError
        If the file cannot be read or no row of it can be used.
    """
    if limit is not None and limit < 1:
        raise OmnisinkError(f"the number of items must be positive, got {limit}")
    items: list[Item] = []
    bad: list[tuple[int, str]] = []
    for line, found in scan_items(path):
        if isinstance(found, Item):
            items.append(found)
        elif strict:
            raise OmnisinkError(f"{path}:{line}: {found}")
        else:
            bad.append((line, str(found)))
        if len(items) == limit:
            break
    if not items:
        why = f"; rows that cannot be used: {len(bad):,}, the first in line {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise OmnisinkError(f"{path}: there is no item in the file{why}")
    return items, bad


def scan_items(path: str | Path, *, check_files: bool = True) -> Iterator[tuple[int, Item | OmnisinkError]]:
    """Yield the number of every line of a file of items, and its item, or the error of the line; see `read_items`.

    Parameters
    ----------
    path : str or Path
        The JSON Lines file.
    check_files : bool
        Whether a row whose file is missing or empty is an error. A row that names a folder, or something outside
        the folder of the file, is always one.

    Yields
    ------
    int, Item or OmnisinkError
        Lines count from 1.

    Raises
    ------
    OmnisinkError
        If the file cannot be read.
    """
    folder = Path(path).resolve().parent
    seen: set[str] = set()
    for number, line in enumerate(_read(path).split(b"\n"), 1):
        line = line.removeprefix(codecs.BOM_UTF8)  # at the beginning, and where files were joined
        if not line.strip():
            continue
        try:
            item = _item(_row(line), f"line-{number:04d}", folder, check_files)
            if item.id in seen:
                raise OmnisinkError(f"the id {item.id!r} was used before")
        except OmnisinkError as error:
            yield number, error
            continue
        seen.add(item.id)
        yield number, item


def parse_answer(text: str, item: Item) -> str | None:
    """Return what a model said in the terms of the item's answer; it is never guessed.

    A letter, or ``"yes"`` or ``"no"``, or None where `text` is neither. For a free answer it is `text` itself, which
    the caller compares.
    """
    if item.choices:
        return parse_letter(text, len(item.choices))
    if item.answer in ("yes", "no"):
        return parse_yes_no(text)
    return text


def checksum(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; an `OmnisinkError` says why it cannot be read."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: str | Path) -> bytes:
    return read_bounded(path, _LARGEST)


def _row(line: bytes) -> dict[str, Any]:
    """Return the object of a line; what is null counts as absent."""
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise OmnisinkError("it is not UTF-8; save the file in that encoding") from None
    except (ValueError, RecursionError) as error:
        raise OmnisinkError(f"it is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise OmnisinkError(f"not a JSON object but {type(row).__name__}")
    return {key: value for key, value in row.items() if value is not None}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, unless a key is there twice: which of the two is meant is not guessed."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise OmnisinkError(f"the key {twice!r} is there twice")
    return found


def _item(row: dict[str, Any], default: str, folder: Path, check_files: bool) -> Item:
    name = row.get("id", default)
    name = str(name) if type(name) is int else _text({"id": name}, "id")
    category, named = (_text(row, key) if key in row else None for key in ("category", "cluster"))
    if "text" in row and not {"question", "answer"} & row.keys():
        if extra := sorted({"choices", "video", "audio", "image"} & row.keys()):
            raise OmnisinkError(f"a question without an answer, or a passage with {', '.join(extra)}")
        return Item(name, category=category, cluster=named or name, passage=_text(row, "text"))
    question = _text(row, "text" if "question" not in row and "text" in row else "question")
    answer, given = _text(row, "answer").strip(), row.get("choices", [])
    if not isinstance(given, list) or not all(isinstance(choice, str) for choice in given):
        raise OmnisinkError(f"choices must be a list of texts, got {given!r}")
    for choice in given:
        _whole(choice, "choices")
    texts, labels = split_letters(given)
    choices = check_choices(texts or None)
    if choices:
        answer = _letter(answer, choices, given, labels)
    elif answer.lower() in ("yes", "no"):
        answer = answer.lower()
        if not _ASKS_YES_NO.search(question):
            question = f"{question}\n{YES_NO}"
    video, image, audio = (_file(row, key, folder, check_files) for key in ("video", "image", "audio"))
    if row.get("audio") is True and video is None:
        raise OmnisinkError("audio: true means the sound of the video, and there is no video")
    sound: Path | Literal[False] | None = False if row.get("audio") is False else audio
    about = video or audio or image
    cluster = named or (about.relative_to(folder).as_posix() if about else name)
    return Item(name, question, answer, choices, video, sound, image, category, cluster)


def _text(row: dict[str, Any], key: str) -> str:
    if key not in row:
        raise OmnisinkError(f"{key} is missing")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise OmnisinkError(f"{key} must be text and not empty, got {value!r}")
    return _whole(value, key)


def _whole(value: str, key: str) -> str:
    """Return a text that can be written to a file: JSON can hold half of a surrogate pair, and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise OmnisinkError(f"{key} has half of a surrogate pair, {value[error.start]!a}") from None
    return value


def _letter(answer: str, choices: Sequence[str], filed: Sequence[str], labels: Sequence[str]) -> str:
    """Return the letter of an answer: a letter, a text of a choice, both, or its label in the file.

    "(B)", "B." and "b" are B where nothing else is meant.
    """
    letters = LETTERS[: len(choices)]
    pairs = list(zip(letters, choices, filed, labels or letters, strict=True))
    named = {a for a, text, whole, label in pairs if answer in (a, label, text.strip(), whole.strip())}
    if not named and (found := _NAMED.fullmatch(answer)):
        named = {a for a, _, _, label in pairs if found[1].casefold() in (a.casefold(), label.casefold())}
    if len(named) != 1:
        problem = f"names several choices, {', '.join(sorted(named))}" if named else "is not among the choices"
        raise OmnisinkError(f"the answer {answer!r} {problem}")
    return named.pop()


def _file(row: dict[str, Any], key: str, folder: Path, check: bool) -> Path | None:
    """Return a file inside the folder, with symbolic links followed; the data may name no other."""
    if key not in row or (key == "audio" and isinstance(row[key], bool)):
        return None
    name = _text(row, key)
    try:
        path = (folder / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(folder):
            raise OmnisinkError(f"{name} must be inside the folder of the questions, and named relative to it")
        return check_file(path) if check or path.is_dir() else path
    except (OmnisinkError, OSError, ValueError, RuntimeError) as error:  # a zero byte, a loop of links
        raise OmnisinkError(f"{key}: {error}") from None
