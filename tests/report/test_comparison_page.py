"""The page of a comparison: what it draws, that texts are shown and never run, and that it opens in a browser."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.summary import findings
from omnisink.report import write_comparison
from omnisink.report.charts.comparison import MAX_DRAWN, breakdowns, differences, wins
from tests.evaluation.scored_runs import FEW, failed, manifest, record, write, write_scores
from tests.report.test_hostile import PAYLOADS
from tests.skips import needs

NAMES = {"differences", "levels", "seeds", "questions", "breakdown-1", "breakdown-2", "curve-1-1", "cost"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two seeds of one task, and another in which every text is hostile."""
    folder = tmp_path_factory.mktemp("runs")
    base = [i % 3 == 0 for i in range(60)]
    arms = {"baseline": base, "outro": [i % 4 != 1 for i in range(60)], "outro:rotate": base}
    groups = [{"kind": [f"group {i % 20}"], "length": [f"{1024 << i % 3}"]} for i in range(60)]
    folders = [write_scores(folder / f"{i}", arms, groups=groups, seed=i) for i in range(2)]
    everything = "".join(PAYLOADS)
    rows: list[dict[str, Any]] = []
    for i, payload in enumerate(PAYLOADS * 2):
        more = {"cluster": f"{payload}{i}", "groups": {payload: [payload]}, "gold": payload, "text": payload}
        rows.append(record(f"{payload}{i}", "baseline", False, **more))
        rows.append(record(f"{payload}{i}", everything, True, **more))
    rows.append(failed("last", "baseline", cluster="last") | {"error": everything})
    rows.append(record("last", everything))
    about = manifest(("baseline", everything), len(rows) // 2)
    about |= {"command": everything, "model": {"name": everything}, "versions": {everything: everything}}
    about["task"] |= {"name": everything, "title": everything, "metric": everything}
    return compare([*folders, write(folder / "hostile", about, rows)], resamples=FEW)


@pytest.fixture(scope="module")
def page(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(results, tmp_path_factory.mktemp("comparison"))


def test_every_chart_is_written_four_ways(page: Path) -> None:
    written = {path.name for path in (page.parent / "charts").iterdir()}
    assert written == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg", "pdf", "csv")}
    assert set(re.findall(r'<figure id="figure-([^"]+)"', page.read_text(encoding="utf-8"))) == NAMES


def test_the_numbers_are_those_of_the_comparison(page: Path, results: dict[str, Any]) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (page.parent / "charts" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    pairs = [row["paired"] for task in results["tasks"] for row in task["methods"] if row["paired"]]
    assert [float(row["accuracy_change"]) for row in rows("differences")] == [pair["difference"] for pair in pairs]
    assert [float(row["p_holm"]) for row in rows("differences")] == [pair["p_holm"] for pair in pairs]
    assert len(rows("questions")) == sum(len(task["questions_differing"]) for task in results["tasks"])
    assert len(rows("breakdown-1")) == 46 > MAX_DRAWN
    assert [float(row["accuracy"]) for row in rows("curve-1-1")] == [
        point["accuracy"] for point in results["tasks"][0]["curves"]
    ]
    assert {row["at"] for row in rows("curve-1-1")} == {"1024.0", "2048.0", "4096.0"}
    for name in NAMES:
        for row in rows(name):
            for value in row.values():
                if not re.fullmatch(r"[+-]?[\d.]+(?:e[+-]?\d+)?", value):
                    assert not value.lstrip().startswith(("=", "+", "-", "@")), (name, value)


def test_the_page_has_its_own_elements_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"<script[ >]", text)) == 3
    assert text.count("</script>") == 3
    assert text.count("</style>") == 1
    assert not re.search(r"<(?:img|iframe|svg|textarea)", text.split("<script>")[0])
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src &#39;none&#39;;")
    assert "unsafe" not in policy
    assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in text


def test_it_says_what_the_data_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "no evidence of a difference from baseline" in text
    assert "error, left out and not scored as wrong" in text


def test_what_could_not_be_seen_is_drawn_under_what_was_measured(tmp_path: Path) -> None:
    right = [i % 2 == 0 for i in range(40)]
    moved = [not value if i in (3, 8, 11) else value for i, value in enumerate(right)]
    folder = write_scores(tmp_path / "run", {"baseline": right, "outro": moved, "outro:rotate": right})
    results = compare([folder], resamples=FEW)
    (figure,) = differences(results)
    pairs = [row["paired"] for row in results["tasks"][0]["methods"] if row["paired"]]
    drawn = figure.data["differences"]
    for row, pair in zip(drawn, pairs, strict=True):
        could = 100 * pair["detectable"]["value"]
        assert (row["accuracy_unseen_low"], row["accuracy_unseen_high"]) == pytest.approx((-could, could))
    # An interval of nothing on an axis of one point would look like a precise zero.
    axes = [layer["encoding"]["x"] for layer in figure.spec()["vconcat"][0]["layer"] if "x" in layer["encoding"]]
    low, high = next(axis["scale"]["domain"] for axis in axes if "scale" in axis)
    assert low <= min(row["accuracy_unseen_low"] for row in drawn)
    assert high >= max(row["accuracy_unseen_high"] for row in drawn)
    assert "what could not be seen" in figure.caption


def test_where_nothing_could_have_been_found_the_bar_takes_all(tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "run", {"baseline": [True] * 3, "outro": [True, False, True]})
    (figure,) = differences(compare([folder], resamples=FEW))
    (row,) = figure.data["differences"]
    assert (row["accuracy_unseen_low"], row["accuracy_unseen_high"]) == (-100.0, 100.0)


@pytest.mark.parametrize(("moved", "ticks"), [(1, [-1, 0, 1]), (20, None)])
def test_few_questions_are_counted_one_by_one(tmp_path: Path, moved: int, ticks: list[int] | None) -> None:
    arms = {"baseline": [False] * 40, "outro": [i < moved for i in range(40)]}
    (figure,) = wins(compare([write_scores(tmp_path / "run", arms)], resamples=FEW))
    (bars,) = (layer for layer in figure.spec()["layer"] if "color" in layer["encoding"])
    axis = bars["encoding"]["x"]["axis"]
    assert axis.get("values") == ticks
    assert axis.get("tickMinStep") == (None if ticks else 1)


def test_many_groups_are_drawn_in_part(tmp_path: Path) -> None:
    groups = [{"kind": [f"group {i % 20}"]} for i in range(60)]
    arms = {"baseline": [True] * 60, "outro": [False] * 60, "outro:rotate": [False] * 60}
    (figure,) = breakdowns(compare([write_scores(tmp_path / "run", arms, groups=groups)], resamples=FEW))
    assert figure.note.startswith(f"Drawn are the {MAX_DRAWN} of 40 groups")
    assert (len(figure.data["breakdown-1"]), len(figure.rows), len(figure.folded)) == (MAX_DRAWN, 40, 0)


def test_groups_that_do_not_change_are_folded_away(tmp_path: Path) -> None:
    right = [i % 2 == 0 for i in range(40)]
    groups = [{"kind": [f"group {i % 5}"]} for i in range(40)]
    # One win in group 3; in group 1 a win and a loss, which make no difference and are a change all the same.
    moved = [not value if i in (3, 1, 6) else value for i, value in enumerate(right)]
    page = write_comparison(
        compare([write_scores(tmp_path / "run", {"baseline": right, "outro": moved}, groups=groups)], resamples=FEW),
        tmp_path / "out",
    )
    text = page.read_text(encoding="utf-8")
    (folded,) = re.findall(r'<details class="numbers folded">.*?</details>', text, re.DOTALL)
    assert "3 rows in which no answer changes" in folded
    assert re.findall(r"<td>kind: (group \d), outro</td>", folded) == ["group 0", "group 2", "group 4"]
    with (page.parent / "charts" / "breakdown-1.csv").open(encoding="utf-8", newline="") as file:
        assert [row["group"] for row in csv.DictReader(file)] == [f"group {i}" for i in (1, 3, 0, 2, 4)]


def test_where_no_group_changes_a_sentence_says_so(tmp_path: Path) -> None:
    right, groups = [True, False] * 4, [{"kind": ["one" if i < 4 else "other"]} for i in range(8)]
    folder = write_scores(tmp_path / "run", {"baseline": right, "outro": right}, groups=groups)
    page = write_comparison(compare([folder], resamples=FEW), tmp_path / "out")
    assert "in none of 2 rows of groups and methods does an answer change" in page.read_text(encoding="utf-8")
    assert not (page.parent / "charts" / "breakdown-1.csv").exists()


def test_a_method_alone_has_a_page(tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "run", {"baseline": [True, False, True]})
    made = write_comparison(compare([folder], resamples=FEW), tmp_path / "out")
    assert {path.stem for path in (made.parent / "charts").iterdir()} == {"levels", "cost"}


def test_results_of_a_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="not the results of a comparison"):
        write_comparison({"run": {}}, tmp_path)


@needs("chromium")
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_a_browser_and_nothing_runs(page: Path, visit: Callable[..., Any], scheme: str) -> None:
    opened = visit(page, scheme=scheme)
    tab = opened.page
    drawn = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-chart]')]"
        ".map((e) => [e.dataset.chart, e.querySelectorAll(':is(svg, canvas)').length]))"
    )
    assert drawn == dict.fromkeys(NAMES, 1)
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    shown = set()
    for name in ("differences", "levels", "questions", "seeds", "cost"):
        marks = tab.locator(f'[data-chart="{name}"] svg :is(.mark-symbol, .mark-rect) path')
        for i in range(marks.count())[-8:]:
            # A bar of nothing has no place to point at.
            if (marks.nth(i).bounding_box() or {}).get("width"):
                marks.nth(i).hover(force=True)
                tooltip = tab.locator("#vg-tooltip-element.visible")
                shown |= {tooltip.inner_text()} if tooltip.count() else set()
    assert any("hacked" in text for text in shown)
    assert tab.evaluate("window.hacked") is None
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:image/")] == [page.as_uri()]


@needs("chromium")
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_screen(page: Path, visit: Callable[..., Any], width: int) -> None:
    tab = visit(page, width=width).page
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") == width


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Twenty methods, one of which gains and one of which loses; the names are as long as names with settings are."""
    folder = tmp_path_factory.mktemp("twenty")
    base = [i % 2 == 0 for i in range(60)]
    arms = {"baseline": base}
    for i in range(20):
        name = f"method-{i}" if i % 5 else f"vcd:modalities=vision+audio:alpha=0.5:noise_step={500 + i}"
        arms[name] = [right if j != i else not right for j, right in enumerate(base)]
    arms["method-13"] = [True] * 40 + base[40:]
    arms["method-3"] = [False] * 40 + base[40:]
    results = compare([write_scores(folder / "run", arms)], resamples=1999)
    return results, write_comparison(results, folder / "out")


def test_twenty_methods_are_sorted_and_what_differs_comes_first(twenty: tuple[dict[str, Any], Path]) -> None:
    results, page = twenty
    with (page.parent / "charts/differences.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["label"], rows[-1]["label"]) == ("method-13", "method-3")
    changes = [float(row["accuracy_change"]) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert len(rows) == results["tests"] == 20
    assert list(rows[0])[2:4] == ["accuracy_change", "accuracy_low"]
    answer, higher, lower, *others = findings(results)
    assert (
        "yes, method-13 is better than baseline. Worse: method-3. No evidence of a difference: 18 methods." in answer
    )
    assert "method-13: accuracy is higher" in higher
    assert "method-3: accuracy is lower" in lower
    assert all("no evidence" in said for said in others)
    (figure,) = differences(results)
    assert max(name.count("\n") for name in (row["folded"] for row in figure.data["differences"])) == 1


@needs("chromium")
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_twenty_methods_are_read_without_scrolling_their_table(
    twenty: tuple[dict[str, Any], Path], visit: Callable[..., Any], width: int
) -> None:
    tab = visit(twenty[1], width=width).page
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    table = tab.locator("#figure-differences .table")
    box, change = table.bounding_box(), table.locator("tbody tr td:nth-child(2)").first.bounding_box()
    assert change["x"] + change["width"] <= box["x"] + box["width"]
    # Names stay in sight where the rest is scrolled.
    table.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    assert table.locator("tbody td").first.bounding_box()["x"] == pytest.approx(box["x"], abs=1)
    if width > 1000:
        table.evaluate("box => { box.scrollLeft = 0; }")
        losses = table.locator("tbody tr td:nth-child(6)").first.bounding_box()
        assert losses["x"] + losses["width"] <= box["x"] + box["width"]
        assert table.evaluate("box => box.scrollHeight <= box.clientHeight")
