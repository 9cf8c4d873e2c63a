"""What a comparison says: verdicts, and numbers as they are read."""

from __future__ import annotations

import pytest

from omnisink.evaluation.comparing.wording import HIGHER, LOWER, NO_EVIDENCE, verdict
from omnisink.results.wording import p_value, points


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "expected"),
    [
        (0.1, 0.02, 0.2, 0.01, HIGHER),
        (-0.1, -0.2, -0.02, 0.01, LOWER),
        (0.1, 0.02, 0.2, 0.05, NO_EVIDENCE),
        (0.1, 0.0, 0.2, 0.01, NO_EVIDENCE),
        (0.1, None, None, 0.01, NO_EVIDENCE),
    ],
)
def test_a_verdict_needs_both_the_test_and_the_interval(
    difference: float, low: float | None, high: float | None, p: float, expected: str
) -> None:
    pair = {"questions": 9, "difference": difference, "low": low, "high": high, "p_holm": p}
    assert verdict(pair) == expected


def test_numbers_as_they_are_read() -> None:
    assert [points(v) for v in (0.012, -0.012, 0.0001, -0.0001, None)] == ["+1.2", "−1.2", "0.0", "0.0", "–"]
    assert [p_value(v) for v in (0.0004, 0.0456, 1.0, None)] == ["< 0.001", "0.046", "1.000", "–"]
