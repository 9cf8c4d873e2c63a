"""Rows with their names above them, not beside: long names then fit a narrow screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

#: Pixels of a row: above the first line of its name, of a line, and from the last line to the marks and to the end.
_ABOVE, _LINE, _TO_MARK, _BELOW = 5, 15, 10, 12
#: Characters of a line, and lines of a name, in a box of `NARROWEST` pixels.
_CHARACTERS, _LINES = 42, 3
#: Rows up to which a name may have all of its lines: every row is as high as that with the longest name.
_FEW = 8
#: Width in pixels that rows with folded names need, and that names in one line get at most.
NARROWEST, _WIDEST = 280, 720


@dataclass(frozen=True)
class Rows:
    """The rows of a chart: where names and marks stand.

    Marks never reach the height of a name, and behind the name there is paper, so that no line runs through it.

    Attributes
    ----------
    count : int
        How many rows, one at least.
    lines : int
        How many lines the longest name has.
    name : str
        Field of the names, with its type.
    """

    count: int
    lines: int = 1
    name: str = "label:N"

    @property
    def down(self) -> int:
        """Pixels from the upper edge of a row to its marks."""
        return _ABOVE + _LINE * self.lines + _TO_MARK

    @property
    def height(self) -> int:
        """Pixels of all rows."""
        return self.count * (self.down + _BELOW)

    def place(self, field: str = "row:O", *, counted: bool = True) -> dict[str, Any]:
        """Return the channels that put a mark into its row.

        Parameters
        ----------
        field : str
            Field that distinguishes the rows, with its type.
        counted : bool
            Whether `field` counts the rows from 0; some may then be empty.

        Returns
        -------
        dict
            Arguments of `encode`.
        """
        return self._at(field, counted, self.down)

    def names(self, base: alt.Chart, field: str = "row:O", *, counted: bool = True) -> list[alt.Chart]:
        """Draw the names; lines of the grid and at zero come before them, marks after them. Arguments as `place`."""
        high = _LINE * self.lines
        behind = base.mark_bar(style="behind", height=high + 2, aria=False).encode(
            x=alt.value(0), x2=alt.value("width"), **self._at(field, counted, _ABOVE + high // 2)
        )
        text = base.mark_text(align="left", baseline="top", lineBreak="\n", lineHeight=_LINE, aria=False).encode(
            x=alt.value(0), text=self.name, **self._at(field, counted, _ABOVE)
        )
        return [behind, text]

    def _at(self, field: str, counted: bool, down: int) -> dict[str, Any]:
        # Said, because Vega-Lite chooses between bands and points by what else is drawn.
        scale = alt.Scale(type="band", padding=0)
        if counted:
            scale = alt.Scale(type="band", padding=0, domain=list(range(self.count)))
        return {"y": alt.Y(field, title=None, axis=None, sort=None, scale=scale), "yOffset": alt.value(down)}


class _Wrapper(textwrap.TextWrapper):
    """Breaks names at spaces, and those of methods with settings after commas and colons."""

    wordsep_re = re.compile(r"(\s+)|(?<=[,:])(?=\S)")


def folded(names: Sequence[str]) -> list[str]:
    """Break names into lines for a narrow box; shorter ones begin with empty lines, so that all end at their marks."""
    most = _LINES if len(set(names)) <= _FEW else _LINES - 1
    wrapper = _Wrapper(_CHARACTERS, max_lines=most, placeholder=" …")
    broken = [wrapper.wrap(name) or [""] for name in names]
    most = max(map(len, broken), default=1)
    return ["\n".join([*[""] * (most - len(lines)), *lines]) for lines in broken]


def fitted(names: Sequence[str], draw: Callable[[Rows], alt.TopLevelMixin]) -> dict[str, Any]:
    """Draw rows for wide boxes, and with names in several lines for those in which the names would be cut.

    Parameters
    ----------
    names : sequence of str
        A name for each row.
    draw : callable
        Draws the chart of some rows. The data have the names as ``label``, and as ``folded`` what `folded` makes of
        them.

    Returns
    -------
    dict
        ``chart``, ``narrow`` and ``narrowest`` of a `Figure`.
    """
    room = min(_WIDEST, 40 + round(6.4 * max(map(len, names), default=0)))
    if room <= NARROWEST:
        return {"chart": draw(Rows(len(names))), "narrowest": NARROWEST}
    lines = max(name.count("\n") + 1 for name in folded(names))
    narrow = draw(Rows(len(names), lines, "folded:N"))
    return {"chart": draw(Rows(len(names))), "narrow": narrow, "narrowest": room}
