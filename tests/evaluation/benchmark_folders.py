"""The fixtures as data folders: annotations as they are, and a file for every name in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omnisink.evaluation.tasks.rows import Row
from omnisink.evaluation.tasks.task import Task, find_task

FIXTURES = Path(__file__).parent / "fixtures"
#: Tasks that need a folder.
NAMES = tuple(sorted(folder.name for folder in FIXTURES.iterdir()))


def rows_of(task: Task, folder: Path, split: str | None = None) -> list[Row]:
    return [o for o in task.outcomes(folder.resolve(), task.check_split(split)) if isinstance(o, Row)]


def lay_out(name: str, folder: Path, content: bytes = b"content") -> Path:
    """Copy a fixture and put a file wherever a row first looks for one."""
    shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
    for row in rows_of(find_task(name), folder):
        for names in (row.video, row.audio, row.image):
            if names:
                path = folder / names[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    return folder


def load(name: str, folder: Path, protocol: str | None = None, **options: Any):
    return find_task(name).load(lay_out(name, folder), protocol, **options)
