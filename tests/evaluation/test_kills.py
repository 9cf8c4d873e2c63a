"""A run whose processes are killed: little is lost, nothing is asked twice, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from omnisink.evaluation.running.parts import read_parts, whole
from tests.skips import needs

pytestmark = [needs("/proc"), pytest.mark.slow]

QUESTIONS, METHODS = 100, "baseline,outro:gamma=0.5"
ANSWERS = 2 * QUESTIONS
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2", "-m")


@pytest.fixture(scope="module")
def long_task(tmp_path_factory) -> Path:
    """Write a task of so many questions that there is time to kill its processes."""
    path: Path = tmp_path_factory.mktemp("task") / "long.jsonl"
    rows = [
        {"id": f"q{i:03}", "question": f"which of these is it {i}", "choices": ["red", "blue"], "answer": "A"}
        for i in range(QUESTIONS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def processes(wanted: Callable[[list[bytes]], bool]) -> list[int]:
    """Return the processes whose command line is wanted."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if words and wanted(words):
            found.append(int(entry.name))
    return found


def ranks(folder: Path) -> list[int]:
    """Return what torchrun has started, or the one process where there is no launcher."""
    return processes(lambda words: str(folder).encode() in words and TORCHRUN[0].encode() not in words)


def actors(folder: Path) -> list[int]:
    """Return the actors that hold a model; Ray names its processes. Its own agents take up to a minute more to end."""
    return processes(lambda words: words[0].startswith(b"ray::MapWorker"))


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("records.jsonl"))


@pytest.mark.parametrize(
    ("prefix", "options", "workers", "everything"),
    [
        ((), (), None, ranks),
        (TORCHRUN, (), ranks, ranks),
        pytest.param((), ("--engine", "ray", "--workers", "2"), actors, actors, marks=needs("ray")),
    ],
    ids=["alone", "torchrun", "ray"],
)
def test_a_kill_loses_little_repeats_nothing_and_leaves_no_orphan(
    llama_folder, long_task, tmp_path, prefix, options, workers, everything
):
    folder = tmp_path / "run"
    words = [
        "eval",
        "--model",
        str(llama_folder),
        "--task",
        str(long_task),
        "--methods",
        METHODS,
        "--out",
        str(folder),
    ]
    command = [sys.executable, "-m", *prefix, "omnisink", *words, "--batch-size", "1", "--no-page", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def launch() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    launcher = launch()
    try:
        wait_for(lambda: lines(folder) > 20)
        if workers is not None:
            os.kill(workers(folder)[0], signal.SIGKILL)
            at_kill = lines(folder)
            wait_for(lambda: lines(folder) > at_kill + 20)  # What was killed is started anew, or the others go on.
        launcher.kill()
        launcher.communicate()
        wait_for(lambda: not everything(folder), 60)  # They notice that nobody waits for them.
    finally:
        launcher.kill()
        for orphan in everything(folder):
            os.kill(orphan, signal.SIGKILL)
    assert 20 < lines(folder) < ANSWERS
    assert not whole(folder, ANSWERS)
    again = launch()
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output.decode()[-3000:]
    assert b"accuracy" in output  # Whoever is last compares.
    assert whole(folder, ANSWERS)
    # No answer is written twice by one process; what two had in hand when one was killed counts once.
    assert len(read_parts(folder)) == ANSWERS
    assert lines(folder) == ANSWERS
    assert all(record["error"] is None for record in read_parts(folder))
