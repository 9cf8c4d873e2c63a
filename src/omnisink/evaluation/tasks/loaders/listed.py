"""A list of objects, one a question: what a task's file says under ``fields`` is where each thing is found in a row.

=============  =========================================================================================
``id``         Template over the row; ``{index}`` is the row's place from 0, ``{n}`` a running number of equal ids.
``question``   Key.
``options``    Key of a list, or of letters with texts; or a list of keys, of which those that are null are no options.
``answer``     Key; a letter, a text of an option, yes or no.
``tag``        The answer is inside this tag, as ``answer`` for ``<answer>A</answer>``.
``kind``       What an answer is; or ``{of: key, map: {value: kind}}``; or ``auto``: choice where there are options.
``media``      For video, audio and image: templates, the likeliest first. One whose key is missing is passed over.
``stem``       Key of a path; templates of media may then have ``{stem}``, its file name without suffix.
``cluster``    Template.
``groups``     Name of the group to key; a key that is not there is no group.
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
from omnisink.evaluation.tasks.reading import read_rows
from omnisink.evaluation.tasks.rows import (
    KINDS,
    Bad,
    LeftOutError,
    Outcome,
    Row,
    Source,
    find_letter,
    group,
    guarded,
    split_options,
    text_of,
    value_of,
    yes_or_no,
)

FIELDS = {
    "id",
    "question",
    "options",
    "answer",
    "tag",
    "kind",
    "media",
    "stem",
    "cluster",
    "groups",
    "extra",
    "leave_out",
}


def load_listed(source: Source) -> Iterator[Outcome]:
    """Read a flat list; see the module."""
    assert source.file is not None
    maker = RowMaker(source.fields)
    for found in read_rows(source.file):
        yield found if isinstance(found, Bad) else maker.outcome(*found)


class RowMaker:
    """Makes rows of objects that come one after the other, as ``fields`` say."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields
        self._index = -1
        self._same: Counter[str] = Counter()

    def outcome(self, where: str, row: Mapping[str, Any]) -> Outcome:
        """Return what one object is."""
        self._index += 1
        return guarded(where, self._row, row)

    def _row(self, where: str, row: Mapping[str, Any]) -> Row:
        fields = self.fields
        for rule in fields.get("leave_out", ()):
            if row.get(rule["of"]) in rule["is"]:
                raise LeftOutError(rule["why"])
        question = text_of(row, fields["question"])
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
            gold=_gold(self._answer(row), kind, options, filed),
            options=options,
            filed=filed,
            **media,
            cluster=_fill(fields["cluster"], row) if "cluster" in fields else "",
            groups={g: found for g, key in fields.get("groups", {}).items() if (found := group(row.get(key)))},
            extra={name: text_of(row, key) for name, key in fields.get("extra", {}).items()},
        )

    def _options(self, row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        where = self.fields.get("options")
        if where is None:
            return (), ()
        given = [row[key] for key in where if row.get(key) is not None] if isinstance(where, list) else row.get(where)
        return split_options(given) if given else ((), ())

    def _kind(self, row: Mapping[str, Any], has_options: bool) -> str:
        said = self.fields["kind"]
        if said == "auto":
            return "choice" if has_options else "yes-no"
        if isinstance(said, Mapping):
            value = value_of(row, said["of"])
            if value not in said["map"]:
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

    def _id(self, row: Mapping[str, Any]) -> str:
        template = self.fields["id"]
        same = _fill(template, row, index=self._index, n="")
        if "{n}" not in template:
            return same
        self._same[same] += 1
        return _fill(template, row, index=self._index, n=self._same[same])


def _gold(answer: str, kind: str, options: tuple[str, ...], filed: tuple[str, ...]) -> str:
    if kind == "choice":
        return find_letter(answer, options, filed)
    if kind == "yes-no":
        return yes_or_no(answer)
    if kind == "several":
        letters = [part.strip() for part in answer.split(",")]
        return ",".join(sorted({find_letter(letter, options, filed) for letter in letters}))
    return answer.strip()


class _Values(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise OmnisinkError(f"{key} is missing")


def _fill(template: str, row: Mapping[str, Any], **more: Any) -> str:
    """Fill a template of the task's own; values go in as they are, with whatever braces they hold."""
    return template.format_map(_Values({k: v for k, v in row.items() if v is not None}, **more))


def _fill_all(templates: str | list[str], row: Mapping[str, Any]) -> Iterator[str]:
    there = {key for key, value in row.items() if value is not None}
    for template in [templates] if isinstance(templates, str) else templates:
        if {key for _, key, _, _ in Formatter().parse(template) if key} <= there:
            yield _fill(template, row)
