"""A list of objects, one a question: what a task's file says under ``fields`` is where each thing is found in a row.

=============  =========================================================================================
``id``         Template over the row; ``{index}`` is the row's place from 0, ``{n}`` a running number of equal ids.
``question``   Key.
``options``    Key of a list, or of letters with texts; or a list of keys, of which those that are null are no options.
``answer``     Key; a letter, a text of an option, yes or no.
``answer_is``  ``text`` where the answer is the text of an option: "A" is then the option of that text.
``tag``        The answer is inside this tag, as ``answer`` for ``<answer>A</answer>``.
``kind``       What an answer is; or ``{of: key, map: {value: kind}}``; or ``auto``: choice where there are options.
``media``      For video, audio and image: templates, the likeliest first. One whose key is missing is passed over.
``stem``       Key of a path; templates of media may then have ``{stem}``, its file name without suffix.
``cluster``    Template, which may have ``{pair}``: rows 1 and 2 are the first pair, 3 and 4 the second.
``groups``     Name of the group to key, or to a template of keys; where a key is not there, there is no group.
``extra``      Name of a further template field to key.
``leave_out``  List of ``{of: key, is: [values], why: text}``.
=============  =========================================================================================
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.annotation_files import read_rows
from omnisink.evaluation.tasks.odd import LeftOutError, OddRows
from omnisink.evaluation.tasks.rows import (
    KINDS,
    Bad,
    Outcome,
    Row,
    Source,
    find_letter,
    group,
    guarded,
    question_of,
    split_options,
    text_of,
    value_of,
    yes_or_no,
)

FIELDS = frozenset(
    {
        "id",
        "question",
        "options",
        "answer",
        "answer_is",
        "tag",
        "kind",
        "media",
        "stem",
        "cluster",
        "groups",
        "extra",
        "leave_out",
    }
)


def load_listed(source: Source) -> Iterator[Outcome]:
    """Read a flat list; see the module."""
    assert source.file is not None
    maker = RowMaker(source.fields, source.odd)
    for found in read_rows(source.file):
        yield maker.skip(found) if isinstance(found, Bad) else maker.outcome(*found)


class RowMaker:
    """Makes rows of objects that come one after the other, as ``fields`` say."""

    def __init__(self, fields: Mapping[str, Any], odd: OddRows | None = None) -> None:
        self.fields, self.odd = fields, odd or OddRows()
        self._index = -1
        self._same: Counter[str] = Counter()

    def outcome(self, where: str, row: Mapping[str, Any]) -> Outcome:
        """Return what one object is."""
        self._index += 1
        return guarded(where, self.odd, self._row, row)

    def skip(self, bad: Bad) -> Bad:
        """Count a row that is no object: the rows after it keep their places."""
        self._index += 1
        return bad

    def _row(self, where: str, row: Mapping[str, Any]) -> Row:
        fields = self.fields
        for rule in fields.get("leave_out", ()):
            if row.get(rule["of"]) in rule["is"]:
                raise LeftOutError(rule["why"])
        question = question_of(row, fields["question"], self.odd)
        options, filed = self._options(row)
        kind = self._kind(row, bool(options))
        if kind not in ("choice", "several"):
            options, filed = (), ()
        named = {**row, "stem": Path(text_of(row, fields["stem"])).stem} if "stem" in fields else row
        media = {m: tuple(_fill_all(ways, named)) for m, ways in fields.get("media", {}).items()}
        if not any(media.values()):
            raise OmnisinkError("the row names no file")
        return Row(
            id=self._id(row),
            where=where,
            question=question,
            kind=kind,
            gold=self._gold(self._answer(row), kind, options, filed),
            options=options,
            filed=filed,
            **media,
            cluster=_fill(fields["cluster"], row, pair=self._index // 2) if "cluster" in fields else "",
            groups={g: found for g, key in fields.get("groups", {}).items() if (found := _group(row, key))},
            extra={name: text_of(row, key) for name, key in fields.get("extra", {}).items()},
        )

    def _options(self, row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        where = self.fields.get("options")
        if where is None:
            return (), ()
        given = [row[key] for key in where if row.get(key) is not None] if isinstance(where, list) else row.get(where)
        return split_options(given, self.odd) if given else ((), ())

    def _kind(self, row: Mapping[str, Any], has_options: bool) -> str:
        said = self.fields["kind"]
        if said == "auto":
            return "choice" if has_options else "yes-no"
        if isinstance(said, Mapping):
            value = value_of(row, said["of"])
            if not isinstance(value, str) or value not in said["map"]:
                raise OmnisinkError(f"{said['of']} is {value!r}, which is none of {', '.join(said['map'])}")
            said = said["map"][value]
        assert said in KINDS
        if said in ("choice", "several") and not has_options:
            raise OmnisinkError("there are no options")
        return str(said)

    def _answer(self, row: Mapping[str, Any]) -> str:
        answer, tag = text_of(row, self.fields["answer"]), self.fields.get("tag")
        if tag is None:
            return answer
        found = re.search(rf"<{tag}>\s*(.*?)\s*</{tag}>", answer, re.DOTALL)
        if found is None or not found[1]:
            raise OmnisinkError(f"there is nothing in <{tag}> and </{tag}>: {answer!r}")
        return found[1]

    def _gold(self, answer: str, kind: str, options: tuple[str, ...], filed: tuple[str, ...]) -> str:
        by_text = self.fields.get("answer_is") == "text"
        if kind == "choice":
            return find_letter(answer, options, filed, self.odd, by_text=by_text)
        if kind == "yes-no":
            return yes_or_no(answer)
        if kind == "several":
            letters = [part.strip() for part in answer.split(",")]
            return ",".join(sorted({find_letter(letter, options, filed, self.odd) for letter in letters}))
        return answer.strip()

    def _id(self, row: Mapping[str, Any]) -> str:
        template = self.fields["id"]
        same = _fill(template, row, index=self._index, n="")
        if "{n}" not in template:
            return same
        self._same[same] += 1
        return _fill(template, row, index=self._index, n=self._same[same])


class _Values(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise OmnisinkError(f"{key} is missing")


def _fill(template: str, row: Mapping[str, Any], **more: Any) -> str:
    """Fill a template of the task's own; values go in as they are, with whatever braces they hold."""
    for key in _keys(template):
        value = row.get(key, "")
        if isinstance(value, bool) or not (value is None or isinstance(value, str | int | float)):
            raise OmnisinkError(f"{key} must be a text or a number, got {value!r}")
    return template.format_map(_Values({k: v for k, v in row.items() if v is not None}, **more))


def _fill_all(templates: str | list[str], row: Mapping[str, Any]) -> Iterator[str]:
    there = {key for key, value in row.items() if value is not None}
    for template in [templates] if isinstance(templates, str) else templates:
        if _keys(template) <= there:
            yield _fill(template, row)


def _keys(template: str) -> set[str]:
    return {key for _, key, _, _ in Formatter().parse(template) if key}


def _group(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the groups of a key, or the one that a template makes of several keys where all of them are there."""
    if "{" not in key:
        return group(row.get(key))
    return (_fill(key, row),) if all(row.get(part) not in (None, "") for part in _keys(key)) else ()
