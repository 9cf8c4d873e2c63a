"""LVBench: a video a line, with its questions, whose options are inside the text of the question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.annotation_files import read_rows
from omnisink.evaluation.tasks.odd import OddRows
from omnisink.evaluation.tasks.rows import (
    Bad,
    Outcome,
    Row,
    Source,
    find_letter,
    group,
    guarded,
    split_options,
    text_of,
)

#: The question with its options, as the file has them.
TEXT_FIELDS = frozenset({"whole"})


def load_lvbench(source: Source) -> Iterator[Outcome]:
    """Read all questions; each counts in all of its types."""
    assert source.file is not None
    for found in read_rows(source.file):
        if isinstance(found, Bad):
            yield found
            continue
        where, video = found
        questions = video.get("qa")
        if not isinstance(questions, list) or not questions:
            yield Bad(where, "the video has no question")
            continue
        for number, question in enumerate(questions, 1):
            yield guarded(f"{where}, question {number}", source.odd, _row, video, question, source.odd)


def _row(where: str, video: Mapping[str, Any], asked: Any, odd: OddRows) -> Row:
    if not isinstance(asked, dict):
        raise OmnisinkError(f"must be an object, not a {type(asked).__name__}")
    key, whole = text_of(video, "key"), text_of(asked, "question")
    question, *parts = re.split(r"\n(?=\([A-Z]\))", whole)
    options, filed = split_options([part.strip() for part in parts], odd)
    if options == filed:
        raise OmnisinkError(f"the options in the question are not (A), (B), (C), ...: {whole!r}")
    kinds = {"type": asked.get("question_type"), "video_type": video.get("type")}
    return Row(
        id=text_of(asked, "uid"),
        where=where,
        question=question,
        kind="choice",
        gold=find_letter(text_of(asked, "answer"), options, filed, odd),
        options=options,
        filed=filed,
        video=(f"videos/{key}.mp4", f"{key}.mp4"),
        cluster=key,
        groups={k: found for k, v in kinds.items() if (found := group(v))},
        extra={"whole": whole},
    )
