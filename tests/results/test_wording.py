"""Numbers in words: one form for each kind of number, whoever writes it."""

from __future__ import annotations

from typing import Any

import pytest

from omnisink.results import wording as words


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (words.percent(0.6134), "61.3%"),
        (words.percent(None), "–"),
        (words.points(0.0123), "+1.2"),
        (words.points(-0.0123), "−1.2"),
        (words.points(-0.00001), "0.0"),
        (words.points(0.177, sign=False), "17.7"),
        (words.points(-0.177, sign=False), "−17.7"),
        (words.points(None), "–"),
        (words.number(-0.0123, words.POINTS), "−1.2 points"),
        (words.interval(0.5, 0.4, 0.6, words.PERCENT), "50.0% (40.0% to 60.0%)"),
        (words.interval(-0.01, -0.02, 0.03, words.POINTS), "−1.0 points (−2.0 to +3.0)"),
        (words.points_interval(-0.01, -0.02, 0.03), "−1.0 (−2.0 to +3.0)"),
        (words.points_interval(None, None, None), "–"),
        (words.points_interval(0.01, None, None), "+1.0"),
        (words.interval(None, 0.1, 0.2, words.PERCENT), "–"),
        (words.p_value(0.0123), "0.012"),
        (words.p_value(0.0000123), "< 0.001"),
        (words.p_equals(0.0123), "= 0.012"),
        (words.p_equals(0.0000123), "< 0.001"),
        (words.counted(1, "question"), "1 question"),
        (words.counted(1200, "question"), "1,200 questions"),
        (words.counted(0, "reply", "replies"), "0 replies"),
        (words.part_of(60, 120), "60 of 120"),
        (words.part_of(120, 120), "120"),
        (words.part_of(3, None), "3"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_every_kind_of_number_has_one_form(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize(
    ("p", "low", "high", "expected"),
    [
        (0.049, 0.1, 0.2, True),
        (0.049, -0.2, -0.1, True),
        (0.05, 0.1, 0.2, False),
        (0.001, 0.0, 0.2, False),
        (0.001, -0.1, 0.2, False),
        (None, 0.1, 0.2, False),
        (0.001, None, None, False),
    ],
)
def test_a_difference_is_significant_by_its_p_value_and_its_interval(
    p: Any, low: Any, high: Any, expected: bool
) -> None:
    assert words.is_significant(p, low, high) is expected
