"""The sink map: the largest activation of every token at every layer, with the sinks outlined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnisink.plotting.canvas import (
    axes_to_draw_on,
    colour_bar,
    drawable,
    finite_or_masked,
    look_of,
    number_rows,
    ramp,
    title,
)
from omnisink.plotting.marks import grouped, layers_in_words
from omnisink.plotting.palette import MODALITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Columns that can be named by their tokens; more are numbered.
_NAMED = 64
#: Sinks that are named in the picture; more are counted.
_LABELLED = 4


def draw_sink_map(
    marked: NDArray[np.bool_],
    layers: Sequence[int],
    positions: Sequence[int],
    *,
    magnitude: NDArray[Any] | None = None,
    tokens: Sequence[str] | None = None,
    modalities: Sequence[str | None] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw layers upward and tokens along; colour is the largest activation, an outline is a sink.

    Parameters
    ----------
    marked : ndarray of bool
        (layer, token), True at sinks.
    layers, positions : sequence of int
        Number of each row and of each column.
    magnitude : ndarray, optional
        (layer, token), largest |h|; NaN is drawn as empty. None draws the marks alone.
    tokens : sequence of str, optional
        Texts of the columns, drawn where they fit.
    modalities : sequence of str, optional
        Modality of each column, drawn as a strip above the map; None belongs to none.
    ax : Axes, optional
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        With everything drawn.

    Raises
    ------
    OmnisinkError
        If Matplotlib is not installed.
    """
    rows, columns = marked.shape
    ax = axes_to_draw_on(ax, min(12.0, max(6.0, 0.16 * columns)), max(2.8, 0.11 * rows + 1.6))
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    look = look_of(ax)
    where = {"extent": (-0.5, columns - 0.5, -0.5, rows - 0.5), "origin": "lower", "aspect": "auto"}
    if magnitude is None:
        ax.imshow(np.zeros(marked.shape), cmap=ramp(look), vmin=0, vmax=1, interpolation="nearest", **where)
    else:
        _draw_magnitude(ax, magnitude, where)
    runs = _outline(ax, marked)
    number_rows(ax, layers, "layer")
    if tokens is not None and columns <= _NAMED:
        ax.set_xticks(range(columns), [drawable(t) for t in tokens], rotation=90, fontsize="x-small", parse_math=False)
        ax.set_xlabel("token")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{positions[round(x)]}" if 0 <= round(x) < columns else "")
        )
        ax.set_xlabel("token position")
    title(ax, _said(runs, layers, positions))
    if modalities is not None:
        _strip(ax, modalities)
    return ax


def _draw_magnitude(ax: Axes, magnitude: NDArray[Any], where: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    shown = np.where(magnitude > 0, magnitude, np.nan)
    known = shown[np.isfinite(shown)]
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 10.0)
    norm = LogNorm(low, max(high, low * 1.01))
    image = ax.imshow(finite_or_masked(shown), cmap=ramp(look_of(ax)), norm=norm, interpolation="nearest", **where)
    colour_bar(ax, image, "largest |h| of the token", "{x:,.10g}" if high < 1e6 else None)


def _outline(ax: Axes, marked: NDArray[np.bool_]) -> list[tuple[int, list[tuple[int, int]]]]:
    """Outline the sinks and point at their columns; return the runs of rows of every column with one."""
    from matplotlib.patches import Rectangle

    look, runs = look_of(ax), []
    for column in np.flatnonzero(marked.any(axis=0)):
        found = grouped([int(row) for row in np.flatnonzero(marked[:, column])])
        runs.append((int(column), found))
        for first, last in found:
            # The width of a line is in points, so that one column among thousands is still seen.
            box = Rectangle((column - 0.5, first - 0.5), 1, last - first + 1, fill=False, edgecolor=look.series[1])
            box.set(linewidth=1.5, zorder=3, clip_on=False)
            ax.add_patch(box)
    at = [column for column, _ in runs]
    ax.plot(at, [-0.5] * len(at), "^", color=look.series[1], markersize=6, clip_on=False, zorder=4)
    return runs


def _said(runs: list[tuple[int, list[tuple[int, int]]]], layers: Sequence[int], positions: Sequence[int]) -> str:
    """Write the title: which tokens are sinks, and where."""
    if not runs:
        return "No sinks"
    if len(runs) > _LABELLED:
        held = sorted({row for _, found in runs for first, last in found for row in range(first, last + 1)})
        return f"{len(runs)} tokens are sinks (outlined), at {layers_in_words(grouped(held), layers)}"
    said = [f"token {positions[column]} ({layers_in_words(found, layers)})" for column, found in runs]
    return f"Sinks, outlined: {', '.join(said)}"


def _strip(ax: Axes, modalities: Sequence[str | None]) -> None:
    """Draw the modality of every column just above the map, with a legend."""
    from matplotlib.patches import Patch, Rectangle

    look, start = look_of(ax), 0
    ends = [i for i in range(1, len(modalities) + 1) if i == len(modalities) or modalities[i] != modalities[i - 1]]
    for stop in ends:
        name = modalities[start]
        if name is not None:
            box = Rectangle((start - 0.5, 1.01), stop - start, 0.035, color=look.modality(name), linewidth=0)
            box.set(transform=ax.get_xaxis_transform(), clip_on=False)
            ax.add_patch(box)
        start = stop
    there = [name for name in MODALITIES if name in modalities]
    handles = [Patch(color=look.modality(name), label=name) for name in there]
    ax.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 1.05), ncols=len(there), frameon=False,
        fontsize="small", handlelength=1, handleheight=0.8, borderaxespad=0, columnspacing=1,
    )  # fmt: skip
    ax.set_title(ax.get_title(loc="left"), loc="left", fontsize="medium", pad=26, parse_math=False)
