"""Which of several passes of one step runs now: the model's own, or a twin with other inputs or other methods."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

#: The model's own pass; its twins count from 1.
FIRST = 0
#: A pass over the sequences of all twins. Methods that act in one branch do not act in it.
TOGETHER = -1

#: Hooks run in the thread that calls the model, so each thread has its own.
_CURRENT: ContextVar[int] = ContextVar("omnisink_branch", default=FIRST)


@dataclass(frozen=True)
class InBranch:
    """Whose state it is that belongs to a method, or anything else, in one branch only."""

    owner: Hashable
    branch: int


def current_branch() -> int:
    """Return the branch that runs in this thread: `FIRST`, the number of a twin, or `TOGETHER`."""
    return _CURRENT.get()


@contextmanager
def running_branch(branch: int) -> Iterator[None]:
    """Run a twin, or all together, for the length of a block."""
    token = _CURRENT.set(branch)
    try:
        yield
    finally:
        _CURRENT.reset(token)
