"""Settings of a method as text and as plain data: what a user types, and what a record keeps."""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from torch import Tensor

from omnisink.errors import shown
from omnisink.methods import criteria

_IN_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    types.NoneType: "null",
    criteria.Criterion: "a criterion's name and settings",
}
_MANY = {float: "numbers", int: "whole numbers", str: "texts"}
_PAIRS = {"(": ")", "[": "]"}
_QUOTES = "'\""
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
#: Criteria that a setting may name, by the name of the criterion and by that of its class.
_CRITERIA: dict[str, Any] = {
    name: kind
    for kind in (
        criteria.MassiveActivation,
        criteria.SinkDimension,
        criteria.Positions,
        criteria.RandomTokens,
        criteria.FirstToken,
    )
    for name in (kind.name, kind.__name__)
}


def split_outside(text: str, separator: str) -> Iterator[str]:
    """Cut a text at a separator, but not inside brackets or quotation marks.

    Parameters
    ----------
    text : str
        As ``"outro:relax_layers=[0,4],baseline"``.
    separator : str
        One character.

    Yields
    ------
    str
        The pieces, with surrounding blanks removed.

    Raises
    ------
    ValueError
        If a bracket or a quotation mark is never closed, or closed without having been opened.
    """
    waiting: list[str] = []
    start = 0
    for place, sign in enumerate(text):
        if waiting and waiting[-1] in _QUOTES:
            if sign == waiting[-1]:
                waiting.pop()
        elif sign in _QUOTES:
            waiting.append(sign)
        elif sign in _PAIRS:
            waiting.append(_PAIRS[sign])
        elif sign in _PAIRS.values():
            if not waiting or waiting.pop() != sign:
                raise ValueError(f"{sign!r} closes nothing in {text!r}")
        elif sign == separator and not waiting:
            yield text[start:place].strip()
            start = place + 1
    if waiting:
        raise ValueError(f"{waiting[-1]!r} is missing in {text!r}")
    yield text[start:].strip()


@cache
def field_types(kind: type) -> Mapping[str, Any]:
    """Return the types of the settings of a method class, by name, in order."""
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind) if one.init}


def read_value(text: str, hint: Any) -> Any:
    """Turn the text of a setting into a value of its type.

    Parameters
    ----------
    text : str
        A number, a truth value, a word, ``none``; several values as ``[0,4,8]`` or ``0+4+8``; a criterion as
        ``sink_dimension(channels=[138,378])``.
    hint : type
        The annotated type of the setting.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueError
        If the text is not of this type, or the type cannot be written as text.
    """
    if _is_union(hint):
        options = typing.get_args(hint)
        if types.NoneType in options and text.lower() == "none":
            return None
        return _first_that_reads(text, [one for one in options if one is not types.NoneType], hint)
    if hint is bool:
        if text.lower() not in _WORDS:
            raise ValueError(f"{text!r} is neither true nor false")
        return _WORDS[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole number' if hint is int else 'a number'}") from None
    if hint is str:
        return text[1:-1] if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0] else text
    if typing.get_origin(hint) is typing.Literal:
        if text not in (choices := typing.get_args(hint)):
            raise ValueError(f"{text!r} is not one of {', '.join(map(str, choices))}")
        return text
    if typing.get_origin(hint) is tuple:
        return tuple(_items(text, hint))
    if hint is criteria.Criterion:
        return _read_criterion(text)
    raise ValueError(f"a value of type {getattr(hint, '__name__', hint)} cannot be given as text: use Python")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _first_that_reads(text: str, options: list[Any], hint: Any) -> Any:
    problem = ValueError(f"{text!r} is not of type {hint}")
    for option in options:
        try:
            return read_value(text, option)
        except ValueError as error:  # noqa: PERF203  a handful of types
            problem = error
    raise problem


def _items(text: str, hint: Any) -> Iterator[Any]:
    """Yield the values of a tuple, written with brackets and commas, or with plus signs between them."""
    inner = typing.get_args(hint)
    bracketed = len(text) > 1 and text[0] in _PAIRS and text[-1] == _PAIRS[text[0]]
    pieces = list(split_outside(text[1:-1], ",") if bracketed else split_outside(text, "+"))
    pieces = [piece for piece in pieces if piece]
    if len(inner) == 2 and inner[1] is Ellipsis:
        yield from (read_value(piece, inner[0]) for piece in pieces)
        return
    if len(pieces) != len(inner):
        raise ValueError(f"{text!r} has {len(pieces)} values, {len(inner)} are expected")
    yield from (read_value(piece, kind) for piece, kind in zip(pieces, inner, strict=True))


def _read_criterion(text: str) -> Any:
    """Read ``sink_dimension(channels=[138,378])``: a call with plain values, of which nothing is executed."""
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is not a criterion, as in sink_dimension(channels=[138,378])") from None
    return _criterion_of(node, text)


def _criterion_of(node: ast.expr, text: str) -> Any:
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call is not None else node
    if not isinstance(name, ast.Name) or name.id not in _CRITERIA:
        known = ", ".join(kind.name for kind in dict.fromkeys(_CRITERIA.values()))
        raise ValueError(f"{text!r} names no criterion: use one of {known}")
    given: dict[str, Any] = {}
    for keyword in [] if call is None else call.keywords:
        if keyword.arg is None:
            raise ValueError(f"{text!r}: settings of a criterion are written as name=value")
        try:
            value = ast.literal_eval(keyword.value)
        except ValueError:
            word = keyword.value.id if isinstance(keyword.value, ast.Name) else ""
            value = _WORDS[word] if word in _WORDS else _criterion_of(keyword.value, text)
        given[keyword.arg] = tuple(value) if isinstance(value, list) else value
    if call is not None and call.args:
        raise ValueError(f"{text!r}: settings of a criterion are written as name=value")
    try:
        return _CRITERIA[name.id](**given)
    except TypeError as error:
        raise ValueError(f"{text!r}: {error}") from None


def from_plain(value: Any, hint: Any) -> Any:
    """Turn plain data, as `to_plain` gives it and JSON keeps it, into a value of a setting's type.

    Parameters
    ----------
    value : object
        As JSON has it.
    hint : type
        The annotated type of the setting.

    Returns
    -------
    object
        The value; lists are tuples.

    Raises
    ------
    ValueError
        Saying what the value must be.
    """
    if not _fits(value, hint):
        raise ValueError(f"must be {_in_words(hint)}, got {shown(value)}")
    if isinstance(value, dict):
        return _criterion_from_plain(value)
    return _as_tuples(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether plain data can be a value of a type; numbers are not truth values, and whole numbers are floats too."""
    if _is_union(hint):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint in (None, types.NoneType):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str | int | bool) and value in typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, list):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(one, inner[0]) for one in value)
        return len(inner) == len(value) and all(map(_fits, value, inner))
    return hint is criteria.Criterion and isinstance(value, dict)


def _in_words(hint: Any) -> str:
    if _is_union(hint):
        options = sorted(typing.get_args(hint), key=lambda option: option is not types.NoneType)
        return " or ".join(map(_in_words, options))
    if hint in _IN_WORDS:
        return _IN_WORDS[hint]
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        return (
            f"a list of {_MANY.get(inner[0], 'values')}" if inner[1:] == (...,) else f"a list of {len(inner)} values"
        )
    return f"of type {getattr(hint, '__name__', hint)}, which a profile does not hold"


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _criterion_from_plain(value: Mapping[str, Any]) -> Any:
    kind = _CRITERIA.get(str(value.get("name")))
    if kind is None:
        raise ValueError(f"must be a criterion that omnisink has, got {shown(value.get('name'))}")
    settings = {
        key: _criterion_from_plain(one) if isinstance(one, dict) else _as_tuples(one)
        for key, one in value.items()
        if key != "name"
    }
    try:
        return kind(**settings)
    except TypeError as error:
        raise ValueError(f"must be a criterion's settings: {error}") from None


def plain_settings(method: Any) -> dict[str, Any]:
    """Return the settings of a method by name, as plain data."""
    return {one.name: to_plain(getattr(method, one.name)) for one in fields(method)}


def to_plain(value: Any) -> Any:
    """Return a setting as plain data, for manifests and records.

    Criteria become their name and settings, tuples lists, tensors their shape and dtype.
    """
    if isinstance(value, criteria.Criterion):
        return criteria.describe(value)
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [to_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    return value
