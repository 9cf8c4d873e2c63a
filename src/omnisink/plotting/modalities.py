"""Attention mass by modality over the layers, with the part that lies on sinks apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnisink.plotting.canvas import axes_to_draw_on, look_of, number_columns, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_modalities(
    mass: Mapping[str, NDArray[Any]],
    on_sinks: Mapping[str, NDArray[Any]],
    layers: Sequence[int],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw stacked bands: for each modality the attention to its sinks, hatched, and to its other tokens.

    Parameters
    ----------
    mass : mapping of str to ndarray
        (layer,) by modality, from 0 to 1: attention to all its tokens, sinks included.
    on_sinks : mapping of str to ndarray
        (layer,) by modality: the part of it that lies on sinks.
    layers : sequence of int
        The layers, in order.
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
    ax = axes_to_draw_on(ax, 7.0, 3.6)
    look, below = look_of(ax), np.zeros(len(layers))
    # A single layer has no width: its band is drawn half a layer to either side.
    edges = np.arange(len(layers)) if len(layers) > 1 else np.array([-0.4, 0.4])
    for hatched, parts in ((True, on_sinks), (False, {n: m - on_sinks.get(n, 0.0) for n, m in mass.items()})):
        for name, part in parts.items():
            share = np.nan_to_num(100 * part)
            if not (share > 0).any():
                continue
            band = np.broadcast_to(np.stack([below, below + share]), (2, len(layers)))
            low, high = (np.repeat(edge, 2) if len(layers) == 1 else edge for edge in band)
            # Not `color=`: newer versions of Matplotlib then draw the hatch in it too, on itself.
            lines = {"hatch": "///", "edgecolor": look.paper} if hatched else {}
            area = ax.fill_between(edges, low, high, facecolor=look.modality(name), linewidth=0, **lines)
            area.set_label(f"{name}, sinks" if hatched else name)
            below = below + share
    ax.set_ylim(0, 100)
    ax.margins(x=0)
    ax.set_ylabel("attention mass (%)")
    number_columns(ax, layers, "layer")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, reverse=True)
    title(ax, "Attention by modality, mean over heads")
    return ax
