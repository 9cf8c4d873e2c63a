"""Changes with their intervals: conditions of a study, or methods of a comparison, one row each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisink.plotting.canvas import axes_to_draw_on, look_of, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Characters of a name in one line.
_LINE = 44


@dataclass(frozen=True)
class Change:
    """One row.

    Attributes
    ----------
    name : str
        What was done.
    value : float
        The change, in the unit of the axis.
    low, high : float or None
        Ends of its 95 % interval.
    clear : bool
        Whether it holds after correction for the number of tests; its point is filled.
    detectable : float or None
        Smallest difference that these questions would have shown, in the same unit.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    clear: bool = False
    detectable: float | None = None


def draw_changes(changes: Sequence[Change], label: str, heading: str, *, ax: Axes | None = None) -> Axes:
    """Draw every change as a point with its interval, beside a line where nothing changes.

    Parameters
    ----------
    changes : sequence of Change
        At least one; drawn from above.
    label : str
        Name and unit of the axis.
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
    names = [textwrap.fill(change.name, _LINE) for change in changes]
    ax = axes_to_draw_on(ax, 8.4, 0.16 * sum(name.count("\n") + 1 for name in names) + 0.14 * len(names) + 1.2)
    look, rows = look_of(ax), range(len(changes))
    ax.axvline(0, color=look.soft, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    hidden = [(row, change.detectable) for row, change in zip(rows, changes, strict=True) if change.detectable]
    if hidden:
        bars = ax.barh(
            [row for row, _ in hidden], [2 * size for _, size in hidden], left=[-size for _, size in hidden],
            height=0.7, color=look.grid, zorder=0, label="too small to be detected",
        )  # fmt: skip
        for bar in bars:
            bar.sticky_edges.x.clear()  # Or the picture would end where the bar does.
    whole = [(row, c) for row, c in zip(rows, changes, strict=True) if c.low is not None and c.high is not None]
    if whole:
        ax.hlines(
            [row for row, _ in whole], [c.low for _, c in whole], [c.high for _, c in whole],
            color=look.series[0], linewidth=2.2, zorder=2, label="95% interval",
        )  # fmt: skip
    for clear, said in ((False, "change"), (True, "change, p < 0.05 (Holm)")):
        at = [(row, change.value) for row, change in zip(rows, changes, strict=True) if change.clear is clear]
        if at:
            ax.plot(
                [value for _, value in at], [row for row, _ in at], "o", markersize=7, markeredgewidth=1.8, zorder=3,
                markeredgecolor=look.series[0], markerfacecolor=look.series[0] if clear else look.paper, label=said,
            )  # fmt: skip
    ax.set_yticks(rows, names, parse_math=False, fontsize="small")
    ax.set_ylim(len(changes) - 0.4, -0.6)
    ax.grid(axis="x", color=look.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_xlabel(label)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")
    title(ax, heading)
    return ax
