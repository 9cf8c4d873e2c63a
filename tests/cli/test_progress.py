"""What is said while a run goes on: the time left, a line every ten seconds in a pipe, and how to go on."""

from __future__ import annotations

import io
import time
from typing import Any
from unittest import mock

import pytest
from rich.console import Console

from omnisink.cli import app, output, progress, waiting
from omnisink.cli.progress import Pace, progress_bar
from tests.cli.command import run


class Clock:
    """A clock that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_time_left_is_that_of_what_was_done_since_it_was_begun(clock: Clock) -> None:
    pace = Pace()
    pace.update(40, 100)  # Forty were there from the run before.
    assert (pace.left(), pace.words()) == (None, "estimating")
    clock.now += 10
    assert pace.left() is None
    pace.update(50, 100)
    assert pace.left() == 50
    clock.now += 5
    assert pace.words() == "0:00:45 left"
    # The running step takes far longer than the one before it: the forty after it still take their time.
    clock.now += 600
    assert pace.left() == 40
    pace.update(100, 100)
    assert pace.left() == 0


def test_nothing_left_is_said_of_a_run_that_was_whole(clock: Clock) -> None:
    pace = Pace()
    pace.update(7, 7)
    assert pace.left() is None
    assert pace.words() == "finishing"


def on_console(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> Console:
    made = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None, highlight=False)
    for module in (output, progress):
        monkeypatch.setattr(module, "stderr", lambda: made)
    return made


def test_a_terminal_never_shows_an_unknown_time(monkeypatch: pytest.MonkeyPatch) -> None:
    console = on_console(monkeypatch, terminal=True)
    with progress_bar() as tell:
        for done in range(4):
            tell(done, 3, "[answering]")
            time.sleep(0.15)
    shown = console.file.getvalue()
    assert "[answering]" in shown
    assert "3/3" in shown
    assert "estimating" in shown
    assert " left" in shown
    assert "-:--:--" not in shown


@pytest.mark.parametrize(("percent", "half"), [(True, "item 1: 50%, "), (False, "item 1: 1 of 2, ")])
def test_a_pipe_has_a_line_now_and_then_also_while_nothing_comes(
    monkeypatch: pytest.MonkeyPatch, percent: bool, half: str
) -> None:
    monkeypatch.setattr(waiting, "EVERY", 0.05)
    console = on_console(monkeypatch, terminal=False)
    with progress_bar(percent=percent) as tell:
        time.sleep(0.2)
        tell(0, 2, "item 1")
        time.sleep(0.1)
        tell(1, 2, "item 1")
        time.sleep(0.3)
        tell(2, 2, "results")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "starting, 0:00:00 so far"
    told = [line for line in lines if line.startswith(half)]
    assert len(told) >= 2
    assert all(line.endswith(" so far") and " left, " in line for line in told)
    assert lines[-1] == ("results: 100%" if percent else "results: 2 of 2")
    assert not any("\x1b" in line or "━" in line for line in lines)


def test_what_takes_less_says_nothing_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    console = on_console(monkeypatch, terminal=False)
    with output.working("loading"):
        pass
    assert console.file.getvalue() == ""
    monkeypatch.setattr(waiting, "EVERY", 0.05)
    with pytest.raises(KeyError), output.working("loading") as say:
        time.sleep(0.12)
        say("3 of 4 clips")
        time.sleep(0.12)
        raise KeyError
    told = console.file.getvalue()
    assert "loading, 0:00:00 so far\n" in told
    assert "3 of 4 clips, 0:00:00 so far\n" in told
    time.sleep(0.12)
    assert console.file.getvalue() == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("eval", "--task", "my file.jsonl", "--limit", "3"),
            "omnisink: stopped; what was done is kept. Go on with: omnisink eval --task 'my file.jsonl' --limit 3",
        ),
        (("study", "--quick"), "omnisink: stopped; what was done is kept. Go on with: omnisink study --quick"),
        (
            ("tune", "--out", "\x1b]0;x\x07"),
            "omnisink: stopped; what was done is kept. Go on with: omnisink tune --out",
        ),
        (("ask", "why?"), "omnisink: stopped"),
        (("models",), "omnisink: stopped"),
    ],
)
@pytest.mark.parametrize("stopped", [{"side_effect": KeyboardInterrupt}, {"return_value": 130}])
def test_who_stops_a_run_is_told_how_to_go_on(words: tuple[str, ...], said: str, stopped: dict[str, Any]) -> None:
    """Some versions of Typer let the interruption through, and others return its status."""
    with mock.patch.object(app, "app", **stopped):
        done = run(*words)
    assert done.returncode == 130
    assert done.stdout == ""
    _, line = done.stderr.splitlines()
    assert line.startswith(said) if "tune" in words else line == said
    assert "\x1b" not in line


def test_an_interruption_within_a_verb_is_told_too() -> None:
    with mock.patch("omnisink.cli.models._list", side_effect=KeyboardInterrupt):
        done = run("models")
    assert (done.returncode, done.stderr.strip()) == (130, "omnisink: stopped")
