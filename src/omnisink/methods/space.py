"""Where `omnisink tune` looks: what a class says of its settings, or what their types and values suggest."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.base import Method

#: A positive number without a range of its own is searched up to this many times smaller and larger.
_DECADE = 10.0
#: Settings that are not searched without being named: to choose among draws is no tuning.
_NEVER = ("seed",)


@dataclass(frozen=True)
class FloatRange:
    """A number from `low` to `high`, by its logarithm where both are positive.

    Raises
    ------
    ValueError
        If `low` is not below `high`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range runs from a lower to a higher number, got {self.low} to {self.high}")

    def suggest(self, trial: Any, name: str) -> float:
        """Draw a number of three digits."""
        drawn = trial.suggest_float(name, self.low, self.high, log=self.low > 0)
        return min(max(short(drawn), self.low), self.high)

    def nearest(self, value: Any) -> Any:
        """Return the number of the range that is nearest to a value; the lowest where it is none."""
        return min(max(float(value), self.low), self.high) if isinstance(value, int | float) else self.low

    def describe(self) -> list[float]:
        """Return the range as plain data."""
        return [self.low, self.high]


@dataclass(frozen=True)
class IntRange:
    """A whole number from `low` to `high`, both included.

    Raises
    ------
    ValueError
        If `low` is not below `high`.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range runs from a lower to a higher number, got {self.low} to {self.high}")

    def suggest(self, trial: Any, name: str) -> int:
        """Draw a number."""
        return int(trial.suggest_int(name, self.low, self.high))

    def nearest(self, value: Any) -> Any:
        """Return the number of the range that is nearest to a value; the lowest where it is none."""
        return min(max(int(value), self.low), self.high) if isinstance(value, int | float) else self.low

    def describe(self) -> list[int]:
        """Return the range as plain data."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Choices:
    """One of some values: texts, numbers, truth values or None."""

    values: tuple[Any, ...]

    def suggest(self, trial: Any, name: str) -> Any:
        """Draw a value."""
        return trial.suggest_categorical(name, self.values)

    def nearest(self, value: Any) -> Any:
        """Return the value itself if it is one of them, else the first."""
        return value if value in self.values else self.values[0]

    def describe(self) -> list[Any]:
        """Return the values."""
        return list(self.values)


Range = FloatRange | IntRange | Choices


@runtime_checkable
class SearchSpace(Protocol):
    """Where settings of one class are searched."""

    def initial(self, depth: int, start: Any) -> dict[str, Any]:
        """Return the parameters of the first trial: settings that are there already, moved into the space."""

    def suggest(self, trial: Any, depth: int, start: Any) -> Any:
        """Draw settings with an Optuna trial; what is not searched stays as it is in `start`."""

    def describe(self) -> dict[str, Any]:
        """Return the space as plain data."""

    def off(self, start: Any) -> Any:
        """Return settings that leave the model as it is; None where the class has none that are known."""

    def is_off(self, method: Any) -> bool:
        """Whether settings are known to leave the model as it is."""


@dataclass(frozen=True)
class FieldSpace:
    """A range for each of some fields; all are drawn in every trial.

    Attributes
    ----------
    ranges : mapping of str to FloatRange, IntRange or Choices
        By the name of the field.
    """

    ranges: Mapping[str, Range]

    def initial(self, depth: int, start: Method) -> dict[str, Any]:
        """See `SearchSpace`."""
        return {name: one.nearest(getattr(start, name)) for name, one in self.ranges.items()}

    def suggest(self, trial: Any, depth: int, start: Method) -> Method:
        """See `SearchSpace`."""
        return replace(start, **{name: one.suggest(trial, name) for name, one in self.ranges.items()})

    def describe(self) -> dict[str, Any]:
        """See `SearchSpace`."""
        return {name: one.describe() for name, one in self.ranges.items()}

    def off(self, start: Method) -> Method | None:
        """Nothing is known of what switches the method off."""
        return None

    def is_off(self, method: Method) -> bool:
        """See `off`."""
        return False


def space_of(start: Method) -> SearchSpace:
    """Return where the settings of a method are searched.

    Parameters
    ----------
    start : Method
        Where the search begins. What the class's `search_space` says is taken; else numbers are searched a decade
        around the value here if that is positive, truth values and literals over all of theirs, and other settings
        stay as they are.

    Returns
    -------
    SearchSpace
        The space.

    Raises
    ------
    OmnisinkError
        If no setting can be searched, or the class names one that it does not have.
    """
    if start.unsearchable:
        raise OmnisinkError(f"{start} {start.unsearchable}")
    kind = type(start)
    declared = kind.search_space
    if declared is not None and not isinstance(declared, Mapping):
        return declared
    ranges = _derived(start) if declared is None else dict(declared)
    known = [one.name for one in fields(start)]
    if wrong := [name for name in ranges if name not in known]:
        raise OmnisinkError(f"the search space of {kind.__name__} names {wrong[0]}, which is not a setting of it")
    if not ranges:
        raise OmnisinkError(
            f"{kind.__name__} has no setting that can be searched: numbers without a positive value have no range. "
            "Declare a search_space in the class"
        )
    return FieldSpace(ranges)


def is_off(method: Method) -> bool:
    """Whether settings are known to leave the model as it is."""
    declared = type(method).search_space
    return declared is not None and not isinstance(declared, Mapping) and declared.is_off(method)


def _derived(start: Method) -> dict[str, Range]:
    from omnisink.methods.settings import field_types

    found: dict[str, Range] = {}
    for name, hint in field_types(type(start)).items():
        value = getattr(start, name)
        if name in _NEVER:
            continue
        if hint is bool:
            found[name] = Choices((True, False))
        elif typing.get_origin(hint) is typing.Literal:
            found[name] = Choices(typing.get_args(hint))
        elif hint is float and value > 0:
            found[name] = FloatRange(value / _DECADE, value * _DECADE)
        elif hint is int and value > 0:
            found[name] = IntRange(max(1, round(value / _DECADE)), round(value * _DECADE))
    return found


def short(value: float) -> float:
    """Return a number rounded to three digits."""
    return float(f"{value:.3g}")
