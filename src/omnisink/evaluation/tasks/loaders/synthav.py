"""SynthAV: with no data at hand, the clips that are needed are rendered into the cache."""

from __future__ import annotations

import hashlib
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.loaders.base import Loader, Request
from omnisink.evaluation.tasks.loaders.listed import RowMaker
from omnisink.evaluation.tasks.questions import Progress
from omnisink.evaluation.tasks.rows import Outcome

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.benchmark import Task

#: Questions of a whole split. The test split has been reported with these since SmolOmni was made.
WHOLE = 1200


class SynthAVLoader(Loader):
    """Takes a folder of clips like any other, and renders clips where there is none."""

    def check_data(self, task: Task, data: str | Path | None, split: str) -> None:
        """Refuse a folder without annotations; no folder is none."""
        if data is not None:
            super().check_data(task, data, split)

    def is_slow(self, data: str | Path | None) -> bool:
        """Tell whether clips are rendered."""
        return data is None

    def folder(self, task: Task, data: str | Path | None) -> Path:
        """Return the folder of clips that is given."""
        if data is None:
            raise OmnisinkError(
                f"{task.name} needs no folder, its clips are rendered when they are asked about; to check one, give "
                "it with --data"
            )
        return super().folder(task, data)

    def draw(self, task: Task, request: Request) -> tuple[Path, list[Outcome | Instance]]:
        """Return the questions of a folder, or without one, questions drawn up to the limit, with their clips."""
        if request.data is not None:
            return super().draw(task, request)
        folder, drawn = draw_rows(task, request.split, request.limit, request.progress)
        return folder, [*drawn]


def cache_folder(split: str) -> Path:
    """Return where the clips of a split are kept: below ``$XDG_CACHE_HOME``, else below ``~/.cache``.

    The name holds a checksum of the generator's code, so that clips of another version are never taken for these.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"  # relative ones are to be ignored
    return base / "omnisink" / "synthav" / _version() / split


def draw_rows(
    task: Task, split: str, count: int | None = None, progress: Progress | None = None
) -> tuple[Path, list[Outcome]]:
    """Draw questions of a split and see to it that their clips are there.

    A draw of fewer questions is no prefix of the whole: ``draw_split(split, n)`` shares `n` over the categories. A
    question that both hold has the same id in both.

    Parameters
    ----------
    task : Task
        SynthAV.
    split : {"test", "tune"}
        Which split.
    count : int, optional
        How many questions; None is the whole, 1,200.
    progress : callable, optional
        Called as clips are rendered.

    Returns
    -------
    Path, list of Outcome
        The folder of the clips, and the questions in the order in which they were drawn.

    Raises
    ------
    OmnisinkError
        If a clip cannot be rendered or the cache cannot be written to.
    """
    from omnisink.synthav.dataset import draw_split

    drawn = draw_split(cast(Any, split), count or WHOLE)
    folder = cache_folder(split)
    _render(folder, [scene for scene, _ in drawn], progress)
    maker = RowMaker(task.fields)
    rows = [{"video": f"{q.clip}.mp4", **q.to_dict()} for _, questions in drawn for q in questions]
    return folder.resolve(), [maker.outcome(f"SynthAV, question {i}", row) for i, row in enumerate(rows, 1)]


def _render(folder: Path, scenes: list[Any], progress: Progress | None) -> None:
    from omnisink.synthav.render import render

    try:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [scene for scene in scenes if not (folder / f"{scene.name}.mp4").exists()]
        for number, scene in enumerate(wanted, 1):
            # Two processes may render the same clip; each has a file of its own, and the last one stays.
            part = folder / f"{scene.name}.{os.getpid()}.part"
            try:
                render(scene, part)
                part.replace(folder / f"{scene.name}.mp4")
            finally:
                part.unlink(missing_ok=True)
            if progress is not None:
                progress(number, len(wanted), "clips rendered")
    except OSError as error:
        raise OmnisinkError(f"{folder} could not be made or written to: {error.strerror or error}") from error


def _version() -> str:
    sources = sorted(f.name for f in files("omnisink.synthav").iterdir() if f.name.endswith(".py"))
    code = b"".join(files("omnisink.synthav").joinpath(name).read_bytes() for name in sources)
    return hashlib.sha256(code).hexdigest()[:8]
