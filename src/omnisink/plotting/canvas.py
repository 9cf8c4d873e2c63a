"""What every figure shares: Matplotlib when it is needed, axes to draw on, colours that fit them, and plain ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError
from omnisink.plotting.palette import DARK, LIGHT, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

#: Ticks of an axis that names its rows or columns, at most; with more of them, every second or third is named.
_TICKS = 24


def axes_to_draw_on(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the axes that were given, or those of a new figure.

    Parameters
    ----------
    ax : Axes or None
        What the user gave.
    width, height : float
        Size of a new figure, in inches.

    Returns
    -------
    Axes
        To draw on.

    Raises
    ------
    OmnisinkError
        If Matplotlib is not installed, or `ax` is no Axes, as the array that ``plt.subplots(1, 2)`` returns.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.axes import Axes
    except ImportError as error:
        raise OmnisinkError(
            f"plot() needs Matplotlib, which cannot be imported ({error}). Install with: pip install matplotlib"
        ) from error
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    elif not isinstance(ax, Axes):
        raise OmnisinkError(
            f"ax must be one Matplotlib Axes, got {type(ax).__name__}; of several, give one: ax=axes[0]"
        )
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def look_of(ax: Axes) -> Look:
    """Return the colours for the background of the axes."""
    from matplotlib.colors import to_rgba

    red, green, blue, alpha = to_rgba(ax.get_facecolor())
    return DARK if alpha > 0.5 and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else LIGHT


def ramp(look: Look) -> Colormap:
    """Return a scale of colours from little to much; what is no number is drawn as grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("omnisink", list(look.heat)).with_extremes(bad=look.grid)


def title(ax: Axes, text: str) -> None:
    """Write a title at the left, as it is."""
    ax.set_title(text, loc="left", fontsize="medium", parse_math=False)


def number_rows(ax: Axes, names: Sequence[Any], label: str) -> None:
    """Name the rows of a picture whose rows are drawn at 0, 1, 2, ...; y runs upward."""
    step = -(-len(names) // _TICKS)
    ax.set_yticks(range(0, len(names), step), [str(name) for name in names[::step]])
    ax.set_ylabel(label)


def number_columns(ax: Axes, names: Sequence[Any], label: str) -> None:
    """Name the columns of a picture whose columns are drawn at 0, 1, 2, ..."""
    step = -(-len(names) // _TICKS)
    ax.set_xticks(range(0, len(names), step), [str(name) for name in names[::step]])
    ax.set_xlabel(label)


def colour_bar(ax: Axes, mapped: Any, label: str, form: str | None = None) -> None:
    """Put the scale of colours beside the axes, with its unit."""
    figure = ax.get_figure()
    if figure is not None:
        bar = figure.colorbar(mapped, ax=ax, label=label, format=form, pad=0.02)
        bar.outline.set_visible(False)


def drawable(text: str) -> str:
    """Return a token's text as the default font can draw it: a box stands for what it has no glyph for."""
    from matplotlib import font_manager

    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    for sign, shown in (("Ġ", " "), ("▁", " "), ("Ċ", "⏎"), ("\n", "⏎"), ("\t", "→")):
        text = text.replace(sign, shown)
    seen = "".join(c if ord(c) in known else "□" for c in text.strip() or "␣")
    return seen if len(seen) <= 18 else f"{seen[:17]}…"


def finite_or_masked(values: NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
    """Mask what is no number, so that it is drawn as empty."""
    return np.ma.masked_invalid(values)
