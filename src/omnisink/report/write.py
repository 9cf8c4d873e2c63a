"""Write the report of a study: the page, and a folder of charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.extras import install
from omnisink.results.disk import atomic_write, os_errors_named

if TYPE_CHECKING:
    from omnisink.report.sections import Section

#: What drawing needs beyond omnisink's own dependencies, by the name that Python imports.
_LIBRARIES = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2", "PIL": "pillow"}


def missing_libraries() -> list[str]:
    """Return the packages that a page needs and that are not installed."""
    return [package for module, package in _LIBRARIES.items() if find_spec(module) is None]


def check_libraries() -> None:
    """Refuse to draw without what drawing needs.

    Raises
    ------
    OmnisinkError
        If a library is not installed.
    """
    if missing := missing_libraries():
        raise OmnisinkError(f"a report needs {' and '.join(missing)}, which cannot be imported; {install('report')}")


def write_report(results: Mapping[str, Any], out: str | Path, *, charts: bool = True) -> Path:
    """Write the results of a study as a page that opens anywhere, and every chart as picture and table.

    Parameters
    ----------
    results : mapping
        Results in the form ``omnisink.study.v1``. Every section but ``"run"`` may be absent; a missing number is None
        or NaN. Strings may be anything: they are shown, never interpreted.
    out : str or Path
        Folder to write into; made where it does not exist. Files of an earlier report in it are replaced.
    charts : bool
        Write the charts as files too; without them the page, which needs none of them, links none.

    Returns
    -------
    Path
        ``out/page.html``. Beside it stand ``out/charts/NAME.png``, ``NAME.svg``, ``NAME.pdf`` and ``NAME.csv`` for
        every chart.

    Raises
    ------
    OmnisinkError
        If the charting libraries are not installed, or the results do not say what was run.
    """
    check_libraries()
    if not isinstance(results.get("run"), Mapping):
        raise OmnisinkError('these are not the results of a study: they have no "run", which says what was measured')
    # Imported here, because these modules need the libraries that were just looked for.
    from omnisink.report.cleaning import clean
    from omnisink.report.page import render
    from omnisink.report.sections import sections_of

    results = clean(results)
    sections = sections_of(results)
    return put(Path(out), sections, render(results, sections, charts=charts), charts)


def put(folder: Path, sections: Sequence[Section], html: str, charts: bool) -> Path:
    """Write a page and, if wanted, its charts.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    sections : sequence of Section
        Sections of the page; their charts are also written as pictures and tables.
    html : str
        The page.
    charts : bool
        Whether to write the charts.

    Returns
    -------
    Path
        Path of the page.

    Raises
    ------
    OmnisinkError
        If a file cannot be written, as on a full disk; the message names it.
    """
    from omnisink.report.export import write_charts

    beside, page = folder / "charts", folder / "page.html"
    with os_errors_named(beside, "made"):
        (beside if charts else folder).mkdir(parents=True, exist_ok=True)
    if charts:
        write_charts([figure for section in sections for figure in section.figures], beside)
    atomic_write(page, html.encode("utf-8", errors="backslashreplace"))
    return page
