"""Sinks by modality: how many of the text, video and audio tokens of a prompt are sinks, and at which layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from omnisink.decoder.spans import masks_of_spans
from omnisink.errors import OmnisinkError, shown
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


def modality_sets(spans: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tokens of each modality as sets that `record` measures attention to.

    Parameters
    ----------
    spans : sequence of sequences of Span
        For every sequence, as `Loaded.spans` returns them; those of a single sequence may stand alone.
    inputs : mapping
        The prompts that they belong to, whose shape is (B, S).

    Returns
    -------
    dict of str to Tensor
        (B, S) bool by modality, in the order in which they first appear.

    Raises
    ------
    OmnisinkError
        If the spans are not those of such prompts.
    """
    if not isinstance(spans, Sequence):
        raise OmnisinkError(f"spans must be what loaded.spans(inputs) returns, got {shown(spans)}")
    rows = [spans] if spans and all(isinstance(span, Span) for span in spans) else spans
    known = (inputs.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    shape = next((tuple(tensor.shape[:2]) for tensor in known if isinstance(tensor, Tensor)), None)
    if shape is None or not all(isinstance(row, Sequence) for row in rows) or len(rows) != shape[0]:
        raise OmnisinkError(
            f"spans has {len(rows)} entries for {'no prompt' if shape is None else f'{shape[0]} prompts'}; give what "
            "loaded.spans(inputs) returns, a list of spans for each sequence"
        )
    return masks_of_spans(rows, shape[1])


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
