"""Profiles: the settings that were tuned for one model, in a file, and a warning where they meet another."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omnisink.decoder.anatomy import Anatomy, read_anatomy
from omnisink.errors import OmnisinkError, shown
from omnisink.methods.names import IN_FILE, name_of
from omnisink.methods.outro_space import direction_of
from omnisink.methods.settings import field_types, from_plain
from omnisink.results.reading import parse_object, read_whole

if TYPE_CHECKING:
    from omnisink.methods.base import Method

FORMAT = "omnisink.profile.v1"
#: A profile takes a few kilobytes; what is larger is another file.
_LARGEST = 2**20
_NEEDED = ("format", "method", "settings", "model")
_KNOWN = (*_NEEDED, "task", "search", "gain", "versions", "created")
#: What two models must have in common, of the text decoder's configuration.
_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
#: Values of every parameter that the checksum of the weights is of.
_SAMPLE = 16


class ProfileWarning(UserWarning):
    """A profile is used with another model than it was tuned for."""


@dataclass(frozen=True)
class Profile:
    """What a profile says.

    Attributes
    ----------
    path : Path
        Where it was read from.
    method : str
        The name of the method; profiles of OutRo from before methods had names say ``"OutRo"``.
    settings : mapping
        All settings of the method, by name.
    model : mapping
        ``name`` and ``fingerprint`` of the model it was tuned for, and what else is known of it.
    gain : mapping
        What tuning was worth on questions it did not see; empty where nobody said.
    """

    path: Path
    method: str
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    gain: Mapping[str, Any]

    @property
    def direction(self) -> str | None:
        """``"toward"`` the sink's value or ``"away"`` from it, as OutRo's settings rotate; None where none does."""
        return direction_of(self.settings)

    def differences(self, model: nn.Module | Anatomy) -> list[str]:
        """Say in what a model differs from the one that was tuned; nothing where it is the same.

        What either of the two does not tell is not compared.

        Parameters
        ----------
        model : nn.Module or Anatomy
            The model, or what was read of it.

        Returns
        -------
        list of str
            As ``"hidden_size is 576, was 960"``.
        """
        was, now = self.model["fingerprint"], fingerprint(model)
        told = [key for key in now if now[key] is not None and was.get(key) is not None and now[key] != was[key]]
        shape = [f"{key} is {now[key]}, was {was[key]}" for key in told if key != "weights"]
        return shape or ["it has other weights"] * ("weights" in told)

    def warn(self, model: nn.Module | Anatomy, stacklevel: int) -> None:
        """Give a `ProfileWarning` where the model is another."""
        if found := self.differences(model):
            warnings.warn(self.message(found), ProfileWarning, stacklevel=stacklevel + 1)

    def message(self, differences: list[str]) -> str:
        """Write what is wrong with using the profile."""
        return (
            f"{self.path} was tuned for {self.model['name']}, and this is another model: {'; '.join(differences)}. "
            "Settings belong to a model: tune them for this one"
        )


def fingerprint(model: nn.Module | Anatomy) -> dict[str, Any]:
    """Return what tells a model from others, whatever it is called and wherever it runs.

    Parameters
    ----------
    model : nn.Module or Anatomy
        A transformers model with one text decoder, or what was read of it.

    Returns
    -------
    dict
        Sizes of the text decoder, and under ``weights`` a checksum of the first values of each of its parameters in
        bfloat16, which is the same whether a model runs in float32 or in bfloat16. It is None where parameters are of
        other types, as in a quantised model, or not in memory.
    """
    anatomy = model if isinstance(model, Anatomy) else read_anatomy(model)
    config = anatomy.text_model.config
    shape = {name: getattr(config, name, None) for name in _SHAPE}
    return {**shape, "num_hidden_layers": len(anatomy.layers), "weights": _checksum(anatomy.text_model)}


def _checksum(decoder: nn.Module) -> str | None:
    parameters = list(decoder.parameters())
    if any(p.is_meta or p.dtype not in (torch.float32, torch.bfloat16) for p in parameters):
        return None
    first = parameters[0].device  # One transfer from there, not one for each parameter.
    sample = torch.cat([p.detach().reshape(-1)[:_SAMPLE].to(first, torch.bfloat16) for p in parameters])
    return hashlib.sha256(sample.cpu().view(torch.int16).numpy().astype("<i2").tobytes()).hexdigest()[:16]


def read_profile(path: str | Path) -> Profile:
    """Read a profile.

    Parameters
    ----------
    path : str or Path
        What `omnisink tune` wrote.

    Returns
    -------
    Profile
        What its settings must be, the class of the method says: see `make_method`.

    Raises
    ------
    OmnisinkError
        If it cannot be read, or is not a profile.
    """
    path = Path(path)
    data = parse_object(read_whole(path, _LARGEST), f"{path} is not a profile of omnisink")
    if data.get("format") != FORMAT:
        raise OmnisinkError(
            f"{path} is not a profile of omnisink: its format is {shown(data.get('format'))}, not {FORMAT!r}"
        )
    _same_keys(path, "the profile", data, _NEEDED, _KNOWN)
    if not isinstance(data["method"], str):
        raise OmnisinkError(f"{path}: in the profile, method must be a text, got {shown(data['method'])}")
    for name in ("settings", "model", "gain"):
        if not isinstance(data.get(name, {}), dict):
            raise OmnisinkError(f"{path}: in the profile, {name} must be an object")
    settings, model = data["settings"], data["model"]
    if not isinstance(model.get("name"), str) or not isinstance(model.get("fingerprint"), dict):
        raise OmnisinkError(f"{path}: the profile does not say which model it is for")
    return Profile(path, data["method"], settings, model, data.get("gain", {}))


def make_method(profile: Profile, kind: type[Method]) -> Any:
    """Build a method with the settings of a profile.

    Parameters
    ----------
    profile : Profile
        What was read.
    kind : type of Method
        The profile's class, or one that is derived from it and has defaults for its own settings.

    Returns
    -------
    Method
        Of the class.

    Raises
    ------
    OmnisinkError
        If the profile is of another method, lacks a setting, has one that is not known, or one is of the wrong type
        or out of range.
    """
    path = profile.path
    base = next((one for one in kind.__mro__ if _is_called(one, profile.method)), None)
    if base is None:
        raise OmnisinkError(f"{path}: it is a profile of {shown(profile.method)}, not of {kind.__name__}")
    types = field_types(base)
    # A setting whose default is None may have come later than the profile, and says then that all is as before.
    needed = tuple(one.name for one in fields(base) if one.default is not None)
    _same_keys(path, "the profile's settings", profile.settings, needed, tuple(types))
    values = {}
    for name, value in profile.settings.items():
        try:
            values[name] = from_plain(value, types[name])
        except ValueError as error:  # noqa: PERF203  a handful of settings
            raise OmnisinkError(f"{path}: in the profile, {name} {error}") from None
    try:
        return kind(**values)
    except (ValueError, OverflowError) as error:
        raise OmnisinkError(f"{path}: a setting of the profile is out of range: {error}") from None


def _is_called(kind: type, method: str) -> bool:
    """Whether a class is the one that a profile names; a file may be imported by another name here."""
    if IN_FILE in method:
        return kind.__name__ == method.rpartition(IN_FILE)[2]
    return name_of(kind) == ("outro" if method == "OutRo" else method)


def _same_keys(
    path: Path, what: str, data: Mapping[str, Any], needed: tuple[str, ...], known: tuple[str, ...]
) -> None:
    if missing := [key for key in needed if key not in data]:
        raise OmnisinkError(f"{path}: {what} must not lack {', '.join(missing)}, which every profile has")
    if unknown := [key for key in data if key not in known]:
        raise OmnisinkError(
            f"{path}: {what} must not have {', '.join(unknown)[:200]}, which this version does not know"
        )
