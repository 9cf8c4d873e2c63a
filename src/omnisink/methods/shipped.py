"""Profiles that come with omnisink: settings of OutRo and of SinkRouter for the embedded models.

A file is named after the model, as ``smollm2-135m.json``; where it is of another method than OutRo, after both, as
``smollm2-135m.sink-router.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from omnisink.methods.outro import OutRo
from omnisink.methods.profile import fingerprint
from omnisink.methods.sink_router import SinkRouter

_FOLDER = Path(__file__).with_name("profiles")
_OUTRO = "outro"
_ROUTER = "sink-router"


def shipped_profile(model: str | nn.Module, method: str = _OUTRO) -> Path | None:
    """Return the profile that omnisink ships for a model.

    Parameters
    ----------
    model : str or nn.Module
        The name of an embedded model, in any case; or a model, which is known by its weights.
    method : str
        The name of the method.

    Returns
    -------
    Path or None
        For `from_profile` of the method's class; None where there is none.
    """
    ends = ".json" if method == _OUTRO else f".{method}.json"
    files = [path for path in sorted(_FOLDER.glob("*.json")) if ("." in path.stem) == (method != _OUTRO)]
    known = {path.name.removesuffix(ends): path for path in files if path.name.endswith(ends)}
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


def default_router(model: str) -> SinkRouter:
    """Return the settings that SinkRouter starts from for the name of a model, as `default_outro` does."""
    path = shipped_profile(model, _ROUTER)
    return SinkRouter() if path is None else SinkRouter.from_profile(path)


def _fingerprint_in(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))["model"]["fingerprint"]
