"""The command line as it is typed, in this process: a process of its own spends seconds on importing PyTorch."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from omnisink.cli.app import main


def run(*words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Call `main` with streams of its own, and leave behind nothing of what it sets in the process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    streams = {"argv": ["omnisink", *words], "stdin": given, "stdout": out, "stderr": err, "excepthook": None}
    with (
        mock.patch.multiple(sys, **streams),
        # On a busy machine what takes a moment takes long enough to be told of.
        mock.patch("omnisink.cli.waiting.EVERY", 3600.0),
        mock.patch.dict(os.environ, {"COLUMNS": "100", **variables}),
        warnings.catch_warnings(),
        _loud_libraries(),
    ):
        try:
            main()
        except SystemExit as left:
            status = left.code
    return subprocess.CompletedProcess(words, status, *(s.buffer.getvalue().decode() for s in (out, err)))


@contextmanager
def _loud_libraries() -> Iterator[None]:
    """Put back what the command line tells transformers to be quiet about."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def run_in_process(*words: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m omnisink`` as a process of its own, for what only that can show."""
    return subprocess.run(
        [sys.executable, "-m", "omnisink", *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **variables},
        timeout=300,
        check=False,
    )


def refused(*words: str, stdin: str = "") -> str:
    """Type what must be refused, and return its one line."""
    done = run(*words, stdin=stdin)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("omnisink: ")
    return line
