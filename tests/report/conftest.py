from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnisink.report import write_report
from tests.made_once import made_once
from tests.report.study_results import quick, results

#: What a browser is told: nothing of it goes to the network or touches a profile.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a whole study of clips."""
    return made_once(tmp_path_factory, "report", lambda folder: write_report(results(), folder)) / "page.html"


@pytest.fixture(scope="session")
def quick_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of one item."""
    return made_once(tmp_path_factory, "quick", lambda folder: write_report(quick(), folder)) / "page.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium with a fresh profile, for tests marked with `needs("chromium")`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """A page that is open, and what it did that it should not have."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def until(self, expression: str, seconds: float = 20.0) -> None:
        """Wait until an expression is true; Playwright's own way of waiting is what the page's policy forbids."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            self.page.wait_for_timeout(40)

    def drawn(self, scheme: str) -> None:
        """Wait until every chart is drawn in a colour scheme."""
        self.until(f"document.documentElement.dataset.drawn === '{scheme}'", 60.0)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open a page from its file, and wait for its charts."""
    contexts = []

    def open_page(path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        visit = Visit(context.new_page())
        visit.page.goto(path.as_uri())
        visit.drawn(scheme)
        return visit

    yield open_page
    for context in contexts:
        context.close()
