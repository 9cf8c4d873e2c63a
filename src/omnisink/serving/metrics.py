"""OutRo's numbers on the endpoint where vLLM has its own, `/metrics`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnisink.serving.counters import make_file, read_file

_PREFIX = "omnisink_outro_"
_HELP = {
    "requests": "Requests whose prompt was run",
    "requests_with_sinks": "Requests in whose prompt a sink was found",
    "tokens_rotated": "Tokens whose head outputs were rotated, counted once at each layer",
    "rows_relaxed": "Rows of sinks that were relaxed, counted once at each layer",
    "rows_not_relaxed": "Rows that were not relaxed because one layer had more than max_relaxed of them",
    "refusals": "Requests refused for what they said about OutRo",
}


class _Numbers:
    """A collector that reads the workers' file when somebody asks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.refused = 0

    def refuse(self) -> None:
        with self._lock:
            self.refused += 1

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        for name, value in {**read_file(self._path), "refusals": self.refused}.items():
            yield CounterMetricFamily(_PREFIX + name, _HELP[name] + ".", value=value)


_numbers: _Numbers | None = None


def install() -> None:
    """Show the numbers of the workers that this process is going to start. May be called again."""
    global _numbers
    if _numbers is not None:
        return
    from prometheus_client import REGISTRY

    _numbers = _Numbers(make_file())
    REGISTRY.register(_numbers)


def count_refusal() -> None:
    """Count a request that was refused."""
    if _numbers is not None:
        _numbers.refuse()


def current() -> dict[str, int]:
    """Return the numbers by name, for a process that has no server."""
    if _numbers is None:
        return {}
    return {**read_file(_numbers._path), "refusals": _numbers.refused}
