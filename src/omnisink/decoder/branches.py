"""Which of several passes of one step runs now: the model's own, or a twin with other inputs or other methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: The model's own pass; its twins count from 1.
FIRST = 0

#: Hooks run in the thread that calls the model, so each thread has its own.
_CURRENT: ContextVar[int] = ContextVar("omnisink_branch", default=FIRST)


def current_branch() -> int:
    """Return the branch that runs in this thread: `FIRST`, or the number of a twin."""
    return _CURRENT.get()


@contextmanager
def running_branch(branch: int) -> Iterator[None]:
    """Run a twin for the length of a block."""
    token = _CURRENT.set(branch)
    try:
        yield
    finally:
        _CURRENT.reset(token)
