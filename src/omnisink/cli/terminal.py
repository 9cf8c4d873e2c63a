"""The one place where text goes to the terminal: nothing that a terminal would obey, or that turns a line, gets out.

File names, questions, answers and error texts come from data that somebody else has made. Written as they are, an
escape sequence in them could set the window's title, hide lines or paint false ones. Each such character is spelled as
JSON and Python spell it, so that a JSON document stays the same document.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

#: Controls but tab and newline, code points that are not characters, separators of lines, and marks that reorder text.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def visible(text: str) -> str:
    r"""Spell out what a terminal would obey: ESC is ``\u001b``, a mark that turns the writing around ``\u202e``."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Visible:
    """A stream of text that spells out what a terminal would obey; all else is the stream's own.

    Parameters
    ----------
    stream : TextIO
        Where the text goes. A console, whose colours are escapes of our own, is given this stream itself.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard() -> None:
    """Let what is printed, and the traceback of a fault of the program, pass through `visible`."""
    if not isinstance(sys.stdout, Visible):
        sys.stdout = Visible(sys.stdout)
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))


def raw(stream: TextIO) -> TextIO:
    """Return the stream under a guarded one."""
    return stream.stream if isinstance(stream, Visible) else stream


@lru_cache
def console_class() -> type[Console]:
    """Return rich's console, which spells out what its texts hold and writes its own escapes as they are."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=visible(segment.text))

    return VisibleConsole
