"""A user's own file of items, which says of every question itself how it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks import answers
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.loaders.base import Loader, Request
from omnisink.evaluation.tasks.protocol import Protocol
from omnisink.evaluation.tasks.rows import Bad, Outcome
from omnisink.questions.letters import LETTERS

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.benchmark import Task
    from omnisink.questions.items import Item

STRICT = Protocol(
    name="strict",
    text="{question}",
    parser="letter",
    max_new_tokens=16,
    source="omnisink: choices with letters, yes or no where the answer is one, else the text itself",
)


class ItemLoader(Loader):
    """Reads the file that a task's fields name; its files lie beside it, so that there is no data folder to give."""

    def check_data(self, task: Task, data: str | Path | None, split: str) -> None:
        """Refuse nothing: whether the file is there was seen when the task was made of it."""

    def folder(self, task: Task, data: str | Path | None) -> Path:
        """Return the folder of the file."""
        return Path(task.fields["path"]).resolve().parent

    def data_words(self, task: Task) -> str:
        """Return the path of the file, by which the task is named."""
        return str(task.fields["path"])

    def draw(self, task: Task, request: Request) -> tuple[Path, list[Outcome | Instance]]:
        """Return every item as an instance, and every row that cannot be used."""
        return self.folder(task, None), list(scan_items_of(task, request.protocol))

    def scan(self, task: Task, data: str | Path | None, split: str) -> tuple[Path, Iterable[Outcome | Instance]]:
        """Return the same, one after the other."""
        return self.folder(task, None), scan_items_of(task, STRICT)


def scan_items_of(task: Task, protocol: Protocol) -> Iterator[Instance | Bad]:
    """Yield every item of a user's file as an instance, and every row that cannot be used.

    Raises
    ------
    OmnisinkError
        If the file cannot be read or holds no item.
    """
    from omnisink.questions.items import scan_items

    path = Path(task.fields["path"])
    line = 0
    for line, found in scan_items(path, check_files=False):
        if isinstance(found, OmnisinkError):
            yield Bad(f"{path.name}:{line}", str(found))
        elif found.passage is not None:
            yield Bad(f"{path.name}:{line}", f"{found.id} is a passage, which has no answer to be scored")
        else:
            yield _instance(found, protocol)
    if not line:
        raise OmnisinkError(f"{path}: there is no item in the file")


def _instance(item: Item, protocol: Protocol) -> Instance:
    from omnisink.questions.choices import with_choices

    free = not item.choices and item.answer not in ("yes", "no")
    given = tuple(LETTERS[: len(item.choices)]) if item.choices else () if free else ("yes", "no")
    instance = Instance(
        id=item.id,
        text=with_choices(item.question, item.choices),
        gold=item.answer,
        answers=given,
        parser="letter" if item.choices else "exact" if free else "yes_no",
        cluster=item.cluster,
        video=item.video,
        image=item.image,
        audio=item.audio,
        system=protocol.system,
        max_new_tokens=protocol.max_new_tokens if not free else 64,
        options=item.choices,
        groups={} if item.category is None else {"category": (item.category,)},
    )
    # A free answer is told as the parser tells what the model says.
    return replace(instance, gold=answers.exact(item.answer, instance) or item.answer) if free else instance
