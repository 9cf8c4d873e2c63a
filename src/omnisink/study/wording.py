"""What a condition of a study changed, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnisink.results.wording import CHANGE, POINTS, interval, is_significant, number


def nats(value: float, low: float | None = None, high: float | None = None) -> str:
    """Write a change of the loss in nats, with its interval where there is one."""
    bounds = "" if low is None or high is None else f" ({number(low, CHANGE)} to {number(high, CHANGE)})"
    return f"{number(value, CHANGE)} nats{bounds}"


def verdict(row: Mapping[str, Any]) -> str:
    """Say whether a condition changes the loss: only where the change is significant is it said to."""
    low, high = row["loss_low"], row["loss_high"]
    if low is None:
        return "too few items for an interval"
    if not is_significant(row["p_holm"], low, high):
        return "no difference that holds after correction"
    return "lowers the loss" if row["loss_change"] < 0 else "raises the loss"


def changes(row: Mapping[str, Any]) -> str:
    """Say what a condition changes: the loss, and for questions the accuracy, each with its interval."""
    said = f"{verdict(row)}, {nats(row['loss_change'], row['loss_low'], row['loss_high'])}"
    if row["accuracy_change"] is None:
        return said
    return f"{said}; accuracy {interval(row['accuracy_change'], row['accuracy_low'], row['accuracy_high'], POINTS)}"


def condition(row: Mapping[str, Any]) -> str:
    """Say what a condition changes, in a sentence that begins with its label."""
    label = row["label"]
    return f"{label[0].upper()}{label[1:]}: {changes(row)}."
