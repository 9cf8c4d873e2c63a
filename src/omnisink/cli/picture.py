"""A sink map in characters: layers downward, tokens to the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnisink.methods.sinkmap import SinkMap
    from omnisink.models.adapters.spans import Span

#: The least |h| that a character stands for.
_SHADES = ((10_000.0, "#"), (1_000.0, "O"), (100.0, "o"), (0.0, "."))
_MARGIN = 8


def draw_sinks(sinks: SinkMap, spans: Sequence[Span], width: int = 80, rows: int = 15) -> str:
    """Draw the largest activations of one prompt.

    Parameters
    ----------
    sinks : SinkMap
        With magnitudes; the first sequence is drawn.
    spans : sequence of Span
        What its tokens are.
    width : int
        Characters in a line at most, those of the margin included.
    rows : int
        Lines of layers at most. A character holds several tokens and layers where there are more, and shows the
        largest.

    Returns
    -------
    str
        A line of modalities, lines of layers, and what the characters mean.
    """
    layers, length = sorted(sinks.magnitudes), int(sinks.token_mask.shape[1])
    if not layers or not length:
        return "no activations were recorded"
    group, wide = -(-len(layers) // rows), -(-length // max(1, width - _MARGIN))
    kinds = {p: span.modality[0] for span in spans for p in range(span.start, span.stop)}
    lines = [f"{'':{_MARGIN}}" + "".join(kinds.get(p, "t") for p in range(0, length, wide))]
    for i in range(0, len(layers), group):
        held = layers[i : i + group]
        peaks = [max(column) for column in zip(*(sinks.magnitudes[x][0].tolist() for x in held), strict=True)]
        cells = (max(peaks[p : p + wide]) for p in range(0, length, wide))
        name = str(held[0]) if len(held) == 1 else f"{held[0]}-{held[-1]}"
        lines.append(f"{name:>{_MARGIN - 1}} " + "".join(_shade(value) for value in cells))
    several = f"; {wide} tokens a character" if wide > 1 else ""
    lines.append(
        f"down: layers; across: tokens (t text, i image, v video, a audio){several}\n"
        "|h|: . under 100, o from 100, O from 1,000, # from 10,000"
    )
    return "\n".join(lines)


def _shade(value: float) -> str:
    return next((sign for least, sign in _SHADES if value >= least), "?")
