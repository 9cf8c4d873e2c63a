"""What methods are called: omnisink's own, those of other packages, and those in a file that a user names."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

#: Entry points of this group name a subclass of `Method`.
GROUP = "omnisink.methods"
#: The model without any method.
BASELINE = "baseline"
#: In the list of a run: the baseline, and every method that the model and the task admit as it is.
ALL = "all"
#: What stands between a file and the class in it.
IN_FILE = "::"
#: Attribute of classes that came from a file: the file, as the user named it.
FILE_ATTRIBUTE = "_omnisink_file"
#: The package's own methods, by name; a file is imported when its method is named.
BUILT_IN: dict[str, str] = {
    "outro": "omnisink.methods.outro:OutRo",
    "outro-control": "omnisink.methods.controls:OutRoControl",
    "replace-sink-value": "omnisink.methods.ablation:ReplaceSinkValue",
    "zero-sink-key": "omnisink.methods.ablation:ZeroSinkKey",
    "zero-heads": "omnisink.methods.ablation:ZeroHeads",
    "knockout-tokens": "omnisink.methods.knockout:KnockoutTokens",
    "vcd": "omnisink.methods.vcd:VCD",
    "icd": "omnisink.methods.icd:ICD",
    "avcd": "omnisink.methods.avcd:AVCD",
    "mad": "omnisink.methods.mad:MAD",
    "sid": "omnisink.methods.sid:SID",
    "fork-merge": "omnisink.methods.fork_merge:ForkMerge",
    "pai-guidance": "omnisink.methods.pai_guidance:PAIGuidance",
    "asd-guidance": "omnisink.methods.asd_guidance:ASDGuidance",
    "plausible-tokens": "omnisink.methods.plausible:PlausibleTokens",
    "sink-router": "omnisink.methods.sink_router:SinkRouter",
    "var": "omnisink.methods.var:VAR",
    "pai": "omnisink.methods.pai:PAI",
    "asd": "omnisink.methods.asd:ASD",
    "act": "omnisink.methods.act:ACT",
    "visflow": "omnisink.methods.visflow:VisFlow",
    "prune-sink-heads": "omnisink.methods.sink_heads:PruneSinkHeads",
    "sink-track": "omnisink.methods.sink_track:SinkTrack",
    "vision-sink-head": "omnisink.methods.vision_sink_head:VisionSinkHead",
    "streaming-llm": "omnisink.methods.streaming_llm:StreamingLLM",
}


def outside_methods() -> list[EntryPoint]:
    """Return the entry points of other packages that name a method, in order; nothing is imported."""
    return sorted(entry_points(group=GROUP), key=lambda one: one.name)


def file_of(kind: type) -> str | None:
    """Return the file that a class was named by, as it was named; None for classes of packages."""
    found: str | None = getattr(kind, FILE_ATTRIBUTE, None)
    return found


def name_of(kind: type) -> str:
    """Return the name by which a class is found; ``module::Class`` where no name finds it."""
    if (file := file_of(kind)) is not None:
        return f"{file}{IN_FILE}{kind.__name__}"
    home = f"{kind.__module__}:{kind.__name__}"
    others = {point.value: point.name for point in outside_methods()}
    own = {where: name for name, where in BUILT_IN.items()}
    return own.get(home) or others.get(home) or f"{kind.__module__}{IN_FILE}{kind.__name__}"
