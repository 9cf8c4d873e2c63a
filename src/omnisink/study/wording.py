"""How numbers of a study are said in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def nats(row: Mapping[str, Any]) -> str:
    """Say how an arm changes the loss, with its interval where there is one."""
    interval = "" if row["loss_low"] is None else f" ({row['loss_low']:+.3g} to {row['loss_high']:+.3g})"
    return f"{row['loss_change']:+.3g} nats{interval}"


def points(row: Mapping[str, Any]) -> str:
    """Say how an arm changes the accuracy, with its interval where there is one; nothing for passages."""
    if row["accuracy_change"] is None:
        return ""
    interval = ""
    if row["accuracy_low"] is not None:
        interval = f" ({100 * row['accuracy_low']:+.1f} to {100 * row['accuracy_high']:+.1f})"
    return f"; accuracy {100 * row['accuracy_change']:+.1f} points{interval}"


def verdict(row: Mapping[str, Any]) -> str:
    """Say whether an arm changes the loss: only where the corrected p value is below 0.05 is it said to."""
    if row["loss_low"] is None:
        return "too few items for an interval"
    if row["p_holm"] is None or row["p_holm"] >= 0.05:
        return "no difference that holds after correction"
    return "lowers the loss" if row["loss_change"] < 0 else "raises the loss"


def condition(row: Mapping[str, Any]) -> str:
    """Say what came of an arm, in one sentence."""
    label = row["label"]
    return f"{label[0].upper()}{label[1:]}: {verdict(row)}, {nats(row)}{points(row)}."
