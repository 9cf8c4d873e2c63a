"""Strings of data sets are shown and never run, in the page, its tooltips, and the files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from omnisink.report import write_report
from tests.report.study_results import changed, results
from tests.skips import needs

PAYLOADS = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=2">',
    "</script><script>window.hacked=3</script>",
    "javascript:window.hacked=4",
    "' onmouseover='window.hacked=5' x='",
    "</style></title></textarea><svg onload=window.hacked=6>",
    "<!--<script>",
    "{{ 7 * 7 }}${window.hacked=7}\u2028window.hacked=8//",
    "=cmd|' /C calc'!A0",
    "\u202e\x00\ud800<iframe srcdoc='<script>parent.hacked=9</script>'>",
    "'+alert(1)+'\\",
)


#: What Vega draws with.
TAGS = {"svg", "g", "path", "text", "tspan", "rect", "line", "image", "defs", "clipPath", "linearGradient", "stop"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every string carries every payload or one of them."""
    count = iter(range(10**9))

    def planted(text: str) -> str:
        if text.startswith("data:"):
            return text
        return f"{text}{PAYLOADS[next(count) % len(PAYLOADS)]}"

    consistent: dict[str, str] = {}  # a criterion is the same string wherever it stands
    given = results(layers=4, tokens=60)
    given = changed(given, lambda text: consistent.setdefault(text, planted(text)), float)
    given["example"]["tokens"][1]["text"] = "".join(PAYLOADS)
    given["example"]["frames"][0]["image"] = 'data:image/png;base64,AAAA" onerror="window.hacked=10'
    given["example"]["frames"][1]["image"] = "data:image/svg+xml;base64,PHN2Zy8+"
    given["example"]["frames"][2]["image"] = "javascript:window.hacked=11"
    given["run"]["command"] = "".join(PAYLOADS)
    return write_report(given, tmp_path_factory.mktemp("hostile"))


def test_the_page_has_its_own_elements_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"<script[ >]", text)) == 3
    assert text.count("</script>") == 3
    assert text.count("</style>") == 1
    assert not re.search(r"<(?:img|iframe|svg|textarea)", text.split("<script>")[0])


def test_pictures_in_files_are_clean(page: Path) -> None:
    for path in (page.parent / "charts").glob("*.svg"):
        for element in ElementTree.parse(path).iter():
            tag = element.tag.split("}")[-1]
            assert tag in TAGS, (path.name, tag)
            for name, value in element.attrib.items():
                assert not name.lower().startswith("on"), path.name
                if name.split("}")[-1] == "href":
                    assert value.startswith("data:image/jpeg;base64,"), path.name


def test_tables_hold_no_formulas(page: Path) -> None:
    planted = 0
    for path in (page.parent / "charts").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for value in row.values():
                    planted += "hacked" in value
                    if not re.fullmatch(r"[+-]?[\d.]+(?:e[+-]?\d+)?", value):
                        assert not value.lstrip().startswith(("=", "+", "-", "@")), (path.name, value)
    assert planted > 100


@needs("chromium")
@pytest.mark.slow
def test_nothing_runs_in_a_browser(page: Path, visit: Callable[..., Any]) -> None:
    opened = visit(page)
    tab = opened.page
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    # Over tokens of the map, and over the names and points of the arms.
    shown = set()
    for chart in ("sink-map", "timeline", "arms", "marked-share", "heads"):
        box = tab.locator(f'[data-chart="{chart}"] :is(svg, canvas)')
        box.scroll_into_view_if_needed()
        area = box.bounding_box()
        for across in range(1, 20):
            for down in (0.3, 0.6, 0.8):
                tab.mouse.move(area["x"] + area["width"] * across / 20, area["y"] + area["height"] * down)
                tooltip = tab.locator("#vg-tooltip-element.visible")
                if tooltip.count():
                    shown.add(tooltip.inner_text())
                    elements = tooltip.evaluate("e => [...e.querySelectorAll('*')].map((x) => x.tagName)")
                    assert set(elements) <= {"TABLE", "TBODY", "TR", "TD", "IMG", "H2"}
    assert any("hacked" in text for text in shown)
    for control in tab.locator(".controls select").all():
        control.select_option(index=1)
    tab.wait_for_timeout(200)

    assert tab.evaluate("window.hacked") is None
    assert opened.complaints == []
    assert tab.locator("script").count() == 3
    assert tab.locator("iframe, object, embed, main img, main form").count() == 0
    assert tab.locator('a[href^="javascript:"]').count() == 0
    handlers = (
        "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames()).filter((n) => n.startsWith('on'))"
    )
    assert tab.evaluate(handlers) == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:image/jpeg"))] == []
