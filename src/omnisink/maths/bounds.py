"""Settings of the rotation and of its thresholds that float32 arithmetic can hold, on every way to run the method."""

from __future__ import annotations

import math
from typing import Any

from omnisink.errors import shown

#: Largest strength of the rotation, in absolute value. The rotation squares it; from 1.8e19 on float32 has no square,
#: and half precision is left with NaN far earlier. At a hundredth of this limit nothing but the sink's direction is
#: left of a head output.
MAX_GAMMA = 1e4
#: Smallest and largest temperature of the gate: its reciprocal multiplies a cosine, which may be 0.
MIN_TAU, MAX_TAU = 1e-6, 1e6
#: Largest threshold of a criterion: far above every activation, and its product with one is at most infinite.
MAX_THRESHOLD = 1e30


def check_gamma(gamma: Any) -> None:
    """Raise a ValueError where a strength is not a finite number of at most `MAX_GAMMA` in absolute value."""
    if not _is_number(gamma) or not -math.inf < gamma < math.inf:
        raise ValueError(f"gamma must be a finite number, got {shown(gamma)}")
    if abs(gamma) > MAX_GAMMA:
        raise ValueError(
            f"gamma must be at most {MAX_GAMMA:g} in absolute value, got {shown(gamma)}: larger ones overflow"
        )


def check_tau(tau: Any) -> None:
    """Raise a ValueError where a temperature of the gate is not a number from `MIN_TAU` to `MAX_TAU`."""
    if not _is_number(tau) or not 0 < tau < math.inf:
        raise ValueError(f"tau must be a positive number, got {shown(tau)}")
    if not MIN_TAU <= tau <= MAX_TAU:
        raise ValueError(f"tau must lie between {MIN_TAU:g} and {MAX_TAU:g}, got {shown(tau)}")


def check_threshold(name: str, threshold: Any) -> None:
    """Raise a ValueError where the setting `name` is not a positive number of at most `MAX_THRESHOLD`."""
    if not _is_number(threshold) or not threshold > 0:
        raise ValueError(f"{name} must be a positive number, got {shown(threshold)}")
    if not threshold <= MAX_THRESHOLD:
        raise ValueError(f"{name} must be at most {MAX_THRESHOLD:g}, got {shown(threshold)}")


def whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    """Return whole numbers that were given as a list of them, or as one.

    Parameters
    ----------
    name : str
        Name of the setting.
    values : object
        What was given.

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        return tuple(value.__index__() for value in ([values] if hasattr(values, "__index__") else values))
    except (TypeError, AttributeError):
        raise ValueError(f"{name} must be whole numbers, as (0, 1), got {shown(values)}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
