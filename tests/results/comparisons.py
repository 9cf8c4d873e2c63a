"""What the tests of the statistics share."""

from __future__ import annotations

import pytest

from omnisink.results.statistics import Estimate

#: Enough drawings where the number does not matter.
FEW = 499


def alone(count: int) -> list[str]:
    """Name a cluster for each item."""
    return [f"item {i}" for i in range(count)]


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def near(first: Estimate, second: Estimate, shift: float = 0.0) -> None:
    for name in ("value", "low", "high"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None)
        assert a is None or a + shift == pytest.approx(b, abs=1e-9)
