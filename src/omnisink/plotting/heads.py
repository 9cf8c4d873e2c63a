"""Attention mass by head: a heat map of layers and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from omnisink.plotting.canvas import (
    axes_to_draw_on,
    colour_bar,
    finite_or_masked,
    look_of,
    number_columns,
    number_rows,
    ramp,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_heads(mass: NDArray[Any], layers: Sequence[int], name: str, *, ax: Axes | None = None) -> Axes:
    """Draw how much of its attention every head places on a set of tokens.

    Parameters
    ----------
    mass : ndarray
        (layer, head), from 0 to 1; NaN where a layer has no such head, drawn as empty.
    layers : sequence of int
        Number of each row.
    name : str
        What the set is called.
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
    rows, heads = mass.shape
    ax = axes_to_draw_on(ax, min(10.0, max(4.2, 0.3 * heads + 2.0)), max(3.0, 0.13 * rows + 1.4))
    percent = finite_or_masked(100 * mass)
    # A light square must mean little attention, not the least of this picture: the scale begins at nothing.
    top = max(1.0, float(percent.max())) if percent.count() else 100.0
    image = ax.imshow(
        percent, cmap=ramp(look_of(ax)), vmin=0, vmax=top, origin="lower", aspect="auto", interpolation="nearest"
    )
    number_rows(ax, layers, "layer")
    number_columns(ax, range(heads), "head")
    colour_bar(ax, image, "attention mass (%)")
    title(ax, f"Attention of each head to: {name}")
    return ax
