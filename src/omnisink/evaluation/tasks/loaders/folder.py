"""One file of annotations for each of a benchmark's own tasks, each with a folder of media: MVBench and MLVU.

Under ``fields``: ``tasks`` is a mapping of the name to ``{file, folders, whole, left}``. ``file`` and ``folders`` are
names or lists of names, the likeliest first. ``whole`` are folders in which the videos are not cut to what is asked
about. ``left`` is why a task is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnisink.evaluation.tasks.annotation_files import read_rows
from omnisink.evaluation.tasks.rows import (
    Bad,
    Left,
    Missing,
    NotThereError,
    Outcome,
    Row,
    Source,
    find_letter,
    guarded,
    question_of,
    split_options,
    text_of,
    value_of,
)

FIELDS = frozenset({"tasks"})


def load_folder(source: Source) -> Iterator[Outcome]:
    """Read the tasks in the order in which they are named; see the module."""
    for name, task in source.fields["tasks"].items():
        files = [source.folder / f for f in _names(task["file"])]
        file = next((f for f in files if f.is_file()), None)
        if "left" in task:
            if file is not None:
                count = sum(1 for _ in read_rows(file))
                yield from (Left(f"{file.name}, row {i}", task["left"]) for i in range(1, count + 1))
            continue
        if file is None:
            yield Missing(str(_names(task["file"])[0]), "there is no such file")
            continue
        for number, found in enumerate(read_rows(file)):
            if isinstance(found, Bad):
                yield found
            else:
                yield guarded(found[0], source.odd, _row, found[1], source, name, task, number)


def _row(where: str, row: Mapping[str, Any], source: Source, name: str, task: Mapping[str, Any], number: int) -> Row:
    odd = source.odd
    options, filed = split_options(row.get("candidates"), odd)
    video = text_of(row, "video")
    return Row(
        id=f"{name}/{number:03d}",
        where=where,
        question=question_of(row, "question", odd),
        kind="choice",
        gold=find_letter(_answer(row), options, filed, odd, by_text=True),
        options=options,
        filed=filed,
        video=_videos(source.folder, task, row, video),
        cluster=f"{_names(task['folders'])[0]}/{video}",
        groups={"task": (name,)},
    )


def _answer(row: Mapping[str, Any]) -> str:
    """Return the text of the right answer, which may be blank: whether an option is so too is another question."""
    value = value_of(row, "answer")
    return value if isinstance(value, str) else text_of(row, "answer")


def _videos(folder: Path, task: Mapping[str, Any], row: Mapping[str, Any], video: str) -> tuple[str, ...]:
    """Return where the video may be; refuse one that is there only uncut, where the question is about a part of it."""
    places = tuple(f"{place}/{video}" for place in _names(task["folders"]))
    whole = [f"{place}/{video}" for place in _names(task.get("whole", []))]
    if row.get("start") is None and row.get("end") is None:
        return (*places, *whole)
    if any(_exists(folder / p) for p in places):
        return places
    if uncut := next((w for w in whole if _exists(folder / w)), None):
        raise NotThereError(
            f"the question is about {row.get('start')} to {row.get('end')} s of {uncut}, and omnisink reads files "
            f"whole: use the videos that are cut already, in {_names(task['folders'])[0]}"
        )
    return places


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name of a file
        return False


def _names(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given
