"""Settings of OutRo in a server, and what one request may change of them.

They come as JSON, so every value is checked here, and an error names the setting and what it must be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from omnisink.errors import shown
from omnisink.maths.bounds import check_gamma
from omnisink.maths.outro_settings import OutRoSettings

#: Where the settings stand in vLLM's `additional_config`, and in a request.
KEY = "outro"
#: What a request may say, besides switching the method off as a whole.
REQUEST_FIELDS = ("gamma", "relax", "decode")


@dataclass(frozen=True)
class ServingSettings(OutRoSettings):
    """OutRo's settings as JSON gives them: every type is checked, and numbers become floats.

    Parameters
    ----------
    gamma, tau, rotate, relax, decode, min_activation, median_ratio, detect_layers, relax_layers, max_relaxed
        See `OutRoSettings`.

    Raises
    ------
    ValueError
        If a value is not of its kind or out of range.
    """

    def __post_init__(self) -> None:
        for name in ("rotate", "relax", "decode"):
            _flag(name, getattr(self, name))
        for name in ("detect_layers", "relax_layers"):
            _check_layers(name, getattr(self, name))
        if type(self.max_relaxed) is not int:
            raise ValueError(f"max_relaxed must be a whole number of at least 1, got {shown(self.max_relaxed)}")
        super().__post_init__()
        for name in ("gamma", "tau", "min_activation", "median_ratio"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


@dataclass(frozen=True)
class RequestSettings:
    """The settings of the method for one request.

    Parameters
    ----------
    gamma : float
        Strength of the rotation; 0 where nothing is rotated.
    relax : bool
        Relax sink rows.
    decode : bool
        Rotate generated tokens.
    """

    gamma: float
    relax: bool
    decode: bool

    @property
    def acts(self) -> bool:
        """Whether anything is done at all."""
        return self.gamma != 0 or self.relax


def read_settings(given: Any) -> ServingSettings:
    """Check the settings of a server.

    Parameters
    ----------
    given : object
        Value of ``"outro"`` in `additional_config`: a mapping of names to values, `true` for the defaults.

    Returns
    -------
    ServingSettings
        The settings.

    Raises
    ------
    ValueError
        If it is not a mapping, a name is unknown, or a value is out of range.
    """
    if given is True:
        return ServingSettings()
    if not isinstance(given, Mapping):
        raise ValueError(f'outro must be an object with settings, as {{"gamma": 0.3}}, got {shown(given)}')
    if given.get("criterion") is not None:
        raise ValueError(
            f"criterion must be left out in a server, got {shown(given['criterion'])}: a server finds sinks by their "
            "massive activation, with min_activation and median_ratio. Other criteria run on transformers"
        )
    known = [one.name for one in fields(ServingSettings)]
    _refuse_unknown(given, [*known, "criterion"])
    return ServingSettings(**{name: value for name, value in given.items() if name != "criterion"})


def read_request(given: Any, settings: ServingSettings) -> RequestSettings:
    """Check what one request says, and put it over the server's settings.

    Parameters
    ----------
    given : object
        None: the server's settings. `false` switches the method off, `true` leaves it on. A mapping, or the JSON text
        of one, changes `gamma`, `relax` or `decode`; a `gamma` of 0 without a word about `relax` switches all of it
        off.
    settings : ServingSettings
        The server's.

    Returns
    -------
    RequestSettings
        Settings of the request.

    Raises
    ------
    ValueError
        If a name is unknown or a value is wrong.
    """
    own = RequestSettings(settings.gamma if settings.rotate else 0.0, settings.relax, settings.decode)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"outro is not JSON: {error}") from None
    if given is None or given is True:
        return own
    if given is False:
        return RequestSettings(0.0, relax=False, decode=False)
    if not isinstance(given, Mapping):
        raise ValueError(f'outro must be an object as {{"gamma": 0.0}}, or false, got {shown(given)}')
    _refuse_unknown(given, REQUEST_FIELDS)
    for name in ("relax", "decode"):
        if name in given:
            _flag(name, given[name])
    changed = dict(given)
    if "gamma" in given:
        check_gamma(given["gamma"])
        changed["gamma"] = float(given["gamma"])
        if changed["gamma"] == 0 and "relax" not in given:
            changed["relax"] = False
    return replace(own, **changed)


def _refuse_unknown(given: Mapping[str, Any], known: Any) -> None:
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"outro has no setting {shown(unknown[0])}; those it has: {', '.join(known)}")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {shown(value)}")


def _check_layers(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, (list, tuple)) or any(type(layer) is not int or layer < 0 for layer in value):
        raise ValueError(f"{name} must be a list of layer numbers, got {shown(value)}")
