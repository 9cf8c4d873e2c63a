"""The sections of the page, in its order: each has findings, a few words, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnisink.report.charts.components import components
from omnisink.report.charts.direction import direction
from omnisink.report.charts.heads import heads
from omnisink.report.charts.identification import identification
from omnisink.report.charts.intervals import intervals
from omnisink.report.charts.modality_mass import last_token_mass
from omnisink.report.charts.positions import positions
from omnisink.report.charts.sinkmap import sink_map
from omnisink.report.charts.timeline import timeline
from omnisink.report.charts.values import values
from omnisink.report.example import Example
from omnisink.report.figure import Figure
from omnisink.results.wording import spaced, true_minus


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Parameters
    ----------
    name : str
        Its anchor.
    short : str
        Its name in the table of contents.
    title : str
        Its heading.
    words : str
        Introduction of the section, for readers who are new to the subject.
    readings : sequence of str
        Findings of the study, in sentences.
    figures : sequence of Figure
        Its charts.
    """

    name: str
    short: str
    title: str
    words: str
    readings: Sequence[str]
    figures: Sequence[Figure]


def sections_of(results: Mapping[str, Any]) -> list[Section]:
    """Build the sections that cleaned results have figures or sentences for.

    Parameters
    ----------
    results : mapping
        Results of a study, cleaned.

    Returns
    -------
    list of Section
        The sections in the order of the page.
    """
    readings = {name: [*map(true_minus, said or [])] for name, said in (results.get("readings") or {}).items()}
    sections = []
    for name, (short, title, words, draw) in _SECTIONS.items():
        figures = draw(results[name]) if results.get(name) else []
        if figures:
            sections.append(Section(name, short, title, words, readings.get(name, []), figures))
    # A question that has no charts here is shown with what the study says of it.
    for name in readings:
        if name not in _SECTIONS and readings[name]:
            title = spaced(name).capitalize()
            sections.append(Section(name, title, title, "", readings[name], []))
    return sections


def _example(given: Mapping[str, Any]) -> list[Figure]:
    example = Example.of(given)
    if not example.tokens or not example.layers:
        return []
    # The chart that says most stands first: attention along the clip, with its frames and its sound.
    made = [timeline(example), sink_map(example)] if example.timed else [sink_map(example), positions(example)]
    looks = last_token_mass(example)
    return [*made, *([] if looks is None else [looks]), *components(given.get("components") or {}, example)]


def _causality(given: Mapping[str, Any]) -> list[Figure]:
    if not given.get("arms"):
        return []
    caption = "Sorted by the change of the loss."
    title = "What changes when the sink is changed"
    return [intervals("arms", title, given["arms"], caption=caption, table_open=True)]


#: For every section, in the order of the page: its name for the contents, its heading, its words, and what draws it.
_SECTIONS: dict[str, tuple[str, str, str, Callable[[Mapping[str, Any]], list[Figure]]]] = {
    "example": (
        "One example",
        "One example, layer by layer",
        "A single item of the data, as the model read it.",
        _example,
    ),
    "identification": (
        "Which tokens",
        "Which tokens are sinks?",
        "There is more than one way to call a token a sink: an activation that is massive, or one that stands out in"
        " known channels. Here is what each of them marks, and whether it matters that others can see it.",
        identification,
    ),
    "heads": (
        "Heads",
        "Do heads that look at the sink matter?",
        "Each head is removed in turn, and the loss is compared with that of the whole model on the same items.",
        heads,
    ),
    "values": (
        "Values",
        "What does a sink hold?",
        "Attention to a token adds its value to the output. These charts compare the sink's key and value with those"
        " of other tokens, and ask what is left of the output, and of the answer, without them.",
        values,
    ),
    "causality": (
        "Causes",
        "What happens when the sink is changed?",
        "Head outputs are turned toward the sink's value or away from it, or the value is removed, and the same items"
        " are answered again. Nothing else differs, so what changes comes from that.",
        _causality,
    ),
    "direction": (
        "Direction",
        "Does the direction of the sink's value say anything?",
        "Head outputs are turned toward the sink's value and away from it, weakly and strongly, and by the same angles"
        " in other directions. If only the angle counts, the direction carries no information.",
        direction,
    ),
}
