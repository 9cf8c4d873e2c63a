"""What a loader is: where the questions of a kind of task come from, and all that is special about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.odd import OddRows
from omnisink.evaluation.tasks.paths import is_file
from omnisink.evaluation.tasks.protocol import Protocol
from omnisink.evaluation.tasks.questions import Progress, with_own_id
from omnisink.evaluation.tasks.rows import Outcome, Row, RowReader, Source

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.benchmark import Task
    from omnisink.models.loaded import Loaded


@dataclass(frozen=True)
class Request:
    """Which questions of a task are wanted.

    Attributes
    ----------
    protocol : Protocol
        How they are asked.
    split : str
        Of the task.
    data : str, Path or None
        The data folder.
    limit : int or None
        The largest number of questions. A loader that makes its questions makes no more; of others the first are kept.
    where : mapping of str to str
        Only questions of these groups are kept.
    settings : mapping
        What the loader lets a user choose, by the names of its `settings`.
    model : Loaded or None
        What is going to be asked, for a loader that needs to know.
    progress : callable or None
        Called with how many are done, how many there are and what they are, where that takes long.
    """

    protocol: Protocol
    split: str
    data: str | Path | None = None
    limit: int | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Loaded | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Loader:
    """Reads the questions of a task out of a file of annotations in a data folder; others derive from it.

    Attributes
    ----------
    rows : callable or None
        Reads the file, row by row.
    fields : frozenset of str
        What a task's file can tell it, under ``fields``.
    text_fields : frozenset of str
        What its rows hold for the templates of protocols, beside what all rows do.
    settings : frozenset of str
        What a user can choose when questions are made, as ``lengths``.
    needs_model : bool
        Whether its questions depend on the model that is asked.
    """

    rows: RowReader | None = None
    fields: frozenset[str] = frozenset()
    text_fields: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    needs_model: bool = False

    def check_fields(self, name: str, fields: Mapping[str, Any]) -> None:
        """Refuse what a task's file says under ``fields`` and this loader, called `name`, does not know."""
        if unknown := sorted(fields.keys() - self.fields):
            raise OmnisinkError(
                f"the loader {name} has no field {unknown[0]!r}: use {', '.join(sorted(self.fields)) or 'none'}"
            )

    def check_settings(self, task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with defaults for those that are not given; an `OmnisinkError` says what is wrong."""
        if unknown := sorted(settings.keys() - self.settings):
            raise OmnisinkError(f"{task.name} has no {unknown[0]} to choose: its questions are what they are")
        return dict(settings)

    def check_data(self, task: Task, data: str | Path | None, split: str) -> None:
        """Refuse a data folder without annotations, before anything is read."""
        self.annotations(task, self.folder(task, data), split)

    def is_slow(self, data: str | Path | None) -> bool:
        """Tell whether `draw` takes its time, as rendering does."""
        return False

    def folder(self, task: Task, data: str | Path | None) -> Path:
        """Return the data folder, resolved; an `OmnisinkError` says what it should be."""
        if data is None:
            raise OmnisinkError(f"{task.name} needs its data: give the folder with --data. It holds: {task.layout}")
        path = Path(data)
        if not path.is_dir():
            raise OmnisinkError(f"{data}: there is no such folder")
        return path.resolve()

    def data_words(self, task: Task) -> str:
        """Return how the task and its data are named on the command line."""
        return f"{task.name} --data DIR"

    def draw(self, task: Task, request: Request) -> tuple[Path, list[Outcome | Instance]]:
        """Return the data folder and what every row is.

        Raises
        ------
        OmnisinkError
            If there is no file of annotations, or it cannot be read at all.
        """
        folder = self.folder(task, request.data)
        return folder, list(self.outcomes(task, folder, request.split))

    def scan(self, task: Task, data: str | Path | None, split: str) -> tuple[Path, Iterable[Outcome | Instance]]:
        """Return the data folder and all rows, one after the other, to be checked; errors as for `draw`."""
        folder = self.folder(task, data)
        return folder, self.outcomes(task, folder, split)

    def outcomes(self, task: Task, folder: Path, split: str) -> Iterator[Outcome]:
        """Yield what every row of the annotations is; an id that was used before makes a row odd."""
        assert self.rows is not None
        file = self.annotations(task, folder, split)
        seen: dict[str, str] = {}
        odd = OddRows(task.odd_rows)
        for outcome in self.rows(Source(folder, file, task.fields, odd)):
            found = with_own_id(outcome, seen, odd) if isinstance(outcome, Row) else outcome
            if isinstance(found, Row):
                seen[found.id] = found.where
            yield found

    def annotations(self, task: Task, folder: Path, split: str) -> Path | None:
        """Return the file of annotations of a split; None where there is none to be."""
        names = task.annotations[split]
        file = next((folder / name for name in names if is_file(folder / name)), None)
        if names and file is None:
            raise OmnisinkError(f"{folder}: the annotations of {task.name} are not there: {' or '.join(names)}")
        return file
