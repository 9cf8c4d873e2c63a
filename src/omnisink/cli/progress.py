"""How far a long run is and how long it still takes: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from omnisink.cli.output import stderr, text
from omnisink.cli.waiting import beating, clock

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


class Tell(Protocol):
    """Called with how far a run is."""

    def __call__(self, done: float, total: float, what: str, phase: str = "") -> None:
        """Say that `done` of `total` is done, and what is being done; every phase has a bar of its own."""


class Pace:
    """How fast a run goes on average, from what it has done since it was begun or taken up again."""

    def __init__(self) -> None:
        self.began = self.at = time.monotonic()
        self.first: float | None = None
        self.done = self.total = self.step = 0.0

    def update(self, done: float, total: float) -> None:
        """Take down how far the run is."""
        if self.first is None:
            self.first, self.done, self.began = done, done, time.monotonic()
        if done > self.done:
            self.step = done - self.done
        self.done, self.total, self.at = done, total, time.monotonic()

    def left(self) -> float | None:
        """Return the seconds that are left, or None before anything is done.

        A step that takes longer than those before it does not use up the time of the steps that come after it.
        """
        gained = self.done - (self.first or 0.0)
        if self.first is None or gained <= 0:
            return None
        each = (self.at - self.began) / gained
        rest = self.total - self.done
        return max(0.0, rest * each - (time.monotonic() - self.at), (rest - self.step) * each)

    def words(self) -> str:
        """Say what is left: "0:02:10 left"."""
        if self.first is not None and self.done >= self.total:
            return "finishing"
        left = self.left()
        return "estimating" if left is None else f"{clock(math.ceil(left))} left"


@contextmanager
def progress_bar(*, percent: bool = False) -> Iterator[Tell]:
    """Show how far a run is: a bar for each phase on a terminal, and a line every ten seconds elsewhere.

    Parameters
    ----------
    percent : bool
        Show the share that is done, rather than how many of how many.

    Yields
    ------
    Tell
        To be called whenever the run has got further.
    """
    from rich import progress as rich

    console = stderr()
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), _done_column(percent))
    paces: dict[str, Pace] = {}
    tasks: dict[str, rich.TaskID] = {}
    said = ["starting"]
    with (
        rich.Progress(
            *columns, rich.TimeElapsedColumn(), _left_column(), console=console, disable=not console.is_terminal
        ) as bar,
        beating(console, lambda spent: f"{said[0]}, {clock(spent)} so far"),
    ):

        def tell(done: float, total: float, what: str, phase: str = "") -> None:
            pace = paces.setdefault(phase, Pace())
            pace.update(done, total)
            said[0] = f"{what}: {_written(done, total, percent)}, {pace.words()}"
            if phase not in tasks:
                tasks[phase] = bar.add_task(what, total=total, pace=pace)
            bar.update(tasks[phase], completed=done, total=total, description=what)

        yield tell
    if paces and not console.is_terminal:
        console.print(text(said[0].rsplit(",", 1)[0]))


def _written(done: float, total: float, percent: bool) -> str:
    return f"{done / total:.0%}" if percent else f"{done:,.0f} of {total:,.0f}"


def _done_column(percent: bool) -> ProgressColumn:
    from rich import progress as rich

    return rich.TextColumn("{task.percentage:>3.0f} %") if percent else rich.MofNCompleteColumn()


def _left_column() -> ProgressColumn:
    """Return a column of the time left; unlike that of rich, it keeps its estimate during a long step."""
    from rich import progress as rich

    class TimeLeft(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Any:
            return text(task.fields["pace"].words())

    return TimeLeft()
