"""Cases and what came of them, one line of JSON each, written at once so that nothing is lost with a process."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.options import CHECKS, Options

#: The exit status of a process whose device answers no more: what is left is run in a new one.
BROKEN = 4


class Skip(Exception):
    """A case cannot be run here, which is not a failure."""


@dataclass
class Line:
    """The result of one case.

    Attributes
    ----------
    part, case : str
        Which.
    status : str
        ``"measured"``; ``"passed"`` or ``"failed"`` for a check; ``"refused"``, where what was to be measured cannot
        be done; ``"skipped"``, where it does not apply; ``"not run"``.
    p20, p50, p80 : float or None
        Percentiles of the ratio to the baseline.
    plain_ms : float or None
        The baseline's median time, for one step where steps are measured.
    pairs : int
        Pairs of runs.
    detail : str
        Further remark.
    data : dict
        Details for programs.
    """

    part: str
    case: str
    status: str
    p20: float | None = None
    p50: float | None = None
    p80: float | None = None
    plain_ms: float | None = None
    pairs: int = 0
    detail: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One thing to check or to measure; `run` returns the rest of its line, or raises. `needs` is in seconds."""

    part: str
    name: str
    run: Callable[[], dict[str, Any]]
    needs: float = 0.0


def append(path: str | Path, kind: str, value: dict[str, Any]) -> None:
    """Append one line to the results, whole and at once, also where several processes write."""
    line = json.dumps({"kind": kind, **value}) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def run_cases(cases: Iterable[Case], options: Options, healthy: Callable[[], bool]) -> None:
    """Run cases in turn and write what comes of each. A failure does not stop the rest, a broken device does.

    Parameters
    ----------
    cases : iterable of Case
        Cases to run; those that have a result are left out.
    options : Options
        Output file and time limit.
    healthy : callable
        Whether the device still answers, asked after a failure.
    """
    left = [case for case in cases if case.name not in options.done]
    for case in left:
        append(options.results, "plan", {"part": case.part, "case": case.name})
    begun: dict[str, float] = {}
    for case in left:
        spent = time.time() - begun.setdefault(case.part, time.time())
        if options.left() < case.needs or spent > options.part_limit:
            line = Line(case.part, case.name, "not run", detail="out of time")
            append(options.results, "line", asdict(line))
            continue
        append(options.results, "begin", {"part": case.part, "case": case.name})
        started, ends = time.perf_counter(), False
        line = Line(case.part, case.name, "passed" if case.part in CHECKS else "measured")
        try:
            for name, value in case.run().items():
                setattr(line, name, value)
        except Skip as error:
            line.status, line.detail = "skipped", str(error)
        except Exception as error:
            traceback.print_exc()
            line.status = "failed" if case.part in CHECKS else "refused"
            line.detail = described(error)
            ends = not healthy()
        line.data.setdefault("seconds", round(time.perf_counter() - started, 1))
        append(options.results, "line", asdict(line))
        if ends:
            raise SystemExit(BROKEN)


def described(error: BaseException) -> str:
    """Say in one line what was raised."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = said[0] if said else ""
    return text[:300] if isinstance(error, AssertionError) and text else f"{type(error).__name__}: {text}"[:300]
