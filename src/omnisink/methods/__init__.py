"""Methods on a model, one file each, and what they report: the public face for those who use or write methods.

The names below are loaded on first use; `omnisink.methods.registry` names methods by text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnisink.decoder.interface import AttentionCall
    from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads, ZeroSinkKey
    from omnisink.methods.aimed import AimedOutRo
    from omnisink.methods.base import Method, Run
    from omnisink.methods.criteria import MassiveActivation, Positions, RandomTokens, SinkDimension
    from omnisink.methods.hiding import HideTokens, PruneTokens
    from omnisink.methods.marking import SinkMethod
    from omnisink.methods.outro import OutRo
    from omnisink.methods.presets import Preset
    from omnisink.methods.recorder import Recorder, record
    from omnisink.methods.registry import parse_methods, registered_methods
    from omnisink.methods.space import Choices, FloatRange, IntRange, SearchSpace
    from omnisink.methods.trace import Trace

__all__ = [
    "AimedOutRo",
    "AttentionCall",
    "Choices",
    "FloatRange",
    "HideTokens",
    "IntRange",
    "MassiveActivation",
    "Method",
    "OutRo",
    "Positions",
    "Preset",
    "PruneTokens",
    "RandomTokens",
    "Recorder",
    "ReplaceSinkValue",
    "Run",
    "SearchSpace",
    "SinkDimension",
    "SinkMethod",
    "Trace",
    "ZeroHeads",
    "ZeroSinkKey",
    "parse_methods",
    "record",
    "registered_methods",
]

_HOMES = {
    "AimedOutRo": "omnisink.methods.aimed",
    "AttentionCall": "omnisink.decoder.interface",
    "Choices": "omnisink.methods.space",
    "FloatRange": "omnisink.methods.space",
    "IntRange": "omnisink.methods.space",
    "SearchSpace": "omnisink.methods.space",
    "HideTokens": "omnisink.methods.hiding",
    "MassiveActivation": "omnisink.methods.criteria",
    "Method": "omnisink.methods.base",
    "OutRo": "omnisink.methods.outro",
    "Positions": "omnisink.methods.criteria",
    "Preset": "omnisink.methods.presets",
    "PruneTokens": "omnisink.methods.hiding",
    "RandomTokens": "omnisink.methods.criteria",
    "Recorder": "omnisink.methods.recorder",
    "ReplaceSinkValue": "omnisink.methods.ablation",
    "Run": "omnisink.methods.base",
    "SinkDimension": "omnisink.methods.criteria",
    "SinkMethod": "omnisink.methods.marking",
    "Trace": "omnisink.methods.trace",
    "ZeroHeads": "omnisink.methods.ablation",
    "ZeroSinkKey": "omnisink.methods.ablation",
    "parse_methods": "omnisink.methods.registry",
    "record": "omnisink.methods.recorder",
    "registered_methods": "omnisink.methods.registry",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'omnisink.methods' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
