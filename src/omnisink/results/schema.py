"""The form of records and manifests as types, and one check of data against a type.

What is read from a disk may have been written by another version, cut, or changed by hand. Every reader checks it
here, before anything is computed with it, so that a wrong value is one line that names the file and the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from omnisink.errors import OmnisinkError, shown


@dataclass(frozen=True)
class Range:
    """What a number may be, both ends included."""

    low: float = -math.inf
    high: float = math.inf


#: A number of things. Arrow and spreadsheets hold it exactly.
Count = Annotated[int, Range(0, 2**53)]
#: From 0 to 1.
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0)]

#: What names an evaluation record, a study's and a search's.
EVALUATION_KEY = ("id", "method", "attempt")
STUDY_KEY = ("item", "question", "unit")
TUNING_KEY = ("setting", "batch")


class _Evaluated(TypedDict):
    id: str
    method: str
    attempt: Count
    cluster: str | int
    right: bool | Share | None
    error: str | None


class EvaluationRecord(_Evaluated, total=False):
    """One question under one method, as `omnisink eval` writes it; docs/eval.md says what each field is."""

    groups: dict[str, list[str] | str]
    prompt_sha256: str | None
    prompt_tokens: Count | None
    video_tokens: Count | None
    image_tokens: Count | None
    audio_tokens: Count | None
    frames: Count | None
    audio_seconds: Positive | None
    new_tokens: Count | None
    sinks: Count | None
    text: str | None
    parsed: str | None
    gold: str | float | bool | list[str] | None
    loss: float | None
    margin: float | None
    seconds: Positive | None
    batch: Count | None
    memory_mb: Positive | None


class _Task(TypedDict):
    name: str


class TaskFacts(_Task, total=False):
    """What a manifest says of the task."""

    title: str | None
    split: str | None
    protocol: str | None
    metric: str | None
    mean_over: str | None
    questions: Count | None
    sha256: str | None


class _Run(TypedDict):
    format: str
    task: TaskFacts
    methods: dict[str, dict[str, Any] | None]


class EvaluationManifest(_Run, total=False):
    """What `omnisink eval` says of a run."""

    started: str | None
    command: str | None
    model: dict[str, Any] | None
    versions: dict[str, Any] | None
    score: str | None
    frames: str | None
    seed: int | None


class _Measured(TypedDict):
    item: str
    question: str
    unit: str


class StudyRecord(_Measured, total=False):
    """One measurement of one item, as `omnisink study` writes it; what else it holds depends on the question."""

    cluster: str
    loss: float | list[float] | None
    right: bool | list[bool | None] | None
    said: str | list[str]
    seconds: Positive


class TuningRecord(TypedDict):
    """Margins of a batch of questions under one setting, as `omnisink tune` writes them."""

    setting: str
    batch: str
    settings: dict[str, Any] | None
    margins: dict[str, float]


def check(data: Any, form: Any, where: str) -> None:
    """Refuse data that is not of a form.

    Parameters
    ----------
    data : object
        As JSON has it.
    form : type
        A `TypedDict`, ``dict[str, ...]``, ``list[...]``, a union, ``Annotated`` with a `Range`, ``str``, ``int``,
        ``float``, ``bool``, ``None`` or ``Any``. As in JSON, true is no number; a whole number is one of floats too;
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
        return inside[0] if inside else _told(data, form, name)
    if is_typeddict(form):
        return _fault_of_fields(data, form, name)
    if kind in (dict, list):
        if not isinstance(data, kind):
            return _told(data, form, name)
        inner = get_args(form)[-1]
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        return next((f for key, value in pairs if (f := _fault(value, inner, _joined(name, key))) is not None), None)
    return None if _fits(data, form) else _told(data, form, name)


def _fault_of_fields(data: Any, form: Any, name: str) -> str | None:
    if not isinstance(data, Mapping):
        return _told(data, form, name)
    if missing := sorted(form.__required_keys__ - data.keys()):
        return f"it has no {_joined(name, missing[0])!r}"
    for key, inner in _fields(form).items():
        if key in data and (fault := _fault(data[key], inner, _joined(name, key))) is not None:
            return fault
    return None


@lru_cache
def _fields(form: Any) -> dict[str, Any]:
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


def _told(data: Any, form: Any, name: str) -> str:
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
