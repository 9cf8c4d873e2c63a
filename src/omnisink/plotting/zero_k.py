"""Zero-K as a curve: what is left, or what changes, when the sink's largest key channels are set to zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnisink.plotting.canvas import axes_to_draw_on, look_of, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_zero_k(
    channels: Sequence[int],
    values: Sequence[float],
    label: str,
    *,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    heading: str = "Zero-K: the sink's largest key channels set to zero",
    ax: Axes | None = None,
) -> Axes:
    """Draw a value over the number of channels, beginning at n = 0, the unchanged model.

    Parameters
    ----------
    channels : sequence of int
        n, ascending; the axis is linear to 1 and doubles from there on.
    values : sequence of float
        One for each n.
    label : str
        Name and unit of the value.
    low, high : sequence of float, optional
        Ends of the 95 % interval of each.
    heading : str
        The title.
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
    ax = axes_to_draw_on(ax, 5.4, 3.4)
    look = look_of(ax)
    if low is not None and high is not None:
        ax.fill_between(channels, low, high, color=look.series[0], alpha=0.18, linewidth=0, label="95% interval")
        ax.legend(frameon=False, loc="best")
    ax.plot(channels, values, "o-", color=look.series[0], markersize=5, linewidth=1.8, clip_on=False, zorder=3)
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    ax.set_xticks(channels, [str(n) for n in channels])
    ax.minorticks_off()
    ax.set_xlim(0, max(channels))
    if min(values) >= 0 and low is None:
        ax.set_ylim(0)
    else:
        ax.axhline(0, color=look.soft, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.grid(axis="y", color=look.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_xlabel("n, key channels set to zero")
    ax.set_ylabel(label)
    title(ax, heading)
    return ax
