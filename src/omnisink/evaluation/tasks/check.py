"""What is missing or wrong in a task's data folder, found before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from omnisink.errors import MediaError, OmnisinkError
from omnisink.evaluation.tasks.benchmark import Task
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.paths import StrayLinkError, find_file, has_sound
from omnisink.evaluation.tasks.questions import Progress
from omnisink.evaluation.tasks.remarks import remarks
from omnisink.evaluation.tasks.rows import Bad, Left, Row

Role = Literal["video", "audio", "image"]
ROLES: tuple[Role, ...] = ("video", "audio", "image")


@dataclass(frozen=True)
class Problem:
    """Something missing or wrong.

    Attributes
    ----------
    severity : {"error", "warning"}
        An error keeps questions from being asked; a warning does not.
    where : str
        A file, or a row of one.
    what : str
        What is wrong.
    """

    severity: Literal["error", "warning"]
    where: str
    what: str


@dataclass(frozen=True)
class Check:
    """What was looked at and found.

    Attributes
    ----------
    task, split : str
        What was checked.
    questions, files : int
        Questions that can be read, and different files that they name.
    left_out : mapping of str to int
        Why rows are no questions of the task, and how many.
    remarks : list of str
        A line for each kind of row that is left out or odd: how many, and the first.
    problems : list of Problem
        Errors first.
    """

    task: str
    split: str
    questions: int
    files: int
    left_out: dict[str, int]
    remarks: list[str]
    problems: list[Problem]

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "errors": self.errors}


def check_task(
    task: Task, data: str | Path | None = None, split: str | None = None, progress: Progress | None = None
) -> Check:
    """Look at everything that a run would need; every row, and every file once.

    Files are opened, which finds those that are missing, empty, cut off before their index, no media, of a shape that
    no model takes, or without the picture or the sound that is asked about, or without a decoder for it. They are not
    decoded to their ends.

    Parameters
    ----------
    task : Task
        What is checked.
    data : str or Path, optional
        The data folder; a user's own task needs none.
    split : str, optional
        Which split; None is the default.
    progress : callable, optional
        Called as files are opened.

    Returns
    -------
    Check
        All problems, not only the first.

    Raises
    ------
    OmnisinkError
        If the split is unknown or there is no folder.
    """
    split = task.check_split(split)
    folder, outcomes = task.source.scan(task, data, split)
    problems: list[Problem] = []
    rows: list[Row] = []
    instances: list[Instance] = []
    left: list[Left] = []
    try:
        for outcome in outcomes:
            if isinstance(outcome, Instance):
                instances.append(outcome)
            elif isinstance(outcome, Bad):
                problems.append(Problem("error", outcome.where, outcome.why))
            elif isinstance(outcome, Left):
                left.append(outcome)
            else:
                rows.append(outcome)
    except OmnisinkError as error:
        problems.append(Problem("error", task.name, str(error)))
    files: dict[tuple[Path, Role], str] = {}
    for instance in instances:
        paths = (instance.video, instance.audio, instance.image)
        named = {(path, role): instance.id for role, path in zip(ROLES, paths, strict=True) if isinstance(path, Path)}
        files = named | files
    strays: Counter[str] = Counter()
    for row in rows:
        found = _files(row, folder)
        if isinstance(found, StrayLinkError):
            strays[found.link] += 1
        elif isinstance(found, OmnisinkError):
            problems.append(Problem("error", row.where, str(found)))
        else:
            files |= {key: row.where for key in found if key not in files}
    problems += [_stray(strays)] if strays else []
    problems += _open_all(files, folder, bool(rows) and task.sound == "always", progress)
    problems += _silent(instances)
    problems += _count(task, split, rows) if rows else []
    said = remarks(task, [*rows, *left])
    counted = dict(Counter(outcome.why for outcome in left))
    asked = len(rows) + len(instances)
    return Check(task.name, split, asked, len({p for p, _ in files}), counted, said, _sorted(problems))


def _silent(instances: list[Instance]) -> list[Problem]:
    """Return a warning for every video whose sound a question leaves to the model, and that has none."""
    quiet = {i.video for i in instances if i.audio is False}
    return [
        Problem("warning", path.name, 'the video has no sound; a model that hears needs "audio": false in its rows')
        for path in dict.fromkeys(i.video for i in instances if i.video and i.audio is None)
        if path not in quiet and not has_sound(path)
    ]


def _stray(strays: Counter[str]) -> Problem:
    """Return one error for all links out of the folder: in a cache of links there is one for every file."""
    first, number = next(iter(strays)), strays.total()
    more = f"{len(strays) - 1:,} more links do so; " if strays.keys() - {first} else ""
    asked = f"{number:,} question{'' if number == 1 else 's'} would read through {'them' if more else 'it'}"
    return Problem("error", first, f"{StrayLinkError(first)} ({more}{asked})")


def _files(row: Row, folder: Path) -> list[tuple[Path, Role]] | OmnisinkError:
    """Return the files of a row, or why it may not read them."""
    named: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("video", row.video),
        ("audio", row.audio),
        ("image", row.image),
    )
    try:
        return [(find_file(folder, names), role) for role, names in named if names]
    except OmnisinkError as error:
        return error


def _open_all(
    files: dict[tuple[Path, Role], str], folder: Path, sound: bool, progress: Progress | None
) -> Iterator[Problem]:
    for number, ((path, role), where) in enumerate(files.items(), 1):
        name = path.relative_to(folder).as_posix()
        try:
            _open(path, role, sound)
        except MediaError as error:
            # The message begins with the whole path; the name below the data folder is told already.
            what = str(error).removeprefix(f"{path}: ")
            yield Problem("error", name, f"{what} (asked about in {where})")
        if progress is not None:
            progress(number, len(files), "files opened")


def _open(path: Path, role: Role, sound: bool) -> None:
    from omnisink.media import read_image
    from omnisink.media.kind import check_streams
    from omnisink.models.adapters.refusals import refuse_long_picture

    if role == "image":
        size = read_image(path)[0].shape
    else:
        size = check_streams(path, video=role == "video", sound=role == "audio" or sound)
    refuse_long_picture(path, *size[:2])


def _count(task: Task, split: str, rows: list[Row]) -> Iterator[Problem]:
    for name, expected in task.counts.get(split, {}).items():
        if name == "questions":
            found = {"questions": len(rows)}
            wanted = {"questions": expected}
        elif name == "videos":
            found = {"videos": len({row.cluster or next(iter(row.video), row.id) for row in rows})}
            wanted = {"videos": expected}
        else:
            found = Counter(group for row in rows for group in row.groups.get(name, ()))
            wanted = expected
        for group, number in wanted.items():
            if found.get(group, 0) != number:
                what = group if group == name else f"questions of {name} {group!r}"
                yield Problem("warning", task.name, f"{what}: {found.get(group, 0):,}, and {number:,} are published")


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.severity != "error")
