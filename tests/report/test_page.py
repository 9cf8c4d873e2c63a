"""The page as a reader meets it: opened from its file in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_write import NAMES
from tests.skips import needs

pytestmark = [needs("chromium"), pytest.mark.slow]
Open = Callable[..., Any]


def picture(tab: Any, name: str) -> bytes:
    """Return what a chart looks like."""
    return tab.locator(f'[data-chart="{name}"]').screenshot()


def becomes_other(tab: Any, name: str, before: bytes) -> bool:
    """Say whether a chart looks different before long; a busy machine takes its time to draw."""
    for _ in range(50):
        if picture(tab, name) != before:
            return True
        tab.wait_for_timeout(100)
    return False


def test_it_draws_every_chart_and_asks_for_nothing(report: Path, visit: Open) -> None:
    opened = visit(report)
    drawn = opened.page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-chart]')]"
        ".map((e) => [e.dataset.chart, e.querySelectorAll(':is(svg, canvas)').length]))"
    )
    assert drawn == dict.fromkeys(NAMES, 1)
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:image/")] == [report.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_study_of_one_item_draws_without_a_word(quick_report: Path, visit: Open, scheme: str) -> None:
    """Without intervals, and whatever the controls leave of the data, nothing is written to the console."""
    opened = visit(quick_report, scheme=scheme)
    tab = opened.page
    tab.get_by_role("slider", name="From layer").fill("7")
    tab.get_by_role("slider", name="to layer").fill("0")
    opened.until("document.querySelectorAll('[data-chart=heads] svg .mark-symbol path').length === 0")
    for control in tab.locator(".controls select").all():
        for index in range(control.locator("option").count()):
            control.select_option(index=index)
    for layer in range(8):
        tab.locator('[data-controls="timeline"]').get_by_label("Layer").fill(str(layer))
    tab.wait_for_timeout(200)
    assert opened.complaints == []
    ticks = "[...document.querySelectorAll('[data-chart=arms] .role-axis-label text')].map((e) => e.textContent)"
    assert len(set(tab.evaluate(ticks))) >= 4


def test_the_policy_is_in_force(report: Path, visit: Open) -> None:
    opened = visit(report)
    tab = opened.page
    tab.evaluate(
        """() => {
            window.broken = [];
            document.addEventListener("securitypolicyviolation", (e) => window.broken.push(e.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            new Image().src = "http://127.0.0.1:9/x.png";
        }"""
    )
    opened.until("window.broken.length >= 2")
    assert sorted(tab.evaluate("window.broken")) == ["img-src", "script-src-elem"]
    assert tab.evaluate("window.ran") is None


def test_hovering_over_a_token_shows_it_with_its_frame(report: Path, visit: Open) -> None:
    opened = visit(report)
    tab = opened.page
    canvas = tab.locator('[data-chart="sink-map"] canvas')
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    tab.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + area["height"] * 0.4)
    tooltip = tab.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    said = tooltip.inner_text()
    assert "“<video>” at " in said
    assert re.search(r"modality\s+video, \d\.00 to \d\.00 s", said)
    for word in ("layer", "largest |h|", "attention received"):
        assert word in said
    image = tooltip.locator("img")
    assert image.get_attribute("src").startswith("data:image/jpeg;base64,")
    opened.until("document.querySelector('#vg-tooltip-element img').naturalWidth === 64")

    # The outline of a sink does not hide the token under it, nor does it in the panel of marked tokens.
    tab.mouse.move(area["x"] + 49, area["y"] + area["height"] * 0.3)
    opened.until("document.querySelector('#vg-tooltip-element').textContent.includes('<start>')")
    assert tooltip.locator("img").count() == 0
    tab.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + area["height"] * 0.4)
    opened.until("document.querySelector('#vg-tooltip-element').textContent.includes('<video>')")
    tab.mouse.move(area["x"] + 60, area["y"] + area["height"] * 0.75)
    opened.until("document.querySelector('#vg-tooltip-element').textContent.includes('<start>')")


def test_controls_change_what_is_drawn(report: Path, visit: Open) -> None:
    opened = visit(report)
    tab = opened.page
    points = '[data-chart="heads"] svg .mark-symbol path'
    # The legend of layers is a gradient, so that all symbols are heads.
    assert tab.locator(points).count() == 270
    tab.get_by_role("slider", name="From layer").fill("28")
    opened.until(f"document.querySelectorAll('{points}').length === 18")

    for name, change in {
        "sink-map": lambda: tab.get_by_role("radio", name="attention received").check(),
        "marked-share": lambda: tab.get_by_role("combobox", name="Tokens of modality").select_option("video"),
        "stability": lambda: tab.get_by_role("combobox", name="Criterion").select_option("sink dimension"),
        "pruning": lambda: tab.get_by_role("combobox", name="Pruned from layer").select_option(index=1),
        "timeline": lambda: tab.locator('[data-controls="timeline"]').get_by_label("Layer").fill("3"),
    }.items():
        before = picture(tab, name)
        change()
        assert becomes_other(tab, name, before), name
    outlined = picture(tab, "sink-map")
    tab.get_by_role("combobox", name="Outline sinks by").select_option("none")
    assert becomes_other(tab, "sink-map", outlined)


def test_the_keyboard_reaches_and_works_the_controls(report: Path, visit: Open) -> None:
    opened = visit(report)
    tab = opened.page
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    for _ in range(12):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.type") == "range":
            break
    assert tab.evaluate("document.activeElement.closest('[data-controls]').dataset.controls") == "timeline"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before, value = picture(tab, "timeline"), tab.evaluate("document.activeElement.value")
    tab.keyboard.press("ArrowLeft")
    opened.until(f"document.activeElement.value === '{int(value) - 1}'")
    assert becomes_other(tab, "timeline", before)


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_sticks_out_on_a_small_screen(report: Path, visit: Open, width: int) -> None:
    tab = visit(report, width=width, height=740).page
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    # What is wider than the screen scrolls in a box that the keyboard reaches.
    unreachable = (
        "[...document.querySelectorAll('.box')].filter((b) => b.scrollWidth > b.clientWidth && b.tabIndex < 0)"
    )
    assert tab.evaluate(f"{unreachable}.length") == 0


def test_a_dark_screen_gets_a_dark_page_and_keeps_its_controls(report: Path, visit: Open) -> None:
    opened = visit(report)
    tab = opened.page
    tab.locator('[data-controls="timeline"]').get_by_label("Layer").fill("20")
    light = picture(tab, "norms")
    background = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(background) == "rgb(255, 255, 255)"
    tab.emulate_media(color_scheme="dark")
    opened.drawn("dark")
    assert tab.evaluate(background) == "rgb(20, 24, 29)"
    assert picture(tab, "norms") != light
    themes = "[...new Set([...document.querySelectorAll('[data-chart]')].map((e) => e.dataset.theme))]"
    assert tab.evaluate(themes) == ["dark"]
    assert tab.locator('[data-controls="timeline"]').get_by_label("Layer").input_value() == "20"
    assert opened.complaints == []


def test_charts_follow_the_width_of_the_screen(report: Path, visit: Open) -> None:
    opened = visit(report, width=1440)
    tab = opened.page
    wide = tab.locator('[data-chart="norms"] svg').bounding_box()["width"]
    tab.set_viewport_size({"width": 700, "height": 900})
    opened.until("document.querySelector('[data-chart=norms] svg').getBoundingClientRect().width < 690")
    assert wide > 900


def test_every_chart_has_a_name_and_words(report: Path, visit: Open) -> None:
    from playwright.sync_api import expect

    opened = visit(report)
    tab = opened.page
    for name in sorted(NAMES):
        chart = tab.locator(f'[data-chart="{name}"]')
        assert chart.get_attribute("role") == "img"
        expect(chart).to_have_accessible_name(tab.locator(f"#figure-{name}-title").inner_text())
        expect(chart).to_have_accessible_description(re.compile(r".*\d.*", re.DOTALL))


def test_the_numbers_can_be_read_and_taken_away(report: Path, visit: Open) -> None:
    opened = visit(report)
    tab = opened.page
    assert tab.locator("#figure-arms tbody tr").count() == 4
    assert "the sink's value set to zero" in tab.locator("#figure-arms table").inner_text()
    tab.locator("#figure-heads .numbers > summary").click()
    assert "The first 100 of 270 rows" in tab.locator("#figure-heads .numbers").inner_text()
    with tab.expect_download() as download:
        tab.locator("#figure-heads .numbers a[download]").click()
    assert Path(download.value.path()).read_bytes() == (report.parent / "charts" / "heads.csv").read_bytes()


def test_the_contents_stay_in_sight_on_a_wide_screen(report: Path, visit: Open) -> None:
    opened = visit(report, width=1440)
    tab = opened.page
    tab.get_by_role("link", name="Values").click()
    opened.until("document.querySelector('.contents [aria-current]')?.textContent === 'Values'")
    assert tab.locator(".contents").bounding_box()["y"] == pytest.approx(0, abs=1)
