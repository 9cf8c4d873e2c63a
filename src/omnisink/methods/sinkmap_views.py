"""A sink map as it is looked at: in a line, as a table of text, of HTML and of pandas, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisink.errors import OmnisinkError
from omnisink.methods.sinkmap_file import by_sequence
from omnisink.results.frames import html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from omnisink.methods.sinkmap import SinkMap
    from omnisink.models.adapters.spans import Span

#: Sinks that are named in one line; more are counted.
_NAMED = 4


def table_of(sinks: SinkMap, tokens: Sequence[Any] | None, sequence: int | None) -> str:
    """Draw the table of `SinkMap.table`."""
    head, *rows = rows_of(sinks, tokens, sequence)
    if not rows:
        return f"no sinks at the {len(sinks.examined)} layers examined"
    rows.insert(0, head)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def rows_of(sinks: SinkMap, tokens: Sequence[Any] | None, sequence: int | None) -> list[list[str]]:
    """Return the heads of the table and its rows, one for each group of neighbouring layers with the same sinks."""
    texts = None if tokens is None else by_sequence(tokens, sinks.token_mask.shape[1])
    chosen = range(len(sinks.token_mask)) if sequence is None else [sequence]
    many = len(chosen) > 1
    head = (["sequence"] if many else []) + ["layers", "positions"]
    head += (["tokens"] if texts is not None else []) + (["largest |h|"] if sinks.magnitudes else [])
    rows = [head]
    for b in chosen:
        marked = [(layer, sinks.positions(layer, b)) for layer in sinks.examined]
        numbered = [(i - layer, layer, found) for i, (layer, found) in enumerate(marked)]
        for (_, found), group in groupby(numbered, key=lambda item: (item[0], tuple(item[2]))):
            if not found:
                continue
            span = [layer for _, layer, _ in group]
            row = [str(b)] if many else []
            row += [str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}", " ".join(map(str, found))]
            if texts is not None:
                row.append(" ".join(repr(texts[b][p]) for p in found))
            if sinks.magnitudes:
                peak = [max(sinks.magnitude(layer, b), default=0.0) for layer in span]
                row.append(f"{min(peak):,.0f}" if min(peak) == max(peak) else f"{min(peak):,.0f} to {max(peak):,.0f}")
            rows.append(row)
    return rows


def in_brief(sinks: SinkMap) -> str:
    """Say in one line how much was examined, and where the sinks are."""
    batch, length = sinks.token_mask.shape
    asked = f"1 sequence of {length}" if batch == 1 else f"{batch} sequences of up to {length}"
    about = f"{asked} token{'s' * (length != 1)}, {len(sinks)} layer{'s' * (len(sinks) != 1)} examined"
    marked = sorted({(b, p) for layer in sinks.layers for b, p in sinks.masks[layer].nonzero().tolist()})
    if not marked:
        return f"{about}; no sinks"
    if len(marked) > _NAMED:
        return f"{about}; {len(marked):,d} tokens are sinks, at {_at(sinks.layers)}"
    said = []
    for b, p in marked:
        layers = [layer for layer in sinks.layers if bool(sinks.masks[layer][b, p])]
        where = f"position {p}" if batch == 1 else f"position {p} of sequence {b}"
        said.append(f"{where} at {_at(layers)}")
    return f"{about}; sinks: {', '.join(said)}"


def in_html(sinks: SinkMap) -> str:
    """Return the line and the table as HTML."""
    head, *rows = rows_of(sinks, None, None)
    return html_table(f"SinkMap: {in_brief(sinks)}", head, rows)


def columns_of(sinks: SinkMap, tokens: Sequence[Any] | None, only_sinks: bool) -> dict[str, Any]:
    """Return the columns of `SinkMap.to_dataframe`."""
    token_mask = sinks.token_mask.cpu()
    texts = None if tokens is None else by_sequence(tokens, token_mask.shape[1])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("sequence", "layer", "position", "sink", "magnitude", *(["token"] if texts else []))
    }
    for layer in sinks.examined:
        marked = sinks.masks[layer].cpu()
        size = sinks.magnitudes.get(layer)
        chosen = (marked if only_sinks else token_mask).nonzero()
        b, p = chosen[:, 0], chosen[:, 1]
        columns["sequence"] += b.tolist()
        columns["position"] += p.tolist()
        columns["layer"] += [layer] * len(chosen)
        columns["sink"] += marked[b, p].tolist()
        columns["magnitude"] += [float("nan")] * len(chosen) if size is None else size.cpu().float()[b, p].tolist()
        if texts:
            columns["token"] += [texts[i][j] for i, j in chosen.tolist()]
    return columns


def draw(
    sinks: SinkMap,
    tokens: Sequence[str] | None,
    spans: Sequence[Span] | None,
    sequence: int,
    positions: Sequence[int] | None,
    ax: Axes | None,
) -> Axes:
    """Draw one sequence; see `SinkMap.plot`."""
    from omnisink.plotting.sink_map import draw_sink_map

    batch, length = sinks.token_mask.shape
    if not 0 <= sequence < batch:
        raise OmnisinkError(f"there is no sequence {sequence}: the map has sequences 0 to {batch - 1}")
    if not sinks.examined:
        raise OmnisinkError("there is nothing to draw: no layer was examined")
    if positions is None:
        chosen = sinks.token_mask[sequence].nonzero().flatten().tolist()
    else:
        chosen = list(positions)
        if not chosen or not all(0 <= p < length for p in chosen):
            raise OmnisinkError(f"positions must name tokens from 0 on, of {length}, got {chosen[:8]}")
    layers = sinks.examined
    known = sinks.magnitudes.keys() & set(layers)
    sizes = np.full((len(layers), len(chosen)), np.nan)
    for row, layer in enumerate(layers):
        if layer in known:
            sizes[row] = sinks.magnitudes[layer][sequence, chosen].float().cpu()
    owner = {p: span.modality for span in spans or () for p in range(span.start, span.stop)}
    rows = None if tokens is None else by_sequence(tokens, length)
    texts = None if rows is None else rows[sequence if len(rows) > 1 else 0]
    return draw_sink_map(
        np.stack([sinks.masks[layer][sequence, chosen].cpu().numpy() for layer in layers]),
        layers,
        chosen,
        magnitude=sizes if known else None,
        tokens=None if texts is None else [texts[p] for p in chosen],
        modalities=None if spans is None else [owner.get(p) for p in chosen],
        ax=ax,
    )


def _at(layers: Sequence[int]) -> str:
    """Write ascending layers in short, as ``"layers 3, 12-27"``."""
    texts = []
    for _, group in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0]):
        run = [layer for _, layer in group]
        texts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return f"layer{'s' * (len(layers) > 1)} {', '.join(texts)}"
