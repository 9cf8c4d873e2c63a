"""How every command prints: results to stdout, everything else to stderr, and what differs on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omnisink.cli.terminal import console_class, raw
from omnisink.cli.waiting import beating, clock
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from rich.console import Console


#: Exit status where a check failed, or some of what was asked could not be.
CHECK_FAILED = 1
#: Width of tables in a file or a pipe, which have none of their own.
_WIDE = 200
#: Bytes of a text that is run. No model's context holds a hundredth of it.
_LARGEST = 2**26


def stdout() -> Console:
    """Return a console for results. Colours and line breaks are added on a terminal only."""
    if sys.stdout.isatty():
        return console_class()(file=raw(sys.stdout), highlight=False)
    return console_class()(file=raw(sys.stdout), highlight=False, soft_wrap=True, width=_WIDE)


def stderr() -> Console:
    """Return a console for what is not a result."""
    return console_class()(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def text(value: str) -> Any:
    """Keep a text as it is: square brackets in an answer or a path are not markup."""
    from rich.text import Text

    return Text(value)


def note(message: str) -> None:
    """Say something on the side."""
    from rich.text import Text

    stderr().print(Text(message, style="dim"))


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on the terminal while something runs; elsewhere a line every ten seconds.

    Yields
    ------
    callable
        To be given other words when something else is being done.
    """
    console, said = stderr(), [message]
    with console.status(text(message)) as status, beating(console, lambda spent: f"{said[0]}, {clock(spent)} so far"):

        def say(words: str) -> None:
            said[0] = words
            status.update(text(words))

        yield say


def print_json(data: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def settings_checked() -> Iterator[None]:
    """Turn a `ValueError` of a method's settings into an error of the user's.

    Only settings are built inside: elsewhere a `ValueError` is a fault of the program and keeps its traceback.
    """
    try:
        yield
    except ValueError as error:
        raise OmnisinkError(str(error)) from error


def read_text(source: str) -> str:
    """Read a text from a file, or from stdin for ``-``.

    Parameters
    ----------
    source : str
        Path or ``-``.

    Returns
    -------
    str
        The text, without white space around it and without a byte order mark.

    Raises
    ------
    OmnisinkError
        If it cannot be read, is not UTF-8, or is empty.
    """
    where = "standard input" if source == "-" else source
    try:
        if source == "-":
            content = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(source, "rb") as file:
                content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise OmnisinkError(f"cannot read {where}: it is larger than {_LARGEST:,d} bytes, or has no end")
        found = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise OmnisinkError(f"cannot read {where}: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:  # A path with a zero byte is a ValueError.
        raise OmnisinkError(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise OmnisinkError(f"{where} is empty: there is nothing to run")
    return _unmarked(found, where)


def _unmarked(found: str, where: str) -> str:
    """Take a byte order mark off a text, which would be its first token, and refuse UTF-16 that passes for UTF-8."""
    if "\0" in found:
        raise OmnisinkError(f"cannot read {where}: it is not UTF-8 text")
    if not (rest := found.lstrip("\ufeff").strip()):
        raise OmnisinkError(f"{where} is empty: there is nothing to run")
    return rest


def write_text(path: str, content: str) -> None:
    """Write a file.

    Raises
    ------
    OmnisinkError
        If it cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    except (OSError, ValueError) as error:
        raise OmnisinkError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def check_writable(path: str) -> None:
    """Refuse a path that cannot be written, before minutes of work end there.

    Raises
    ------
    OmnisinkError
        If its folder is missing or closed, or it is a folder itself.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if "\0" in path:
        raise OmnisinkError(f"cannot write {path}: no path has a zero byte in it")
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise OmnisinkError(f"cannot write {path}: its folder is missing or closed, or it is a folder itself")


def quiet() -> None:
    """Keep the libraries' own bars, warnings and advice off the terminal; errors are raised and need none."""
    import warnings

    from transformers.utils import logging

    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
