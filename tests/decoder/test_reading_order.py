"""The list of files in `omnisink.decoder` is what a call of OutRo runs, and no longer than it was."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

import omnisink.decoder
from omnisink.methods import OutRo
from tests.reference_outro import prompt, tiny_llama

PACKAGE = Path(omnisink.__file__).parent
#: Lines of all files on the list, as they were counted last; files may shrink, and the number with them.
LINES = 3097


def listed() -> list[str]:
    names = re.findall(r"^\d+\. `([\w/]+\.py)`: \S", omnisink.decoder.__doc__ or "", re.M)
    return [name if "/" in name else f"decoder/{name}" for name in names]


def files_run_by_a_call() -> set[str]:
    """Files of the package of which a call runs at least one function; importing them does not count."""
    found: set[str] = set()

    def note(frame, event, argument):
        code = frame.f_code
        # Bodies of modules and of classes run when a file is imported.
        if event == "call" and code.co_flags & 0x02 and code.co_filename.startswith(str(PACKAGE)):
            found.add(str(Path(code.co_filename).relative_to(PACKAGE)))

    model, ids = tiny_llama(), prompt(9, (0, 4))
    sys.setprofile(note)
    try:
        with OutRo()(model) as trace:
            model.generate(ids, max_new_tokens=3, do_sample=False)
    finally:
        sys.setprofile(None)
    assert trace.relaxed
    assert trace.rotated_tokens
    return found


def test_the_list_is_what_a_call_runs(monkeypatch):
    assert not torch.compiler.is_compiling()
    names = listed()
    assert len(names) == len(set(names))
    assert files_run_by_a_call() == set(names)


def test_the_numbers_of_the_list_count():
    numbers = re.findall(r"^(\d+)\. `", omnisink.decoder.__doc__ or "", re.M)
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]


def test_there_is_no_more_to_read_than_there_was():
    lines = sum(len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in listed())
    assert LINES - 100 < lines <= LINES
