"""Profiles that come with omnisink: OutRo's settings for the embedded models."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from omnisink.methods.outro import OutRo
from omnisink.methods.profile import fingerprint

_FOLDER = Path(__file__).with_name("profiles")


def shipped_profile(model: str | nn.Module) -> Path | None:
    """Return the profile that omnisink ships for a model.

    Parameters
    ----------
    model : str or nn.Module
        The name of an embedded model, in any case; or a model, which is known by its weights.

    Returns
    -------
    Path or None
        For `OutRo.from_profile`; None where there is none.
    """
    known = {path.stem: path for path in sorted(_FOLDER.glob("*.json"))}
    if isinstance(model, str):
        return known.get(model.lower())
    own = fingerprint(model)
    if own["weights"] is None:  # Of other types than the profiles were made with: nothing tells it from a sibling.
        return None
    return next((path for path in known.values() if _fingerprint_in(path) == own), None)


def default_outro(model: str) -> OutRo:
    """Return the settings that OutRo starts from for the name of a model: its shipped profile, else the defaults."""
    path = shipped_profile(model)
    return OutRo() if path is None else OutRo.from_profile(path)


def _fingerprint_in(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))["model"]["fingerprint"]
