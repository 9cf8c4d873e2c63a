"""Rows with their names above them, not beside: long names then fit a narrow screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import altair as alt

#: Height of a row in pixels, and how far below its upper edge the mark stands.
STEP, DOWN = 42, 28


def row_place(field: str, count: int | None = None) -> dict[str, Any]:
    """Return the channels that put a mark into its row.

    Parameters
    ----------
    field : str
        Field that distinguishes the rows, with its type, such as ``"row:O"``.
    count : int, optional
        Number of rows, if `field` counts them and some may be empty.

    Returns
    -------
    dict
        Arguments of `encode`.
    """
    # Said, because Vega-Lite chooses between bands and points by what else is drawn.
    scale = alt.Scale(type="band", padding=0)
    if count is not None:
        scale = alt.Scale(type="band", padding=0, domain=list(range(count)))
    return {"y": alt.Y(field, title=None, axis=None, sort=None, scale=scale), "yOffset": alt.value(DOWN)}


def room_for(names: Iterable[str]) -> int:
    """Return the width in pixels below which the longest name would be cut; what is longer still may be."""
    return min(520, max(280, 40 + round(6.4 * max(map(len, names), default=0))))


def row_names(base: alt.Chart, text: str, place: dict[str, Any]) -> list[alt.Chart]:
    """Draw the names of the rows, and something under them that keeps lines of the grid away."""
    where = {"x": alt.value(0), "text": text} | place
    return [
        base.mark_text(style=style, align="left", baseline="bottom", dy=-5, aria=False).encode(**where)
        for style in ("halo", "text")
    ]
