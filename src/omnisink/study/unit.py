"""A unit of a study's work, small enough that a kill costs seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unit:
    """One piece of work on one item, whose result is one record.

    Attributes
    ----------
    name : str
        Its name, unique among the units of a question and item.
    run : callable
        Does the work and returns what the record holds.
    """

    name: str
    run: Callable[[], Mapping[str, Any]]
