"""What `write_report` writes: every chart as pictures and numbers, and a page, whatever is missing."""

from __future__ import annotations

import csv
import html
import json
import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import omnisink.report.write
from omnisink.errors import OmnisinkError
from omnisink.extras import install
from omnisink.report import write_report
from omnisink.report.charts.timeline import timeline
from omnisink.report.cleaning import clean, clean_text
from omnisink.report.example import MAX_CELLS, MAX_PICTURES, Example
from omnisink.report.words import extremes
from omnisink.results import disk
from omnisink.results.spreadsheet import cell
from omnisink.results.wording import CHANGE, NATS, POINTS, SINGLE, interval, number
from tests.report.study_results import CRITERIA, changed, results

NAMES = {
    "sink-map", "timeline", "marked-share", "attention-mass", "overlap", "stability", "channels", "masking", "heads",
    "head-correlation", "norms", "key-cosines", "key-channels", "zero-k", "decomposition", "parallel",
    "distance", "pruning", "arms", "value-components", "stream-components", "head-map", "last-token-mass",
    "modality-mass",
}  # fmt: skip


def rows_of(page: Path, name: str) -> list[dict[str, str]]:
    with (page.parent / "charts" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figures(page: Path) -> set[str]:
    return set(re.findall(r'<figure id="figure-([^"]+)"', page.read_text(encoding="utf-8")))


def test_every_chart_is_written_four_ways(report: Path) -> None:
    written = {path.name for path in (report.parent / "charts").iterdir()}
    assert written == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg", "pdf", "csv")}
    assert figures(report) == NAMES
    for name in NAMES:
        with Image.open(report.parent / "charts" / f"{name}.png") as picture:
            assert picture.width > 1_000, name
            assert picture.mode == "RGB"
            # Not empty: the pictures are light, with something drawn on them.
            shades = np.asarray(picture.convert("L"))
            assert 0.001 < (shades < 200).mean() < 0.9, name
        tree = ElementTree.parse(report.parent / "charts" / f"{name}.svg")
        assert tree.getroot().tag.endswith("svg")
        pdf = (report.parent / "charts" / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-1."), name
        assert len(pdf) < 1_000_000, name


def test_csv_files_hold_the_numbers_in_full(report: Path) -> None:
    given = results()
    heads = rows_of(report, "heads")
    assert len(heads) == len(given["heads"]["heads"]) == 270
    for written, row in zip(heads, given["heads"]["heads"], strict=True):
        assert {key: float(value) for key, value in written.items()} == pytest.approx(row, rel=1e-15)
    arms = {row["arm"]: row for row in rows_of(report, "arms")}
    assert [float(row["loss_change"]) for row in arms.values()] == sorted(
        a["loss_change"] for a in given["causality"]["arms"]
    )
    assert float(arms["zero-value"]["loss_high"]) == next(
        a["loss_high"] for a in given["causality"]["arms"] if a["arm"] == "zero-value"
    )
    cells = rows_of(report, "sink-map")
    assert len(cells) == 30 * 250
    magnitude = given["example"]["magnitude"]
    assert [float(c["magnitude"]) for c in cells] == sorted((m for row in magnitude for m in row), reverse=True)
    assert all(float(c["magnitude"]) == magnitude[int(c["layer"])][int(c["position"])] for c in cells)
    assert cells[0]["marked"] == "massive_activation, sink_dimension"


def test_attention_along_the_clip_adds_up(report: Path) -> None:
    """Spans of time share the attention to their tokens out, and lose none of it."""
    example = results()["example"]
    timed = [i for i, token in enumerate(example["tokens"]) if token["begins"] is not None]
    for layer in (0, 15, 29):
        spans = [row for row in rows_of(report, "timeline") if int(row["layer"]) == layer]
        total = sum(example["last_query"][layer][i] for i in timed)
        assert sum(float(row["last"]) for row in spans) == pytest.approx(total, rel=1e-3)
        assert {row["sink"] == "" for row in spans} == {example["sink_query"][layer] is None}


def test_the_page_is_small_and_asks_for_nothing(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    # The scripts behind it are let in by their hashes; test_page.py watches what they ask for.
    # What the page links is a file of a chart beside it, which is there.
    links = re.findall(r'\b(?:src|href)="(?!#|data:)([^"]*)"', text.split("<script>")[0])
    assert set(links) >= {f"charts/{name}.{kind}" for name in NAMES for kind in ("svg", "pdf", "png")}
    assert all((report.parent / link).is_file() for link in links)
    assert "url(" not in text.split("</style>")[0]
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy[1]
    identifiers = re.findall(r'\bid="([^"]+)"', text.split("<script>")[0])
    assert len(identifiers) == len(set(identifiers))


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    given = results(layers=4, tokens=24, clip=False)
    first, second = (write_report(given, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    for path in (tmp_path / "a" / "charts").iterdir():
        if path.suffix == ".pdf":  # The converter gives its objects another order in every run.
            continue
        assert path.read_bytes() == (tmp_path / "b" / "charts" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_a_prompt_of_32_000_tokens_fits(tmp_path: Path) -> None:
    given = results(layers=16, tokens=32_000, frames=12)
    page = write_report(given, tmp_path)
    assert page.stat().st_size < 8_000_000
    assert "32,000 tokens are too many to draw one by one" in page.read_text(encoding="utf-8")
    assert len(rows_of(page, "sink-map")) == 16 * 32_000


def test_columns_of_a_long_prompt_keep_their_largest_token() -> None:
    example = Example.of(clean(results(layers=30, tokens=9_000)["example"]))
    bins = example.bins()
    assert len(bins) * 30 <= MAX_CELLS
    assert [b.begin for b in bins[1:]] == [b.end for b in bins[:-1]]
    assert (bins[0].begin, bins[-1].end) == (0, 9_000)
    standing = example.magnitude.max(axis=0)
    largest = int(standing[bins[3].begin : bins[3].end].argmax()) + bins[3].begin
    assert f" at {largest}, largest of {bins[3].begin} to {bins[3].end - 1}" in bins[3].token


def test_pictures_are_left_out_before_the_page_grows() -> None:
    given = results(layers=2, tokens=40, frames=8)["example"]
    for frame in given["frames"]:
        frame["image"] = "data:image/jpeg;base64," + "A" * 400_000
    example = Example.of(clean(given))
    assert 0 < len(example.frames) < 8
    assert sum(len(frame["image"]) for frame in example.frames) <= MAX_PICTURES
    assert all(example.kept_frame[i] in range(len(example.frames)) for i in range(8))


def test_a_page_without_the_files_of_charts_names_none(tmp_path: Path) -> None:
    page = write_report(results(layers=4, tokens=24, clip=False), tmp_path, charts=False)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    text = page.read_text(encoding="utf-8").split("<script")[0]
    assert "charts/" not in text
    assert "“charts”" not in text


def test_what_is_absent_is_absent(tmp_path: Path) -> None:
    whole = results(layers=4, tokens=24, clip=False)
    page = write_report({key: whole[key] for key in ("run", "causality", "readings")}, tmp_path)
    assert figures(page) == {"arms"}
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<section id="([^"]+)"', text) == ["run", "reading", "causality"]
    assert re.findall(r'<li><a href="#([^"]+)">', text) == ["reading", "causality"]
    assert whole["readings"]["causality"][0] in text
    assert whole["readings"]["heads"][0] not in text


def test_a_study_of_one_item_reads_well(quick_report: Path) -> None:
    text = html.unescape(quick_report.read_text(encoding="utf-8").split("<script")[0])
    assert "<dt>loss (nats)</dt><dd>0.00028</dd>" in text
    assert "<dd>synthav.jsonl, 1 item</dd>" in text
    assert "<dd>2026-03-02 10:15 UTC, 47 s</dd>" in text
    assert "<dd>C, yellow</dd>" in text
    assert "<dt>model's answer</dt><dd>B, green</dd>" in text
    # What is said of intervals is said where there are some.
    assert not re.search(r"95%|in brackets|brackets", text)
    # Names out of code are words on the page, and stay what they are in files.
    assert "massive activation" in text
    assert not re.search("massive_activation|sink_dimension", text)
    assert {row["criterion"] for row in rows_of(quick_report, "stability")} == set(CRITERIA)
    # No number is rounded to nothing, and what did not move is said once rather than drawn.
    words = re.search(r'id="figure-arms-alternative">([^<]+)<', text)
    assert words is not None
    assert "turned toward the sink's value: loss falls, accuracy stays." in words[1]
    assert text.count("The accuracy does not change in any of these") == 4
    # One item shows which way things went, and no effect: neither sizes nor a test in words.
    for name in ("arms", "masking", "zero-k", "pruning"):
        said = re.search(rf'id="figure-{name}-alternative">([^<]+)<', text)
        assert said is not None
        assert "loss " in said[1]
        assert not re.search(r"nats|p after|Holm|[−+][0-9]", said[1]), name
        assert "p (Holm)" not in text[text.index(f'<figure id="figure-{name}"') :].split("</figure>")[0]
    assert text.count(SINGLE) == 5
    # Four sentences stand at the head of a section, the others are a click away.
    causes = text[text.index('<section id="causality"') :]
    assert causes.index("What arm 3 of 7") < causes.index("More in words") < causes.index("What arm 4 of 7")
    assert text.count("More in words") == 1


def test_accuracies_change_by_points(report: Path) -> None:
    text = report.read_text(encoding="utf-8").split("<script")[0]
    assert "accuracy change (points, 95% interval)" in text
    assert "+0.8 points (−3.2 to +4.8)" in text
    assert "<dd>synthav.jsonl, 60 of 120 items</dd>" in text


def test_pictures_of_the_clip_stand_side_by_side() -> None:
    given = results(layers=2, tokens=60, frames=11)["example"]
    figure = timeline(Example.of(clean(given)))
    strip, spans = figure.data["strip"], figure.data["spans"]
    ends = min(s["begins"] for s in spans), max(s["ends"] for s in spans)
    middles = [picture["middle"] for picture in strip]
    assert len(strip) == 6
    half = (ends[1] - ends[0]) / len(strip) / 2
    assert middles[0] - half == pytest.approx(ends[0])
    assert middles[-1] + half == pytest.approx(ends[1])
    assert all(abs(picture["middle"] - picture["time"]) <= 2 * half for picture in strip)


@pytest.mark.parametrize(("answer", "head"), [("yellow", "question"), ("", "text"), (None, "text")])
def test_a_passage_is_not_called_a_question(tmp_path: Path, answer: str | None, head: str) -> None:
    given = results(layers=4, tokens=24, clip=False)
    given["example"] |= {"question": "Gulls wait on the roof.", "answer": answer}
    page = write_report(given, tmp_path, charts=False).read_text(encoding="utf-8")
    assert re.search(r"<dt>(\w+)</dt><dd>Gulls wait", page)[1] == head  # type: ignore[index]


def test_a_text_model_has_positions_and_a_loss_alone(tmp_path: Path) -> None:
    page = write_report(results(layers=4, tokens=24, clip=False), tmp_path)
    assert figures(page) == NAMES - {"timeline"} | {"positions"}
    assert "accuracy_change" not in rows_of(page, "arms")[0]
    assert "<dt>accuracy</dt>" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["one layer, one token", "no sinks", "no sound", "gaps"])
def test_thin_results_are_drawn(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    layers, tokens = (1, 1) if kind == "one layer, one token" else (4, 24)
    given: dict[str, Any] = results(layers=layers, tokens=tokens, clip=kind in ("no sound", "gaps"))
    if kind == "no sinks":
        given["example"] |= {"marked": {}, "sink_query": [None] * 4}
        for row in given["identification"]["by_layer"]:
            row |= {"share": 0.0, "low": 0.0, "high": 0.0}
    if kind == "no sound":
        given["example"] |= {"waveform": None, "frames": []}
    if kind == "gaps":
        given = changed(given, str, lambda x: [x, None, math.nan, math.inf][rng.integers(0, 4)])
    page = write_report(given, tmp_path)
    assert {"sink-map", "arms", "heads", "norms"} <= figures(page)
    assert {path.stem for path in (tmp_path / "charts").iterdir()} == figures(page)
    data = re.search(r'<script type="application/json" id="omnisink-data">(.*?)</script>', page.read_text("utf-8"))
    assert data is not None
    json.loads(data[1], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match='no "run"'):
        write_report({"accuracy": 1.0}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omnisink.report.write, "find_spec", lambda name: None if name == "altair" else sys)
    with pytest.raises(OmnisinkError, match=f"needs altair, .* {re.escape(install('report'))}"):
        write_report(results(layers=1, tokens=1), tmp_path)


@given(st.text())
def test_cleaned_text_can_be_written_and_read(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ufeff]", cleaned)
    assert clean_text(cleaned) == cleaned


@given(st.text())
def test_no_cell_of_text_is_a_formula(text: str) -> None:
    assert not str(cell(text)).lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_stay_numbers() -> None:
    assert cell(-1.5) == -1.5
    assert number(-0.25, "+.2f") == "−0.25"
    assert number(-0.0001, ".2f") == "0.00"
    assert number(12_000.0) == "12,000"
    assert [number(x, NATS) for x in (1.04329, 0.0, 0.000277826, 0.0099)] == ["1.043", "0.000", "0.00028", "0.0099"]
    assert [number(x, CHANGE) for x in (0.5, -8.2587e-5, 5.6e-6, -1.2e-7)] == [
        "+0.500",
        "−0.000083",
        "+5.6e−6",
        "−1.2e−7",
    ]
    assert interval(0.008, -0.032, 0.048, POINTS) == "+0.8 points (−3.2 to +4.8)"
    assert number(None) == "–"
    assert interval(0.5, 0.25, 0.75, ".0%") == "50% (25% to 75%)"
    assert interval(0.5, None, None, ".0%") == "50%"


def test_extremes_say_where() -> None:
    rows = [{"layer": 0, "share": 0.25}, {"layer": 1, "share": None}, {"layer": 2, "share": 0.75}]
    said = extremes(rows, "share", ".0%", lambda r: f"at layer {r['layer']}", "The share")
    assert said == "The share is highest at layer 2 (75%) and lowest at layer 0 (25%)."
    assert extremes(rows[1:2], "share", ".0%", str, "The share") == "The share: no numbers."


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_full_disk_while_the_page_is_drawn_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    left = [after]

    def write(file: Any, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        file.write(content)

    monkeypatch.setattr(disk, "write", write)
    with pytest.raises(OmnisinkError, match="could not be written: No space left on device"):
        write_report(results(layers=2, tokens=12, clip=False), tmp_path / "out")
