"""Methods by name, as ``baseline,outro,outro:relax,outro:gamma=0.3``: what a run compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.methods.aimed import AimedOutRo
from omnisink.methods.base import Method
from omnisink.methods.outro import OutRo

#: The untouched model.
BASELINE = "baseline"

#: Halves of OutRo and controls of it, by the word after the colon.
_ALONE: Mapping[str, Callable[[OutRo], OutRo]] = {
    "rotate": lambda outro: replace(outro, relax=False),
    "relax": lambda outro: replace(outro, rotate=False),
    "away": lambda outro: replace(outro, gamma=-outro.gamma),
    "random": lambda outro: AimedOutRo(**{**asdict(outro), "aim": "random"}),
}
_NUMBERS = {"gamma": float, "tau": float, "seed": int}


def parse_methods(names: str, outro: OutRo | None = None, seed: int = 0) -> dict[str, Method | None]:
    """Read a list of methods.

    ``baseline`` is the untouched model. ``outro`` is OutRo with the settings given here; after colons it may have
    ``rotate`` or ``relax`` (one half alone), ``away`` (the rotation reversed), ``random`` (the same angles toward a
    random direction), and ``gamma=``, ``tau=`` and, with ``random``, ``seed=``.

    Parameters
    ----------
    names : str
        Names, separated by commas.
    outro : OutRo, optional
        The settings that the names start from; None is the defaults.
    seed : int
        Of what is random and has no seed of its own.

    Returns
    -------
    dict of str to Method or None
        By name, in order; None is the untouched model.

    Raises
    ------
    OmnisinkError
        If there is no such method or setting, or a name is there twice.
    """
    found: dict[str, Method | None] = {}
    for name in (part.strip() for part in names.split(",") if part.strip()):
        if name in found:
            raise OmnisinkError(f"the method {name} is named twice")
        found[name] = None if name == BASELINE else _outro(name, outro or OutRo(), seed)
    if not found:
        raise OmnisinkError(f"name at least one method, as in: {BASELINE},outro")
    return found


def settings_of(method: Method | None) -> dict[str, Any] | None:
    """Return a method's class and settings, for a manifest; None for the untouched model."""
    return None if method is None else {"name": type(method).__name__, **asdict(method)}


def _outro(name: str, settings: OutRo, seed: int) -> OutRo:
    kind, *parts = name.split(":")
    if kind != "outro":
        raise OmnisinkError(f"there is no method {name!r}: use {BASELINE}, or outro, as in outro:rotate")
    changes: dict[str, Any] = {}
    try:
        # Numbers first: `away` turns the sign of the strength that was asked for.
        for part in parts:
            key, equals, value = part.partition("=")
            if equals and key in _NUMBERS:
                changes[key] = _NUMBERS[key](value)
            elif part not in _ALONE:
                known = ", ".join([*_ALONE, *(f"{setting}=" for setting in _NUMBERS)])
                raise OmnisinkError(f"{name}: {part!r} is none of {known}")
        own_seed = changes.pop("seed", None)
        made = replace(settings, **changes)
        for part in parts:
            made = _ALONE[part](made) if part in _ALONE else made
        if isinstance(made, AimedOutRo):
            return replace(made, seed=seed if own_seed is None else own_seed)
        if own_seed is not None:
            raise OmnisinkError(f"{name}: only outro:random has a seed")
        return made
    except (TypeError, ValueError) as error:
        raise OmnisinkError(f"{name}: {error}") from None
