"""A user's own task: a JSON Lines file of items."""

from __future__ import annotations

from pathlib import Path

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.benchmark import Task
from omnisink.evaluation.tasks.loaders.items import STRICT


def own_task(path: Path) -> Task:
    """Return the task of a file of items; its name is the file's, and nothing is read yet.

    Raises
    ------
    OmnisinkError
        If there is no such file.
    """
    if not path.is_file():
        raise OmnisinkError(f"{path}: there is no such file")
    return Task(
        name=path.stem,
        title=path.stem,
        paper="",
        licence="your own",
        size="",
        needs=(),
        sources=(str(path),),
        layout="the files that the questions name, beside the JSON Lines file or below it",
        loader="items",
        fields={"path": str(path)},
        annotations={"all": (path.name,)},
        sound="always",
        metric="accuracy",
        breakdowns=("category",),
        protocols={"strict": STRICT},
        default="strict",
    )
