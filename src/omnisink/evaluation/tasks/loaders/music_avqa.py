"""MUSIC-AVQA: lists inside texts, placeholders in the questions, answers from a closed set, and the key ``anser``.

Under ``fields``: ``words``, the closed set, which the authors take from the file for training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.annotation_files import read_rows
from omnisink.evaluation.tasks.odd import LeftOutError
from omnisink.evaluation.tasks.rows import Bad, Outcome, Row, Source, guarded, text_of

FIELDS = frozenset({"words"})
_PLACE = re.compile(r"<\w+>")


def load_music_avqa(source: Source) -> Iterator[Outcome]:
    """Read all questions."""
    assert source.file is not None
    words = tuple(source.fields["words"])
    for found in read_rows(source.file):
        if isinstance(found, Bad):
            yield found
        else:
            yield guarded(found[0], source.odd, _row, found[1], words)


def _row(where: str, row: Mapping[str, Any], words: tuple[str, ...]) -> Row:
    if row.get("question_deleted"):
        raise LeftOutError("the benchmark has deleted this question")
    kinds, values = _list(row, "type"), _list(row, "templ_values")
    if len(kinds) != 2:
        raise OmnisinkError(f"type must be two texts, got {kinds!r}")
    video, answer = text_of(row, "video_id"), text_of(row, "anser").strip()
    if answer not in words:
        raise OmnisinkError(f"the answer {answer!r} is none of the {len(words)} words of the closed set")
    return Row(
        id=text_of(row, "question_id"),
        where=where,
        question=_filled(text_of(row, "question_content"), values),
        kind="words",
        gold=answer,
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
    except (ValueError, RecursionError):
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
