"""WorldSense: an object of videos, in each of which ``task0``, ``task1``, ... are the questions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.annotation_files import read_json
from omnisink.evaluation.tasks.odd import OddRows
from omnisink.evaluation.tasks.rows import (
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
)

_OF_TASK = ("task_domain", "task_type")
_OF_VIDEO = ("duration", "domain", "sub_category", "audio_class")


def load_worldsense(source: Source) -> Iterator[Outcome]:
    """Read all questions, video by video; there are three options or four."""
    assert source.file is not None
    videos = read_json(source.file)
    if not isinstance(videos, dict):
        raise OmnisinkError(f"{source.file}: must be an object of videos, not a {type(videos).__name__}")
    for name, video in videos.items():
        where = f"{source.file.name}, {name}"
        if not isinstance(video, dict):
            yield Bad(where, f"must be an object, not a {type(video).__name__}")
            continue
        tasks = [key for key in video if re.fullmatch(r"task\d+", key)]
        if not tasks:
            yield Bad(where, "the video has no question")
        for key in tasks:
            yield guarded(f"{where}, {key}", source.odd, _row, name, video, key, source.odd)


def _row(where: str, name: str, video: Mapping[str, Any], key: str, odd: OddRows) -> Row:
    task = video[key]
    if not isinstance(task, dict):
        raise OmnisinkError(f"must be an object, not a {type(task).__name__}")
    options, filed = split_options(task.get("candidates"), odd)
    found = {**{k: task.get(k) for k in _OF_TASK}, **{k: video.get(k) for k in _OF_VIDEO}}
    return Row(
        id=f"{name}/{key}",
        where=where,
        question=question_of(task, "question", odd),
        kind="choice",
        gold=find_letter(text_of(task, "answer"), options, filed, odd),
        options=options,
        filed=filed,
        video=(f"videos/{name}.mp4", f"{name}.mp4"),
        cluster=name,
        groups={k: g for k, v in found.items() if (g := group(v))},
    )
