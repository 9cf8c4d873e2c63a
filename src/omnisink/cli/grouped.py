"""Options that belong together, as one parameter of a verb: a frozen dataclass whose fields are the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Make a verb of a function: each parameter that is a dataclass becomes the options that are its fields.

    Parameters
    ----------
    verb : callable
        A function whose parameters all have defaults. The annotation of a field says how its option is named and
        explained, as that of any other parameter of the verb; its default is that of the dataclass.

    Returns
    -------
    callable
        The verb as Typer and Python call it: with every option by its own name. It makes the dataclasses.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for given in inspect.signature(verb).parameters.values():
        kind = hints[given.name]
        if is_dataclass(kind):
            groups[given.name] = kind
            inner = get_type_hints(kind, include_extras=True)
            parameters += [_option(one.name, one.default, inner[one.name]) for one in fields(kind)]
        else:
            parameters.append(_option(given.name, given.default, kind))

    signature = inspect.Signature(parameters)

    @wraps(verb)
    def command(*words: Any, **named: Any) -> None:
        bound = signature.bind(*words, **named)
        bound.apply_defaults()
        options = bound.arguments
        for name, kind in groups.items():
            options[name] = kind(**{one.name: options.pop(one.name) for one in fields(kind)})
        verb(**options)

    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _option(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
