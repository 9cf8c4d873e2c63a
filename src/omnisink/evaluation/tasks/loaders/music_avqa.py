"""MUSIC-AVQA: lists inside texts, placeholders in the questions, answers from a closed set, and the key ``anser``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.reading import read_rows
from omnisink.evaluation.tasks.rows import Bad, LeftOutError, Outcome, Row, Source, guarded, text_of

FIELDS: set[str] = set()
_PLACE = re.compile(r"<\w+>")


def load_music_avqa(source: Source) -> Iterator[Outcome]:
    """Read all questions. The closed set is the set of the answers in the file, in the order of the alphabet."""
    assert source.file is not None
    rows = list(read_rows(source.file))
    given = [found[1].get("anser") for found in rows if not isinstance(found, Bad)]
    words = tuple(sorted({a.strip() for a in given if isinstance(a, str) and a.strip()}))
    for found in rows:
        if isinstance(found, Bad):
            yield found
        else:
            yield guarded(found[0], _row, found[1], words)


def _row(where: str, row: Mapping[str, Any], words: tuple[str, ...]) -> Row:
    if row.get("question_deleted"):
        raise LeftOutError("the benchmark has deleted this question")
    kinds, values = _list(row, "type"), _list(row, "templ_values")
    if len(kinds) != 2:
        raise OmnisinkError(f"type must be two texts, got {kinds!r}")
    video = text_of(row, "video_id")
    return Row(
        id=text_of(row, "question_id"),
        where=where,
        question=_filled(text_of(row, "question_content"), values),
        kind="words",
        gold=text_of(row, "anser").strip(),
        words=words,
        video=(f"videos/{video}.mp4", f"{video}.mp4"),
        cluster=video,
        groups={"modality": (kinds[0],), "type": (" ".join(kinds),)},
    )


def _list(row: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of texts that the file holds as JSON inside a text."""
    text = text_of(row, key)
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
        raise OmnisinkError(f"{key} must be a list of texts, written as JSON in a text; got {text!r}")
    return found


def _filled(question: str, values: list[str]) -> str:
    places = len(_PLACE.findall(question))
    if places > len(values):
        raise OmnisinkError(f"the question has {places} places to fill, templ_values has {len(values)}: {question!r}")
    left = iter(values)
    return _PLACE.sub(lambda _: next(left), question)
