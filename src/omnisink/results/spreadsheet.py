"""Cells of CSV files that a spreadsheet shows and does not run."""

from __future__ import annotations

from typing import Any

#: What makes a spreadsheet take a cell for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> Any:
    """Return a value as a cell; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and (value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA)):
        return f"'{value}"
    return value
