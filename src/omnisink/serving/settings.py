"""Settings of OutRo in a server, and what one request may change of them.

They come as JSON, so every value is checked here, and an error names the setting and what it must be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from omnisink.errors import shown
from omnisink.maths.bounds import check_gamma, check_tau, check_threshold
from omnisink.maths.layers import looks_at, relaxes_at

#: Where the settings stand in vLLM's `additional_config`, and in a request.
KEY = "outro"
#: What a request may say, besides switching the method off as a whole.
REQUEST_FIELDS = ("gamma", "relax", "decode")


@dataclass(frozen=True)
class ServingSettings:
    """OutRo's settings, the same and with the same defaults as on transformers.

    Parameters
    ----------
    gamma : float
        Strength of the rotation, from -10,000 to 10,000; 0 switches it off, negative turns away.
    tau : float
        Temperature of the gate, from 1e-6 to 1e6.
    rotate, relax, decode : bool
        Rotate head outputs; relax the mask of sink rows; rotate generated tokens too.
    min_activation, median_ratio : float
        Thresholds of the massive-activation criterion, at most 1e30.
    detect_layers, relax_layers : tuple of int, optional
        Layers that look for sinks, and that relax; None is the method's own choice.
    max_relaxed : int
        Rows relaxed at most at one layer of one sequence, on accelerators other than CUDA devices.

    Raises
    ------
    ValueError
        If a value is not of its kind or out of range.
    """

    gamma: float = 3.0
    tau: float = 0.1
    rotate: bool = True
    relax: bool = True
    decode: bool = True
    min_activation: float = 100.0
    median_ratio: float = 1000.0
    detect_layers: tuple[int, ...] | None = None
    relax_layers: tuple[int, ...] | None = None
    max_relaxed: int = 256

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        check_tau(self.tau)
        for name in ("min_activation", "median_ratio"):
            check_threshold(name, getattr(self, name))
        for name in ("gamma", "tau", "min_activation", "median_ratio"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("rotate", "relax", "decode"):
            _flag(name, getattr(self, name))
        for name in ("detect_layers", "relax_layers"):
            object.__setattr__(self, name, _layers(name, getattr(self, name)))
        if type(self.max_relaxed) is not int or self.max_relaxed < 1:
            raise ValueError(f"max_relaxed must be a whole number of at least 1, got {shown(self.max_relaxed)}")

    def detects(self, layer: int, depth: int) -> bool:
        """Whether a layer of a decoder with `depth` layers looks for sinks."""
        return looks_at(layer, depth) if self.detect_layers is None else layer in self.detect_layers

    def relaxes(self, layer: int, depth: int) -> bool:
        """Whether a layer of a decoder with `depth` layers relaxes sink rows."""
        return relaxes_at(layer, depth) if self.relax_layers is None else layer in self.relax_layers

    def check_depth(self, depth: int) -> None:
        """Refuse layers that the model does not have, with a ValueError."""
        for name in ("detect_layers", "relax_layers"):
            if outside := [layer for layer in getattr(self, name) or () if layer >= depth]:
                raise ValueError(f"{name} names {shown(outside)}, but the model has layers 0 to {depth - 1}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


@dataclass(frozen=True)
class RequestSettings:
    """What the method does to one request.

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
        What stands under ``"outro"`` in `additional_config`: a mapping of names to values, `true` for the defaults.

    Returns
    -------
    ServingSettings
        The settings.

    Raises
    ------
    ValueError
        If it is no mapping, a name is unknown, or a value is out of range.
    """
    if given is True:
        return ServingSettings()
    if not isinstance(given, Mapping):
        raise ValueError(f'outro must be an object with settings, as {{"gamma": 0.3}}, got {shown(given)}')
    known = [one.name for one in fields(ServingSettings)]
    _refuse_unknown(given, known)
    return ServingSettings(**given)


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
        What to do.

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


def _layers(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or any(type(layer) is not int or layer < 0 for layer in value):
        raise ValueError(f"{name} must be a list of layer numbers, got {shown(value)}")
    return tuple(sorted(set(value)))
