"""Find where the code of an attention module asks transformers' attention interface for its function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from torch import nn

_INTERFACE = "ALL_ATTENTION_FUNCTIONS"
#: Calls to follow from ``forward``: to its parent's, to another method, from there to a function.
_DEPTH = 3


def uses_interface(module: nn.Module) -> bool:
    """Whether the module's ``forward``, or what it calls of its class, parents and file, asks the interface."""
    return _found(module) is not None


def resolve_interface(module: nn.Module) -> tuple[Any, Callable[..., Any] | None]:
    """Return the interface instance and the eager function of the code that asks the interface."""
    function = _found(module)
    assert function is not None, f"{type(module).__name__} does not use the attention interface"
    names = function.__globals__
    eager = [n for n in _names(function.__code__) if n.endswith("eager_attention_forward") and n in names]
    return names[_INTERFACE], names[eager[0]] if eager else names.get("eager_attention_forward")


def _found(module: nn.Module) -> FunctionType | None:
    kind: Any = type(module)
    return _search(kind, kind.forward)


@lru_cache(maxsize=4096)
def _search(kind: type, forward: Any) -> FunctionType | None:
    """Look breadth first, so that what ``forward`` itself does comes before what it calls."""
    seen: set[Any] = set()
    level = [forward]
    for _ in range(_DEPTH + 1):
        following: list[Any] = []
        for function in level:
            plain = inspect.unwrap(function)
            if not isinstance(plain, FunctionType) or plain in seen:
                continue
            seen.add(plain)
            names = _names(plain.__code__)
            if _INTERFACE in names and _INTERFACE in plain.__globals__:
                return plain
            following += _called(kind, plain, names)
        level = following
    return None


def _called(kind: type, function: FunctionType, names: set[str]) -> Iterator[Any]:
    """Yield functions that one may call: methods, the parents' where it says ``super``, and those of its file."""
    classes = list(kind.__mro__)
    if "super" in names:
        owner = next((c for c in classes if _is_in(c, function)), None)
        classes = classes[classes.index(owner) + 1 :] if owner is not None else classes
    for name in sorted(names):
        method = next((vars(c)[name] for c in classes if name in vars(c)), None)
        # A call of another module's forward() looks like one of its own; a parent's is meant where it says so.
        if isinstance(method, FunctionType) and (
            "super" in names if name == "forward" else not hasattr(nn.Module, name)
        ):
            yield method
        known = function.__globals__.get(name)
        if isinstance(known, FunctionType) and not known.__module__.startswith("torch."):
            yield known
        elif isinstance(known, type) and issubclass(kind, known) and known is not kind and "forward" in names:
            yield getattr(known, "forward", None)


def _is_in(owner: type, function: FunctionType) -> bool:
    own = vars(owner).get(function.__name__)
    return own is not None and inspect.unwrap(own) is function


def _names(code: CodeType) -> set[str]:
    """Return the global and attribute names of a function and of the functions written in it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found
