"""A trace as it is looked at: in a line, in a notebook, and as a table of pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.methods.sinkmap_views import in_brief
from omnisink.results.frames import html_table

if TYPE_CHECKING:
    from omnisink.methods.trace import Trace


def trace_in_brief(trace: Trace) -> str:
    """Say in one line what was found and done. A trace that cannot be read says why; looking at it never raises."""
    if trace.is_empty:
        return "no prompt has been run inside the block"
    try:
        parts = [f"on model.{trace.decoder}"] if trace.decoder else []
        parts.append(in_brief(trace.sinks))
        if rotated := _of(trace, "rotated_tokens"):
            parts.append(f"{sum(rotated.values()):,d} token positions rotated at {len(rotated)} layers")
        if relaxed := _of(trace, "relaxed"):
            parts.append(f"{len(relaxed):,d} row{'s' * (len(relaxed) > 1)} relaxed")
        if skipped := trace.skipped_layers:
            parts.append(f"{len(skipped)} layer{'s' * (len(skipped) > 1)} skipped")
    except OmnisinkError as error:
        return f"it cannot be read: {error}"
    return "; ".join(parts)


def trace_in_html(trace: Trace) -> str:
    """Return the line, and a row for every layer where something was found or done, as HTML."""
    title = f"{type(trace).__name__}: {trace_in_brief(trace)}"
    try:
        columns = {} if trace.is_empty else trace_columns(trace)
    except OmnisinkError:
        columns = {}
    rows = [row for row in zip(*columns.values(), strict=True) if any(row[1:])]
    return html_table(title, list(columns), rows)


def trace_columns(trace: Trace) -> dict[str, list[Any]]:
    """Return the columns of `Trace.to_dataframe`."""
    sinks, relaxed, rotated = trace.sinks, _of(trace, "relaxed") or [], _of(trace, "rotated_tokens") or {}
    skipped = trace.skipped_layers
    layers = sorted({*sinks.examined, *rotated, *skipped, *(layer for layer, _, _ in relaxed)})
    return {
        "layer": layers,
        "sinks": [int(sinks.masks[layer].sum()) if layer in sinks else 0 for layer in layers],
        "relaxed": [sum(1 for at, _, _ in relaxed if at == layer) for layer in layers],
        "rotated": [rotated.get(layer, 0) for layer in layers],
        "skipped": [skipped.get(layer, "") for layer in layers],
    }


def _of(trace: Trace, name: str) -> Any:
    """Return what the trace of a method reports beside the sinks, where it does."""
    return getattr(trace, name, None)
