"""Keep the passes of several threads on one model apart, and notice a block that ends too early for one of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from omnisink.decoder import refusals

#: Seconds that the end of a block waits for other threads: what has given its last token returns at once, and what has
#: not is stopped at its next pass.
_PATIENCE = 30.0


class ThreadGuard:
    """Which threads run the model of one attachment.

    Threads may generate on one model in one block, one pass after another: what belongs to a prompt is kept on its
    cache. Two passes at a time would mix. A thread may go on generating for another that holds the block, as streaming
    does, as long as it is done when the block ends.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pass: int | None = None
        self._generating: Counter[int] = Counter()
        self._closed = False
        self._stopped: set[int] = set()

    def enter_pass(self) -> None:
        """Begin a pass, unless another thread is in one or the block is being left."""
        thread = threading.get_ident()
        with self._changed:
            if self._closed:
                self._stopped.add(thread)
                raise refusals.block_ended()
            if self._pass not in (None, thread):
                raise refusals.two_threads()
            self._pass = thread

    def leave_pass(self) -> None:
        """End the pass of this thread, if it is in one."""
        with self._changed:
            if self._pass == threading.get_ident():
                self._pass = None
                self._changed.notify_all()

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Note that this thread generates; raise afterwards if the block ended meanwhile."""
        thread = threading.get_ident()
        with self._changed:
            self._generating[thread] += 1
        try:
            yield
        finally:
            with self._changed:
                self._generating[thread] -= 1
                stopped = thread in self._stopped
                self._changed.notify_all()
        if stopped:
            raise refusals.half_generated()

    def close(self) -> bool:
        """Let no pass begin from now on, wait for what is at work, and return whether that had not come to its end."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._at_work(), _PATIENCE)
            left = self._at_work()
            own = threading.get_ident()
            self._stopped |= left | ({own} if self._generating[own] > 0 else set())
            return bool(self._stopped)

    def _at_work(self) -> set[int]:
        """Return the other threads that generate or are in a pass."""
        busy = {thread for thread, count in self._generating.items() if count > 0}
        if self._pass is not None:
            busy.add(self._pass)
        return busy - {threading.get_ident()}
