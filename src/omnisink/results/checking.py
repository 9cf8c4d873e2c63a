"""One check of data against a type.

What is read from a disk may have been written by another version, cut, or changed by hand. Every reader checks it
here, before anything is computed with it, so that a wrong value is one line that names the file and the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from omnisink.errors import OmnisinkError, shown

Form = TypeVar("Form")


@dataclass(frozen=True)
class Range:
    """The range of a number, both ends included."""

    low: float = -math.inf
    high: float = math.inf


def typed(data: Any, form: type[Form], where: str) -> Form:
    """Return data as what it was checked to be; arguments and errors as for `check`."""
    check(data, form, where)
    return cast(Form, data)


def check(data: Any, form: Any, where: str) -> None:
    """Refuse data that is not of a form.

    Parameters
    ----------
    data : object
        Data as JSON has it.
    form : type
        A `TypedDict`, ``dict[str, ...]``, ``list[...]``, a union, ``Annotated`` with a `Range`, ``str``, ``int``,
        ``float``, ``bool``, ``None`` or ``Any``. As in JSON, true is not a number, and a whole number is also a float;
        fields that a `TypedDict` does not name may be anything.
    where : str
        The file and line, with which an error begins.

    Raises
    ------
    OmnisinkError
        Naming the field, what it must be, and what it is.
    """
    if (wrong := _fault(data, form, "")) is not None:
        raise OmnisinkError(f"{where}: {wrong}")


def _fault(data: Any, form: Any, name: str) -> str | None:
    """Return what is wrong with data; None where nothing is."""
    kind = get_origin(form)
    if form is Any:
        return None
    if kind in (Union, UnionType):
        faults = [_fault(data, option, name) for option in get_args(form)]
        if None in faults:
            return None
        # Of an object or a list, what is wrong inside says more.
        inside = [
            f for f in faults if f is not None and isinstance(data, dict | list) and not f.startswith(f"{name} must")
        ]
        return inside[0] if inside else _said(data, form, name)
    if is_typeddict(form):
        return _fault_of_fields(data, form, name)
    if kind in (dict, list):
        if not isinstance(data, kind):
            return _said(data, form, name)
        inner = get_args(form)[-1]
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        return next((f for key, value in pairs if (f := _fault(value, inner, _joined(name, key))) is not None), None)
    return None if _fits(data, form) else _said(data, form, name)


def _fault_of_fields(data: Any, form: Any, name: str) -> str | None:
    if not isinstance(data, Mapping):
        return _said(data, form, name)
    if missing := sorted(form.__required_keys__ - data.keys()):
        return f"it has no {_joined(name, missing[0])!r}"
    for key, inner in fields_of(form).items():
        if key in data and (fault := _fault(data[key], inner, _joined(name, key))) is not None:
            return fault
    return None


@lru_cache
def fields_of(form: Any) -> dict[str, Any]:
    """Return the fields of a `TypedDict` and what each must be, those of its bases first."""
    return get_type_hints(form, include_extras=True)


def _fits(data: Any, form: Any) -> bool:
    if get_origin(form) is Annotated:
        base, limits = get_args(form)
        return _fits(data, base) and limits.low <= data <= limits.high
    if form in (None, NoneType):
        return data is None
    if form is float:
        return isinstance(data, int | float) and not isinstance(data, bool) and abs(data) < 1e300
    if form is int:
        return isinstance(data, int) and not isinstance(data, bool)
    return isinstance(data, form)


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _said(data: Any, form: Any, name: str) -> str:
    return f"{name or 'it'} must be {_words(form)}, got {shown(data)}"


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def _words(form: Any) -> str:
    kind = get_origin(form)
    if kind in (Union, UnionType):
        options = [_words(option) for option in get_args(form)]
        return f"{', '.join(options[:-1])} or {options[-1]}"
    if kind is Annotated:
        base, limits = get_args(form)
        if limits.high > 1e9:
            return f"{_words(base)} of at least {limits.low:g}"
        return f"{_words(base)} from {limits.low:g} to {limits.high:g}"
    if is_typeddict(form) or kind is dict:
        return "an object"
    if kind is list:
        return "a list"
    return _WORDS[form]
