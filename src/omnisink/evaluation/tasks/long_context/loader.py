"""The loader of long-context tasks: makes their questions as long as the model that is asked counts tokens.

A task's file says under ``fields``: ``generator``, a name of `GENERATORS`; ``lengths``, those where none are chosen;
and ``seeds``, one for each split.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError, shown
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.loaders.base import Loader, Request
from omnisink.evaluation.tasks.long_context.generate import DEPTHS, GENERATORS, PLACED, generate
from omnisink.evaluation.tasks.long_context.made import Made
from omnisink.evaluation.tasks.rows import Outcome, Row
from omnisink.evaluation.tasks.scoring import BETWEEN
from omnisink.questions.letters import LETTERS

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.benchmark import Task

#: Questions of each length where no limit is given.
EACH = 100
#: The longest length that is made; a model without a limit of its own would be given any.
LONGEST = 2**24


class LongContextLoader(Loader):
    """Makes questions; there is no data folder."""

    def check_fields(self, name: str, fields: Mapping[str, Any]) -> None:
        """Refuse fields that are unknown, and a generator that is."""
        super().check_fields(name, fields)
        if fields.get("generator") not in GENERATORS:
            raise OmnisinkError(
                f"unknown generator {shown(fields.get('generator'))}: use one of {', '.join(GENERATORS)}"
            )

    def check_settings(self, task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the lengths, each once and the shortest first."""
        chosen = super().check_settings(task, settings)
        lengths = chosen.get("lengths", task.fields["lengths"])
        if not lengths or not all(type(n) is int and 0 < n <= LONGEST for n in lengths):
            raise OmnisinkError(
                f"the lengths of {task.name} must be whole numbers of tokens from 1 to {LONGEST:,}, got "
                f"{shown(lengths)}"
            )
        return {"lengths": sorted(set(lengths))}

    def check_data(self, task: Task, data: str | Path | None, split: str) -> None:
        """Refuse a data folder."""
        if data is not None:
            self.folder(task, data)

    def is_slow(self, data: str | Path | None) -> bool:
        """Tell that making questions takes its time."""
        return True

    def folder(self, task: Task, data: str | Path | None) -> Path:
        """Refuse to name one."""
        raise OmnisinkError(f"{task.name} has no folder: its questions are made when they are asked")

    def draw(self, task: Task, request: Request) -> tuple[Path, list[Outcome | Instance]]:
        """Make as many questions as are wanted, the lengths and depths in turn."""
        lengths: Sequence[int] = request.settings["lengths"]
        if request.model is None:
            raise OmnisinkError(
                f"the questions of {task.name} are as long as a model counts tokens: give the model that is going to "
                "be asked, as in model=load_model(...)"
            )
        _check_context(request, max(lengths))
        wanted = list(_wanted(task, request, lengths))
        made: list[Outcome | Instance] = []
        for number, (length, index) in enumerate(wanted, 1):
            made.append(_row(task, request, length, index))
            if request.progress is not None:
                request.progress(number, len(wanted), "questions made")
        return Path(), made

    def scan(self, task: Task, data: str | Path | None, split: str) -> tuple[Path, Iterable[Outcome | Instance]]:
        """Refuse: there is nothing to be checked."""
        return self.folder(task, data), ()


def _check_context(request: Request, length: int) -> None:
    from omnisink.models.context import LongPromptWarning, check_length

    assert request.model is not None
    with warnings.catch_warnings():
        # Where long prompts are allowed, the first of them that is asked says so.
        warnings.simplefilter("ignore", LongPromptWarning)
        check_length(request.model, length, subject="a length of", remedy="take shorter --lengths")


def _wanted(task: Task, request: Request, lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return lengths and indices of the questions in the order in which they are asked."""

    def fits(length: int, index: int) -> bool:
        groups = _groups(task, length, index)
        return all(group in groups.get(kind, ()) for kind, group in request.where.items())

    if not any(fits(length, index) for length in lengths for index in range(len(DEPTHS))):
        return iter(())
    indices = range(EACH) if request.limit is None else count()
    pairs = ((length, index) for index in indices for length in lengths if fits(length, index))
    return islice(pairs, request.limit)


def _groups(task: Task, length: int, index: int) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {"length": (str(length),)}
    if task.fields["generator"] in PLACED:
        groups["depth"] = (f"{DEPTHS[index % len(DEPTHS)]:.0%}".replace("%", " %"),)
    return groups


def _row(task: Task, request: Request, length: int, index: int) -> Row:
    """Make a question that fits into a length together with the room for its answer."""
    from omnisink.evaluation.tasks.prompts import prompt_of

    model = request.model
    assert model is not None

    def row(made: Made) -> Row:
        chosen = request.protocol.kind == "choice"
        return Row(
            id=f"{task.name}/{request.split}/{length}/{index:04d}",
            where=f"{task.name}, question {index} of {length:,} tokens",
            question=made.choice if chosen else made.question,
            kind="choice" if chosen else "free",
            gold=LETTERS[made.right] if chosen else BETWEEN.join(made.answers),
            options=made.options if chosen else (),
            filed=made.options if chosen else (),
            groups=_groups(task, length, index),
            extra={"context": made.context},
        )

    def tokens(made: Made) -> int:
        instance = task.instance(row(made), request.protocol, Path(), {})
        return model.adapter.count_tokens(model, prompt_of(model, instance)) + instance.max_new_tokens

    seed = task.fields["seeds"][request.split]
    return row(generate(task.fields["generator"], length, seed, index, tokens)[0])
