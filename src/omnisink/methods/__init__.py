"""Methods on a model, one file each, and what they report: the public face for those who use or write methods.

The names below are loaded on first use; `omnisink.methods.registry` names methods by text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnisink.decoder.context import AttentionCall, Context
    from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads, ZeroSinkKey
    from omnisink.methods.act import ACT
    from omnisink.methods.asd import ASD
    from omnisink.methods.asd_guidance import ASDGuidance
    from omnisink.methods.avcd import AVCD
    from omnisink.methods.base import Method
    from omnisink.methods.composed import Composed
    from omnisink.methods.composed_trace import ComposedTrace
    from omnisink.methods.contrast import Branch, Contrast
    from omnisink.methods.controls import OutRoControl
    from omnisink.methods.criteria import FirstToken, MassiveActivation, Positions, RandomTokens, SinkDimension
    from omnisink.methods.fork_merge import ForkMerge
    from omnisink.methods.head_ranking import HeadRanking, rank_heads
    from omnisink.methods.icd import ICD
    from omnisink.methods.knockout import KnockoutTokens, PruneTokens
    from omnisink.methods.mad import MAD
    from omnisink.methods.measure import Recorder, record
    from omnisink.methods.outro import OutRo
    from omnisink.methods.outro_trace import OutRoTrace
    from omnisink.methods.pai import PAI
    from omnisink.methods.pai_guidance import PAIGuidance
    from omnisink.methods.plausible import PlausibleTokens
    from omnisink.methods.presets import Preset
    from omnisink.methods.registry import parse_methods, registered_methods
    from omnisink.methods.router_trace import RouterTrace
    from omnisink.methods.sid import SID
    from omnisink.methods.sink_heads import PruneSinkHeads
    from omnisink.methods.sink_method import SinkMethod
    from omnisink.methods.sink_router import SinkRouter
    from omnisink.methods.sink_track import SinkTrack
    from omnisink.methods.space import Choices, FloatRange, IntRange, SearchSpace
    from omnisink.methods.streaming_llm import StreamingLLM
    from omnisink.methods.trace import Trace
    from omnisink.methods.var import VAR
    from omnisink.methods.vcd import VCD
    from omnisink.methods.visflow import VisFlow
    from omnisink.methods.vision_sink_head import VisionSinkHead

__all__ = [
    "ACT",
    "ASD",
    "AVCD",
    "ICD",
    "MAD",
    "PAI",
    "SID",
    "VAR",
    "VCD",
    "ASDGuidance",
    "AttentionCall",
    "Branch",
    "Choices",
    "Composed",
    "ComposedTrace",
    "Context",
    "Contrast",
    "FirstToken",
    "FloatRange",
    "ForkMerge",
    "HeadRanking",
    "IntRange",
    "KnockoutTokens",
    "MassiveActivation",
    "Method",
    "OutRo",
    "OutRoControl",
    "OutRoTrace",
    "PAIGuidance",
    "PlausibleTokens",
    "Positions",
    "Preset",
    "PruneSinkHeads",
    "PruneTokens",
    "RandomTokens",
    "Recorder",
    "ReplaceSinkValue",
    "RouterTrace",
    "SearchSpace",
    "SinkDimension",
    "SinkMethod",
    "SinkRouter",
    "SinkTrack",
    "StreamingLLM",
    "Trace",
    "VisFlow",
    "VisionSinkHead",
    "ZeroHeads",
    "ZeroSinkKey",
    "parse_methods",
    "rank_heads",
    "record",
    "registered_methods",
]

_HOMES = {
    "Branch": "omnisink.methods.contrast",
    "Composed": "omnisink.methods.composed",
    "ComposedTrace": "omnisink.methods.composed_trace",
    "Contrast": "omnisink.methods.contrast",
    "PlausibleTokens": "omnisink.methods.plausible",
    "PAIGuidance": "omnisink.methods.pai_guidance",
    "ASDGuidance": "omnisink.methods.asd_guidance",
    "VCD": "omnisink.methods.vcd",
    "ICD": "omnisink.methods.icd",
    "SID": "omnisink.methods.sid",
    "ForkMerge": "omnisink.methods.fork_merge",
    "AVCD": "omnisink.methods.avcd",
    "MAD": "omnisink.methods.mad",
    "ACT": "omnisink.methods.act",
    "ASD": "omnisink.methods.asd",
    "PAI": "omnisink.methods.pai",
    "VAR": "omnisink.methods.var",
    "VisFlow": "omnisink.methods.visflow",
    "OutRoControl": "omnisink.methods.controls",
    "AttentionCall": "omnisink.decoder.context",
    "Choices": "omnisink.methods.space",
    "FloatRange": "omnisink.methods.space",
    "IntRange": "omnisink.methods.space",
    "SearchSpace": "omnisink.methods.space",
    "HeadRanking": "omnisink.methods.head_ranking",
    "KnockoutTokens": "omnisink.methods.knockout",
    "MassiveActivation": "omnisink.methods.criteria",
    "Method": "omnisink.methods.base",
    "OutRo": "omnisink.methods.outro",
    "OutRoTrace": "omnisink.methods.outro_trace",
    "Positions": "omnisink.methods.criteria",
    "Preset": "omnisink.methods.presets",
    "PruneSinkHeads": "omnisink.methods.sink_heads",
    "PruneTokens": "omnisink.methods.knockout",
    "FirstToken": "omnisink.methods.criteria",
    "RandomTokens": "omnisink.methods.criteria",
    "Recorder": "omnisink.methods.measure",
    "ReplaceSinkValue": "omnisink.methods.ablation",
    "RouterTrace": "omnisink.methods.router_trace",
    "SinkRouter": "omnisink.methods.sink_router",
    "Context": "omnisink.decoder.context",
    "SinkDimension": "omnisink.methods.criteria",
    "SinkMethod": "omnisink.methods.sink_method",
    "SinkTrack": "omnisink.methods.sink_track",
    "StreamingLLM": "omnisink.methods.streaming_llm",
    "Trace": "omnisink.methods.trace",
    "VisionSinkHead": "omnisink.methods.vision_sink_head",
    "ZeroHeads": "omnisink.methods.ablation",
    "ZeroSinkKey": "omnisink.methods.ablation",
    "parse_methods": "omnisink.methods.registry",
    "rank_heads": "omnisink.methods.head_ranking",
    "record": "omnisink.methods.measure",
    "registered_methods": "omnisink.methods.registry",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'omnisink.methods' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
