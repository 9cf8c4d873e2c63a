"""A sink map in characters, as the page and the figures draw it: layers upward, tokens to the right, sinks named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnisink.plotting.marks import grouped, layers_in_words, marked_tokens

if TYPE_CHECKING:
    from omnisink.methods.sinkmap import SinkMap
    from omnisink.models.adapters.spans import Span

#: The least |h| that a character stands for.
_SHADES = ((10_000.0, "#"), (1_000.0, "O"), (100.0, "o"), (0.0, "."))
_MARGIN = 8
#: Sinks that are named; where there are more, they are counted.
_NAMED = 4


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
        Lines of layers, the first at the bottom; a line of modalities, a line that points at the sinks and names them,
        and what the characters mean.
    """
    layers, length = sorted(sinks.magnitudes), int(sinks.token_mask.shape[1])
    if not layers or not length:
        return "no activations were recorded"
    group, wide = -(-len(layers) // rows), -(-length // max(1, width - _MARGIN))
    kinds = {p: span.modality[0] for span in spans for p in range(span.start, span.stop)}
    lines = []
    for i in reversed(range(0, len(layers), group)):
        held = layers[i : i + group]
        peaks = [max(column) for column in zip(*(sinks.magnitudes[x][0].tolist() for x in held), strict=True)]
        cells = (max(peaks[p : p + wide]) for p in range(0, length, wide))
        name = str(held[0]) if len(held) == 1 else f"{held[0]}-{held[-1]}"
        lines.append(f"{name:>{_MARGIN - 1}} " + "".join(_shade(value) for value in cells))
    marked = [(layer, position) for layer in sinks.layers for position in sinks.positions(layer)]
    at = {position // wide for _, position in marked}
    lines.append(f"{'':{_MARGIN}}" + "".join(kinds.get(p, "t") for p in range(0, length, wide)))
    lines.append(f"{'':{_MARGIN}}" + "".join("^" if p in at else " " for p in range(max(at, default=-1) + 1)))
    several = f"; {wide} tokens a character" if wide > 1 else ""
    lines.append(
        f"{_said(marked)}\n"
        f"up: layers; across: tokens (t text, i image, v video, a audio){several}\n"
        "|h|: . under 100, o from 100, O from 1,000, # from 10,000"
    )
    return "\n".join(line.rstrip() for line in lines)


def _said(marked: Sequence[tuple[int, int]]) -> str:
    """Name the sinks that the line above points at, or count them."""
    found = marked_tokens(marked)
    if not found:
        return "no token is a sink"
    if len(found) > _NAMED:
        layers = layers_in_words(grouped(sorted({layer for layer, _ in marked})))
        return f"^ sinks: {len({position for _, position in marked}):,} tokens, at {layers}"
    return f"^ sinks: {'; '.join(one.text for one in found)}"


def _shade(value: float) -> str:
    return next((sign for least, sign in _SHADES if value >= least), "?")
