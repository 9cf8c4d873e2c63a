"""Paired timing: two ways of doing the same, in turns, and the ratio of each pair."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

#: Does the work once and returns the seconds that count.
Timed = Callable[[], float]


@dataclass(frozen=True)
class Ratio:
    """The result of a series of pairs: percentiles of the ratio, and the baseline's median time in milliseconds."""

    p20: float
    p50: float
    p80: float
    plain_ms: float
    pairs: int


def rounded(ratio: Ratio) -> dict[str, object]:
    """Round for the history: more digits than the spread allows would say nothing."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(ratio).items()}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time one piece of work, until the device has finished it."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def compare(
    plain: Timed, changed: Timed, pairs: int, warm_up: int = 1, limit: float | None = None, fewest: int = 3
) -> Ratio:
    """Run both ways in turns; which comes first alternates, so that drift of the machine falls on both.

    Parameters
    ----------
    plain, changed : callable
        Do the work once and return the seconds that count.
    pairs : int
        Number of measured pairs.
    warm_up : int
        Number of pairs before that, which are not measured.
    limit : float, optional
        Seconds after which no further pair is begun, once there are as many as `fewest`.
    fewest : int
        Pairs that are run whatever they take.

    Returns
    -------
    Ratio
        Ratio of `changed` to `plain`.
    """
    for _ in range(warm_up):
        plain()
        changed()
    ratios, times = [], []
    begun = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for i in range(pairs):
            if limit is not None and i >= fewest and time.perf_counter() - begun > limit:
                break
            if i % 2:
                after, before = changed(), plain()
            else:
                before, after = plain(), changed()
            ratios.append(after / before)
            times.append(before)
    finally:
        gc.enable()
    # Of one pair, all percentiles are that pair.
    cuts = statistics.quantiles(ratios * 2 if len(ratios) == 1 else ratios, n=10, method="inclusive")
    return Ratio(cuts[1], statistics.median(ratios), cuts[7], statistics.median(times) * 1e3, len(ratios))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
