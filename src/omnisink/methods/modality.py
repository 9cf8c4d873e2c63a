"""Sinks by modality: how many of the text, video and audio tokens of a prompt are sinks, and at which layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnisink.methods.sinkmap import SinkMap
from omnisink.models.adapters.spans import Span


@dataclass(frozen=True)
class ModalityCount:
    """The sinks among the tokens of one modality.

    Attributes
    ----------
    modality : str
        ``"text"``, ``"image"``, ``"video"`` or ``"audio"``.
    tokens : int
        Tokens of the modality in the prompt.
    sinks : tuple of int
        Positions that are a sink at one layer at least, ascending.
    layers : tuple of int
        Layers at which one of its tokens is a sink, ascending.
    """

    modality: str
    tokens: int
    sinks: tuple[int, ...]
    layers: tuple[int, ...]


def count_by_modality(sinks: SinkMap, spans: Sequence[Span], sequence: int = 0) -> list[ModalityCount]:
    """Count the sinks of one sequence by modality.

    Parameters
    ----------
    sinks : SinkMap
        Of the prompt.
    spans : sequence of Span
        The sequence's spans, as `Loaded.spans` returns them for each.
    sequence : int
        Which sequence.

    Returns
    -------
    list of ModalityCount
        In the order in which the modalities first appear.
    """
    owner = {p: span.modality for span in spans for p in range(span.start, span.stop)}
    counts = []
    for modality in dict.fromkeys(span.modality for span in spans):
        marked = {
            layer: [p for p in sinks.positions(layer, sequence) if owner.get(p) == modality] for layer in sinks.layers
        }
        counts.append(
            ModalityCount(
                modality,
                sum(1 for kind in owner.values() if kind == modality),
                tuple(sorted({p for found in marked.values() for p in found})),
                tuple(layer for layer, found in marked.items() if found),
            )
        )
    return counts


def label_tokens(texts: Sequence[str], spans: Sequence[Span]) -> list[str]:
    """Name every token: its text, or for a picture or a sound what it stands for, as ``"<audio 1.04-1.08 s>"``.

    Parameters
    ----------
    texts : sequence of str
        (S,) the text of every token.
    spans : sequence of Span
        Of the sequence.

    Returns
    -------
    list of str
        (S,).
    """
    labels = list(texts)
    for span in spans:
        if span.modality != "text":
            for position in range(span.start, span.stop):
                labels[position] = f"<{span.describe(position)}>"
    return labels
