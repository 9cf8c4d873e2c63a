"""Runs of more than one process: killed and taken up again, and never two at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from omnisink.errors import OmnisinkError
from omnisink.results.records import Records, read_records, start

WRITER = """
import sys, time
from omnisink.results.records import Records, start

folder, count, padding = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start(folder, {"count": count})
with Records(folder, ("item",)) as records:
    print("open", flush=True)
    for item in range(count):
        if not records.done(item):
            records.append({"item": item, "said": "é" * (padding * (item % 7))})
            print(item, flush=True)
    print("done", flush=True)
    if count == 0:
        time.sleep(60)
"""


@contextmanager
def writer(folder: Path, count: int, padding: int) -> Iterator[tuple[subprocess.Popen[str], TextIO]]:
    """Begin a writer; it says "open", the number of each item once it is written, and "done"."""
    arguments = [sys.executable, "-c", WRITER, str(folder), str(count), str(padding)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield process, process.stdout
        finally:
            process.kill()


def test_nothing_is_lost_or_repeated_when_the_process_is_killed(tmp_path: Path) -> None:
    count, kills, between, padding = 400, 8, 30, 20_000
    written: list[int] = []
    for kill in range(kills):
        with writer(tmp_path, count, padding) as (process, says):
            written += [int(says.readline()) for _ in range(between)]
            time.sleep(0.0005 * kill)  # each time at another moment of writing
            process.kill()
            written += [int(line) for line in says.read().split()]
            assert process.wait() == -signal.SIGKILL
        there = [record["item"] for record in read_records(tmp_path)]
        assert there == list(range(len(there))), "in order, each once"
        assert set(written) <= set(there), "what was written is there"
        assert len(there) < count, "the run ended before it could be killed: write more"
    with writer(tmp_path, count, padding) as (process, says):
        *rest, last = says.read().split()
        assert process.wait() == 0
    assert last == "done"
    written += map(int, rest)
    records = read_records(tmp_path)
    assert [record["item"] for record in records] == list(range(count))
    assert all(record["said"] == "é" * (padding * (record["item"] % 7)) for record in records)
    assert len(written) == len(set(written)), "nothing was done twice"


def test_two_processes_never_write_one_run(tmp_path: Path) -> None:
    with writer(tmp_path, 0, 0):
        for use in (lambda: Records(tmp_path, ("item",)), lambda: start(tmp_path, {"count": 0})):
            with pytest.raises(OmnisinkError, match="another process is writing this run"):
                use()
        assert read_records(tmp_path) == [], "reading needs no lock"
    start(tmp_path, {"count": 0})
    with Records(tmp_path, ("item",)), pytest.raises(OmnisinkError, match="another process is writing this run"):
        Records(tmp_path, ("item",))
