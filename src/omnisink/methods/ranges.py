"""Ranges that settings of several methods have: numbers between bounds, and layers as a slice of the model's."""

from __future__ import annotations

import math
from typing import Any

from omnisink.errors import OmnisinkError, shown


def check_range(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise a ValueError where the setting `name` is not a finite number from `low` to `high`, both included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    if not low <= value <= high:
        bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be {bounds}, got {shown(value)}")


def check_layer_range(start: Any, stop: Any) -> None:
    """Raise a ValueError where `start` and `stop` cannot cut a range out of a model's layers."""
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not (isinstance(value, int) or (value is None and name == "stop")):
            raise ValueError(f"{name} must be a whole number{' or None' * (name == 'stop')}, got {shown(value)}")


def layer_range(start: int, stop: int | None, depth: int) -> range:
    """Return the layers ``start:stop`` of a model with `depth` layers, as a Python slice takes them."""
    return range(*slice(start, stop).indices(depth))


def check_some_layer(start: int, stop: int | None, depth: int, method: str) -> None:
    """Refuse a range of layers that is empty on a model with `depth` layers.

    Raises
    ------
    OmnisinkError
        If there is no layer in it.
    """
    if not layer_range(start, stop, depth):
        raise OmnisinkError(
            f"{method} acts on layers {start}:{'' if stop is None else stop}, which is none of the model's {depth}: "
            "give another start or stop"
        )
