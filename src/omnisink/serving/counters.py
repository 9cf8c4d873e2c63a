"""Counters on the device while a model runs, and in a small file that the server's process reads.

A worker and the process that answers `/metrics` share no memory. The worker writes its totals into a file of a few
numbers, whose place the server hands down in the environment; nothing is sent, and reading never waits.
"""

from __future__ import annotations

import atexit
import mmap
import os
import struct
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from omnisink.serving.sequences import Prefill

#: Where the file is, for the processes that the server starts.
VARIABLE = "OMNISINK_SERVING_COUNTERS"
#: What is counted, in the order of the file.
NAMES = ("requests", "requests_with_sinks", "tokens_rotated", "rows_relaxed", "rows_not_relaxed")
_REQUESTS, _WITH_SINKS, _ROTATED, _RELAXED, _DROPPED = range(len(NAMES))
_FORM = struct.Struct(f"<{len(NAMES)}q")
#: Seconds between two looks at an accelerator's totals.
_INTERVAL = 1.0


def make_file() -> Path:
    """Make the file that workers started from this process write to, and delete it when this process ends."""
    handle, name = tempfile.mkstemp(prefix="omnisink-", suffix=".counters")
    os.write(handle, bytes(_FORM.size))
    os.close(handle)
    os.environ[VARIABLE] = name
    path = Path(name)
    atexit.register(path.unlink, missing_ok=True)
    return path


def read_file(path: Path) -> dict[str, int]:
    """Return the totals by name; zeros where the file is gone."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    return dict(zip(NAMES, _FORM.unpack(data if len(data) == _FORM.size else bytes(_FORM.size)), strict=True))


class Counters:
    """The totals of one worker.

    Parameters
    ----------
    slots : int
        Slots of sequences, without the one that is nobody's.
    device : torch.device
        Device of the model.
    publish : bool
        Whether this worker is the one that writes them down: under tensor parallelism all see the same.
    """

    def __init__(self, slots: int, device: torch.device, publish: bool) -> None:
        self._totals = torch.zeros(len(NAMES), dtype=torch.long, device=device)
        #: For every slot, at how many layers its sequence has a sink and is rotated.
        self._layers = torch.zeros(slots + 1, dtype=torch.long, device=device)
        self._key = -1
        self._continued = torch.zeros((), dtype=torch.long, device=device)
        self._written = (0,) * len(NAMES)
        self._copy: Tensor | None = None
        self._ready: torch.cuda.Event | None = None
        self._looked = 0.0
        self._file: mmap.mmap | None = None
        name = os.environ.get(VARIABLE)
        if publish and name and Path(name).is_file():
            with open(name, "r+b") as file:
                self._file = mmap.mmap(file.fileno(), _FORM.size)

    def begin(self, slot: int, first: bool, null_slot: int) -> None:
        """Count a request that starts, and forget what its slot held."""
        if first:
            self._totals[_REQUESTS] += 1
        if slot != null_slot:
            self._layers[slot] = 0

    def prompt_ran(self, one: Prefill) -> None:
        """Count what was done to a prompt, all layers at once.

        After a preemption only the last of its tokens is new: it had been drawn, and not run.
        """
        if one.packed is None and not one.found:
            return
        if one.packed is None:
            sinks = torch.stack(one.found)
        else:
            prompt = slice(one.start, one.start + one.prompt)
            sinks = one.packed.marks[:, prompt]
            if one.first:
                self.rows_relaxed((one.packed.stamps[0, prompt] > 0).sum())
        has_sink = sinks.any(dim=1)
        if one.first:
            self._totals[_WITH_SINKS] += has_sink.any()
        if one.settings.gamma == 0:
            return
        self._layers[one.slot] = layers = has_sink.sum()
        if one.first:
            rotated = (sinks.cumsum(dim=0) == 0).sum(dim=1) * has_sink
            self._totals[_ROTATED] += rotated.sum()
        elif one.settings.decode:
            self._totals[_ROTATED] += layers

    def continued(self, slots: Tensor, gammas: Tensor, key: int) -> None:
        """Count the generated tokens that a pass is going to rotate, once for each layer.

        On a CPU the number is the same as for the pass before where `key` is; on an accelerator it may not be known.
        """
        if key != self._key or slots.device.type != "cpu":
            self._key = key
            self._continued = (self._layers[slots] * (gammas[slots] != 0)).sum()
        self._totals[_ROTATED] += self._continued

    def rows_relaxed(self, count: Tensor) -> None:
        """Count relaxed rows."""
        self._totals[_RELAXED] += count

    def rows_dropped(self, count: Tensor) -> None:
        """Count rows that were not relaxed because there were more than `max_relaxed`."""
        self._totals[_DROPPED] += count
        self._totals[_RELAXED] -= count

    def publish(self) -> None:
        """Write the totals down where they have changed; of an accelerator once in a while, without waiting."""
        if self._totals.device.type == "cpu":
            self._write(tuple(self._totals.tolist()))
            return
        if self._ready is not None and self._ready.query() and self._copy is not None:
            self._write(tuple(self._copy.tolist()))
            self._ready = None
        now = time.monotonic()
        if self._ready is None and now - self._looked > _INTERVAL:
            self._looked = now
            if self._copy is None:
                self._copy = torch.empty_like(self._totals, device="cpu", pin_memory=True)
            self._copy.copy_(self._totals, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()

    @property
    def totals(self) -> dict[str, int]:
        """The totals by name; waits for the device."""
        return dict(zip(NAMES, self._totals.tolist(), strict=True))

    def _write(self, totals: tuple[int, ...]) -> None:
        if totals != self._written and self._file is not None:
            self._file[: _FORM.size] = _FORM.pack(*totals)
        self._written = totals
