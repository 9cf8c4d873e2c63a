"""Signs of life where stderr is no terminal: a line every ten seconds, and nothing of what takes less."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Seconds between two lines.
EVERY = 10.0


@contextmanager
def beating(console: Console, say: Callable[[float], str]) -> Iterator[None]:
    """Print what `say` returns every ten seconds while something runs, unless the console is a terminal.

    Parameters
    ----------
    console : Console
        Where the lines go.
    say : callable
        Given the seconds since the beginning, returns a line. It is called in a thread of its own.
    """
    if console.is_terminal:
        yield
        return
    from rich.text import Text

    ended, began = threading.Event(), time.monotonic()

    def beat() -> None:
        while not ended.wait(EVERY):
            console.print(Text(say(time.monotonic() - began)))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def clock(seconds: float) -> str:
    """Write a time as hours, minutes and seconds: ``"0:01:05"``."""
    return str(timedelta(seconds=int(seconds)))
