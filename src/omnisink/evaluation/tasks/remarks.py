"""What is said of rows that are left out, cannot be asked, or are odd: one line for each kind, not for each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING

from omnisink.evaluation.tasks.odd import WORDS
from omnisink.evaluation.tasks.rows import Bad, Left, Outcome, Row

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.benchmark import Task


def remarks(task: Task, outcomes: Iterable[Outcome]) -> list[str]:
    """Return a line for each kind of row that a reader of the numbers should know of.

    Parameters
    ----------
    task : Task
        What the rows are of.
    outcomes : iterable of outcomes
        All of its rows.

    Returns
    -------
    list of str
        How many there are of each kind, what was done with them, and where the first one is.
    """
    kept: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    bad: list[Bad] = []
    for outcome in outcomes:
        if isinstance(outcome, Row):
            for kind in outcome.odd:
                kept.setdefault(kind, []).append(outcome.where)
        elif isinstance(outcome, Left):
            left.setdefault(outcome.why, []).append(outcome.where)
        else:
            bad.append(outcome)
    lines = [
        f"{_rows(len(where))} {WORDS[kind].format(rule=task.odd_rows.get(kind))} {_are(where)} kept, as by the "
        f"benchmark's own program; the first: {where[0]}"
        for kind, where in kept.items()
    ]
    lines += [
        f"{_rows(len(where))} {_are(where)} left out: {why}; the first: {where[0]}" for why, where in left.items()
    ]
    return lines + remark_on_bad(task.name, bad)


def remark_on_bad(name: str, bad: Sequence[Bad]) -> list[str]:
    """Return the line about rows of `name`, a task, that cannot be asked; an empty list where there is no such row."""
    if not bad:
        return []
    listed = f"; `omnisink tasks check` of {name} lists all" if bad[1:] else ""
    return [
        f"{_rows(len(bad))} that cannot be asked {_are(bad)} left out; the first: {bad[0].where}: {bad[0].why}{listed}"
    ]


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


def _are(rows: Sized) -> str:
    return "is" if len(rows) == 1 else "are"
