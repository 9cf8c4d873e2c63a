"""Start the processes of a run, print what they write as they write it, and settle what they leave open.

Checks run in processes of their own beside each other, measurements afterwards in one that has the machine to itself.
A process that its device fails, or that is killed, costs the case it was at; what it had left is run in a new one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import ROOT
from benchmarks.gpu.lines import Line
from benchmarks.gpu.options import CHECKS, MEASURES, Options
from benchmarks.gpu.table import line_text

#: How often the process that measures is started again.
_STARTS = 4
#: Seconds before the end at which nothing new is begun, and processes that still run are ended.
_MARGIN = 3.0
_NO_DEVICE = 3


class NoDevice(Exception):
    """The device is not there."""


class Run:
    """A run, and what has come of it so far.

    Attributes
    ----------
    lines : list of Line
        Results of all cases.
    where : dict
        Date, versions and machine, of the first process that said so.
    """

    def __init__(self, options: Options, workers: int) -> None:
        self.options = options
        self.workers = workers
        self.lines: list[Line] = []
        self.where: dict[str, Any] = {}
        self._planned: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        self._read = 0
        self._log = Path(options.results).with_suffix(".log")

    def everything(self) -> None:
        """Run what is asked for.

        Raises
        ------
        NoDevice
            If the device is not there.
        """
        parts = self.options.parts
        beside: list[tuple[str, Options]] = []
        if "checks" in parts:
            beside += [(kind, self.options) for kind in ("functions", "passes", "comparing", "compiling")]
        if "families" in parts:
            beside += [("families", replace(self.options, share=(k, self.workers))) for k in range(self.workers)]
        if self.options.device == "cpu":  # on two cores, one process at a time is faster
            for one in beside:
                self._together([one], self.options.deadline)
        elif beside:
            checked = [part for part in parts if part in CHECKS]
            limit = min(self.options.left(), self.options.part_limit)
            announce(checked, f"{len(beside)} processes beside each other, ended after {limit:.0f} s")
            self._together(beside, time.time() + limit)
        self._settle([part for part in parts if part in CHECKS])
        measured = tuple(part for part in parts if part in MEASURES)
        if measured:
            left = self.options.left()
            limit = min(left, self.options.part_limit)
            announce(measured, f"in turn, none begins a case after {limit:.0f} s of its own, ended after {left:.0f} s")
            self._measure(replace(self.options, parts=measured))
            self._settle(list(measured))

    def _measure(self, options: Options) -> None:
        """Measure in one process, and in another where that one broke down."""
        for _ in range(_STARTS):
            settled = {line.case for line in self.lines}
            (code,) = self._together([("timing", replace(options, done=tuple(settled)))], options.deadline)
            progress = {line.case for line in self.lines} | set(self._begun)
            if code == 0 or options.left() < 2 * _MARGIN or progress == settled:
                return
            for case in [case for case in self._begun if case not in {line.case for line in self.lines}]:
                self._add(
                    Line(
                        self._begun[case],
                        case,
                        "refused",
                        detail=f"its process ended with status {code}{self._last()}",
                    )
                )

    def _together(self, wanted: list[tuple[str, Options]], until: float) -> list[int]:
        """Run processes beside each other until all have ended, or there is no time left; return their statuses."""
        paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "HF_HUB_OFFLINE": "1"}
        if len(wanted) > 1:  # they share the cores
            surroundings["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // len(wanted)))
        with self._log.open("a", encoding="utf-8") as log:
            processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.gpu.worker", kind, options.to_json()],
                    cwd=ROOT,
                    env=surroundings,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for kind, options in wanted
            ]
            try:
                while any(p.poll() is None for p in processes) and time.time() < until - _MARGIN:
                    self._drain()
                    time.sleep(0.1)
            finally:
                for process in processes:
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                self._drain()
        codes = [process.returncode for process in processes]
        if _NO_DEVICE in codes:
            raise NoDevice(f"no {self.options.device} device can be used here")
        return codes

    def _drain(self) -> None:
        """Read what has been written since, and print it."""
        path = Path(self.options.results)
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for text in whole.decode().splitlines():
            values = json.loads(text)
            kind = values.pop("kind")
            if kind == "surroundings":
                self.where = self.where or values
            elif kind == "plan":
                self._planned[values["case"]] = values["part"]
            elif kind == "begin":
                self._begun[values["case"]] = values["part"]
            else:
                self._add(Line(**values))

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        print(line_text(line), flush=True)

    def _settle(self, parts: list[str]) -> None:
        """Say of every case that a process left open that it was not run, and of parts that came to nothing too."""
        for case, part in self._planned.items():
            if part in parts and case not in {line.case for line in self.lines}:
                why = "ended while it ran" if case in self._begun else "not begun"
                late = "out of time" if self.options.left() < 2 * _MARGIN else f"its process broke down{self._last()}"
                self._add(Line(part, case, "not run", detail=f"{why}: {late}"))
        for part in parts:
            if part not in {line.part for line in self.lines}:
                self._add(Line(part, "all of it", "not run", detail=f"no case was reached{self._last()}"))

    def _last(self) -> str:
        """Return the last line of the log, with its place."""
        said = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"; {self._log.name} ends with: {said[-1].strip()[:200]}" if said else ""


def announce(parts: Sequence[str], how: str) -> None:
    """Say which parts begin, and how long they may take."""
    print(f"{', '.join(parts)}: {how}", flush=True)
