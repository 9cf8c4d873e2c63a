"""Charts as files: PNG, SVG and PDF pictures, and their numbers as CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from PIL import Image

from omnisink.plotting.palette import LIGHT
from omnisink.report.figure import Figure
from omnisink.report.theme import config
from omnisink.results.disk import atomic_write
from omnisink.results.spreadsheet import cell

#: Pixels of a PNG for each pixel of the drawing.
SCALE = 1.5


def vega_lite_version() -> str:
    """Return the version of Vega-Lite that altair writes, as vl-convert names it, such as ``"6.4"``."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def write_charts(figures: Iterable[Figure], folder: Path) -> None:
    """Write every figure as ``NAME.png``, ``NAME.svg``, ``NAME.pdf`` and ``NAME.csv``.

    The same figure gives the same bytes, but for PDF, in which the order of objects changes from run to run.

    Parameters
    ----------
    figures : iterable of Figure
        Figures to write.
    folder : Path
        An existing folder.

    Raises
    ------
    OmnisinkError
        If one cannot be written.
    """
    version, look = vega_lite_version(), config(LIGHT) | {"background": LIGHT.paper, "padding": 16}
    for figure in figures:
        spec = figure.whole_spec() | {"title": _heading(figure), "description": figure.alternative}
        # No chart refers to anything outside itself; an empty list of addresses makes sure of it.
        given: dict[str, Any] = {"vl_version": version, "config": look, "allowed_base_urls": []}
        svg = _renumbered(vl_convert.vegalite_to_svg(spec, **given))
        # Written again, because the converter packs its pictures poorly: a tenth to a third of the bytes is left.
        packed = io.BytesIO()
        with Image.open(io.BytesIO(vl_convert.svg_to_png(svg, scale=SCALE))) as picture:
            picture.convert("RGB").save(packed, "PNG", optimize=True)
        table = csv_text(figure).encode("utf-8", errors="backslashreplace")
        pdf = vl_convert.svg_to_pdf(_without_groups(svg))
        for suffix, content in (("png", packed.getvalue()), ("svg", svg.encode()), ("pdf", pdf), ("csv", table)):
            atomic_write(folder / f"{figure.name}.{suffix}", content)


def _renumbered(svg: str) -> str:
    """Count gradients and clips from nought; Vega counts them over all charts that it drew in this process."""
    numbers: dict[str, int] = {}

    def again(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}{numbers.setdefault(found[2] + found[3], len(numbers))}"

    return re.sub(r"""(id="|url\(#)(gradient_|clip)(\d+)""", again, svg)


def _without_groups(svg: str) -> str:
    """Write the opacity of a mark that has only a filling as that of the filling.

    It looks the same, and a PDF gets no transparency group for each mark: a tenth of a large one is left.
    """
    filled = r'<path(?![^>]* (?:stroke|fill-opacity)=)([^>]*) opacity="([\d.]+)"'
    return re.sub(filled, r'<path\1 fill-opacity="\2"', svg)


def csv_text(figure: Figure) -> str:
    """Return the numbers of a figure as CSV."""
    file = io.StringIO(newline="")
    _write_csv(figure, file)
    return file.getvalue()


def _write_csv(figure: Figure, file: Any) -> None:
    names = [name for column in figure.columns for name in (column.name, *column.ends)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell(row.get(name)) for name in names] for row in (*figure.rows, *figure.folded))


def _heading(figure: Figure) -> dict[str, Any]:
    note = f"{figure.caption} {figure.note}".strip()
    return {
        "text": figure.title,
        "subtitle": textwrap.wrap(note, 112),
        "fontSize": 17,
        "frame": "bounds",
        "offset": 16,
    }
