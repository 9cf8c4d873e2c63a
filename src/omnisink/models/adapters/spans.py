"""Spans of text, video and audio tokens, with the times of the clip that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Modality = Literal["text", "image", "video", "audio"]


@dataclass(frozen=True)
class Span:
    """A run of token positions of one sequence.

    Attributes
    ----------
    modality : {"text", "image", "video", "audio"}
        Modality of the tokens.
    start, stop : int
        Positions in the row, padding counted; `stop` is the first that no longer belongs to it.
    begins, ends : float or None
        Seconds of the clip that the tokens stand for; None for text and images.
    """

    modality: Modality
    start: int
    stop: int
    begins: float | None = None
    ends: float | None = None

    def time(self, position: int) -> tuple[float, float] | None:
        """Return the seconds that one token stands for: its share of an audio span, all of a video span."""
        if self.begins is None or self.ends is None:
            return None
        if self.modality != "audio":
            return self.begins, self.ends
        step = (self.ends - self.begins) / (self.stop - self.start)
        return self.begins + (position - self.start) * step, self.begins + (position + 1 - self.start) * step

    def describe(self, position: int) -> str:
        """Say in a few words what a token is, as ``"audio 1.04-1.08 s"``."""
        time = self.time(position)
        if time is None:
            return self.modality
        digits = 2 if self.modality == "audio" else 1
        return f"{self.modality} {time[0]:.{digits}f}-{time[1]:.{digits}f} s"


#: So many tokens of one modality that stand for the time between two seconds.
Unit = tuple[int, float | None, float | None]


def find_spans(
    modalities: Sequence[Modality], token_mask: Sequence[bool], units: dict[Modality, list[Unit]]
) -> list[Span]:
    """Cut one row into spans.

    Parameters
    ----------
    modalities : sequence of str
        Modality of every token, (S,).
    token_mask : sequence of bool
        False at padding, which belongs to no span.
    units : dict of str to list of (int, float, float)
        For a modality, in order: how many of its tokens stand for which seconds. A unit may be spread over several
        runs, where video and audio take turns.

    Returns
    -------
    list of Span
        The spans in order, without overlap.
    """
    queues = {modality: list(found) for modality, found in units.items()}
    kinds = [modality if real else None for modality, real in zip(modalities, token_mask, strict=True)]
    spans: list[Span] = []
    for kind, group in groupby(range(len(kinds)), key=lambda p: kinds[p]):
        if kind is None:
            continue
        positions = list(group)
        start, stop = positions[0], positions[-1] + 1
        queue = queues.get(kind)
        while queue and start < stop:
            count, begins, ends = queue.pop(0)
            taken = min(count, stop - start)
            cut = ends
            if taken < count and begins is not None and ends is not None:
                # Sound is spread evenly over its tokens; a picture stands for all of its time.
                cut = begins + (ends - begins) * taken / count if kind == "audio" else ends
                queue.insert(0, (count - taken, cut if kind == "audio" else begins, ends))
            elif taken < count:
                queue.insert(0, (count - taken, begins, ends))
            spans.append(Span(kind, start, start + taken, begins, cut))
            start += taken
        if start < stop:
            spans.append(Span(kind, start, stop))
    return spans
