"""What reaches a terminal: no escape sequence, bell or mark that turns text around, whoever wrote it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from omnisink.cli.output import read_text, text
from omnisink.cli.terminal import Visible, console_class, visible
from omnisink.errors import OmnisinkError

#: A title, a bell, a cleared screen, the same in C1, text turned around, half a character, a line's separator.
HOSTILE = "a\x1b]0;owned\x07b\x1b[2J\x9b2J\x85\u202ec\u2066\u200f\ud800\u2028\x7f\rz"
SPELLED = (
    r"a\u001b]0;owned\u0007b\u001b[2J\u009b2J\u0085\u202ec\u2066\u200f\ud800\u2028\u007f\u000dz"
)  # fmt: skip
KEPT = "Ünï, שלום, العربية, 👩\u200d👧, ①\tx\n"


def test_what_a_terminal_obeys_is_spelled_out() -> None:
    assert visible(HOSTILE) == SPELLED
    assert visible(KEPT) == KEPT


def test_a_json_document_stays_the_same() -> None:
    data = {HOSTILE: [HOSTILE, KEPT]}
    assert json.loads(visible(json.dumps(data, ensure_ascii=False))) == data


def test_a_guarded_stream() -> None:
    inner = io.StringIO()
    stream = Visible(inner)
    print(HOSTILE, file=stream)
    stream.writelines([HOSTILE, "\n"])
    assert inner.getvalue() == f"{SPELLED}\n{SPELLED}\n"
    assert not stream.isatty()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_spells_out_texts_and_keeps_its_own_escapes(terminal: bool) -> None:
    file = io.StringIO()
    console = console_class()(file=file, force_terminal=terminal, width=200, color_system="standard")
    hostile = HOSTILE.replace("\ud800", "")
    table = Table(title=text(hostile))
    table.add_column(text(hostile))
    table.add_row(text(hostile))
    console.print(table)
    console.print(text(hostile))
    console.print("[bold]ours[/]")
    with Progress(TextColumn("{task.description}"), console=console) as bar:
        bar.add_task(hostile.replace("[", "("), total=1)
        console.print(text(hostile))
    with console.status(text(hostile)):
        pass
    written = file.getvalue()
    for raw in ("\x1b]", "\x07", "\x1b[2J\x9b", "\x9b", "\x85", "\u202e", "\u2066", "\u200f", "\u2028"):
        assert raw not in written
    assert "\\u001b]0;owned" in written
    assert "\x1b[1mours" in written


def complain(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "omnisink", *arguments], capture_output=True, timeout=120, check=False
    )


def test_an_error_is_one_clean_line(tmp_path: Path) -> None:
    for arguments in (
        ("compare", str(tmp_path / "x\x1b]0;owned\x07\u202e\x9b")),
        ("find", "--text", "x\x1b[2J\x07\u202e"),
        ("eval", "--\x1b[2J\x07"),
    ):
        done = complain(*arguments)
        assert done.returncode == 2
        assert done.stdout == b""
        line = done.stderr.decode("utf-8")
        assert line.count("\n") == 1
        assert line.startswith("omnisink: ")
        assert visible(line) == line
        assert "\\u001b" in line or "\\x1b" in line  # Typer spells some of it out itself.


def test_a_full_disk_where_the_output_goes_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "omnisink", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode() == "omnisink: the output could not be written: No space left on device\n"


@pytest.mark.parametrize(("path", "why"), [("/dev/zero", "has no end"), ("a\0b", "null"), ("/proc", "directory")])
def test_a_text_without_an_end_is_refused(path: str, why: str) -> None:
    if not Path(path).exists():
        assert path == "a\0b" or pytest.skip(f"{path} is not here")
    with pytest.raises(OmnisinkError, match=f"cannot read .*{why}"):
        read_text(path)
