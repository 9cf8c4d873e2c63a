"""omnisink finds, explains and uses attention sinks in multimodal language models.

The names below are loaded on first use, so that the command line can show its help without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnisink.errors import MediaError, OmnisinkError, UnsupportedModelError

if TYPE_CHECKING:
    from omnisink.evaluation.evaluate import evaluate
    from omnisink.methods.find import find_sinks
    from omnisink.methods.measure import record
    from omnisink.methods.outro import OutRo
    from omnisink.methods.sinkmap import SinkMap
    from omnisink.models.loading import load_model

__version__ = "0.1.0"

__all__ = [
    "MediaError",
    "OmnisinkError",
    "OutRo",
    "SinkMap",
    "UnsupportedModelError",
    "evaluate",
    "find_sinks",
    "load_model",
    "record",
]

_HOMES = {
    "OutRo": "omnisink.methods.outro",
    "SinkMap": "omnisink.methods.sinkmap",
    "evaluate": "omnisink.evaluation.evaluate",
    "find_sinks": "omnisink.methods.find",
    "load_model": "omnisink.models.loading",
    "record": "omnisink.methods.measure",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'omnisink' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
