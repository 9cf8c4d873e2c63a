"""Single charts: Zero-K, principal components, names of rows, numbers on axes, and the directions of a single item."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from omnisink.report.charts.components import components
from omnisink.report.charts.intervals import intervals
from omnisink.report.charts.rows import NARROWEST, fitted, folded
from omnisink.report.charts.zero_k import zero_k
from omnisink.report.cleaning import clean
from omnisink.report.example import Example
from omnisink.report.export import write_charts
from omnisink.report.sections import sections_of
from omnisink.results.wording import SINGLE
from omnisink.study import wording
from tests.report.study_results import results


def test_zero_k_begins_at_no_channel() -> None:
    arms = results(layers=4, tokens=24)["values"]["zero_k"]
    figure = zero_k(arms)
    rows = figure.data["zero-k"]
    assert [row["n"] for row in rows] == [0, 1, 2, 4, 8]
    assert [row["mass"] for row in rows] == pytest.approx([80, 50, 25, 12.5, 6.25])
    assert (rows[0]["mass_low"], rows[0]["mass_high"]) == (75, 85)
    assert rows[0]["loss"] == rows[0]["loss_low"] == rows[0]["loss_high"] == 0
    assert figure.rows[0]["loss"] == pytest.approx(1.043)
    assert len(figure.spec()["concat"]) == 3
    assert "n = 0: attention to the sink 80.0% (75.0% to 85.0%), nothing is changed." in figure.alternative
    assert not figure.note


def test_zero_k_of_earlier_results_begins_where_they_do() -> None:
    arms = results(layers=4, tokens=24)["values"]["zero_k"]
    older = [{k: v for k, v in arm.items() if not k.startswith("mass_")} for arm in arms]
    figure = zero_k(older)
    assert [row["n"] for row in figure.data["zero-k"] if "mass" in row] == [1, 2, 4, 8]
    assert "begins at n = 1" in figure.note
    oldest = [arm | {"mass": None} for arm in older]
    assert len(zero_k(oldest).spec()["concat"]) == 2
    assert not zero_k(oldest).note


def test_components_mark_the_sink_and_keep_it_where_tokens_are_left_out() -> None:
    given = clean(results(layers=4, tokens=4_000)["example"])
    value, stream = components(given["components"], Example.of(given))
    assert (value.name, stream.name) == ("value-components", "stream-components")
    drawn = value.data["value-components"]
    assert len(drawn) < 1_600
    assert [row["token"].split(" at ")[1] for row in drawn if row["sink"]] == ["0", "1333"]
    assert len(value.rows) == 4_000 * len(given["components"]["values"])
    assert value.note.endswith("of 4,000 tokens are not drawn; the CSV file has all.")
    assert [row["position"] for row in value.rows[:2]] == [0, 1333]
    assert "Layer 1: the first two components explain 43.0% and 16.0% of the variance." in value.alternative


@pytest.mark.parametrize("fault", ["none", "short", "gap", "text", "nothing"])
def test_components_that_are_not_whole_are_left_out(fault: str) -> None:
    given = clean(results(layers=4, tokens=24)["example"])
    found = given["components"]
    panel = found["values"][0]
    match fault:
        case "short":
            panel["x"].pop()
        case "gap":
            panel["y"][3] = None
        case "text":
            panel["explained"] = ["much", "little"]
        case "nothing":
            found = {}
    figures = components(found, Example.of(given))
    panels = [len(figure.spec()["concat"]) for figure in figures]
    assert panels == {"none": [2, 2], "nothing": []}.get(fault, [1, 2])


def test_names_are_folded_where_they_would_be_cut() -> None:
    short, long = "outro", "outro:gamma=0.3,tau=0.1,min_activation=100,median_ratio=1000:no-decode"
    lines = folded([short, long, "x" * 300])
    assert [text.count("\n") for text in lines] == [2, 2, 2]
    assert lines[0] == f"\n\n{short}"
    assert lines[1].strip("\n").replace("\n", "") == long
    assert lines[1].strip("\n").split("\n")[0][-1] in ",:"
    assert lines[2].endswith("…")
    asked: list[Any] = []

    def draw(rows: Any) -> Any:
        asked.append(rows)

    assert fitted([short], draw)["narrowest"] == NARROWEST
    assert "narrow" not in fitted([short], draw)
    made = fitted([short, long], draw)
    assert made["narrowest"] > 400
    assert "narrow" in made
    assert [(rows.count, rows.lines, rows.name) for rows in asked[-2:]] == [(2, 3, "folded:N"), (2, 1, "label:N")]
    assert asked[-2].down > asked[-1].down


def test_a_point_is_filled_where_its_own_test_is_clear() -> None:
    """p belongs to the loss where a loss was measured: the accuracy's points stay hollow."""
    arms = results(layers=4, tokens=24)["causality"]["arms"]
    both = intervals("arms", "x", arms)
    filled = [str(panel).count("datum.clear") for panel in both.spec()["vconcat"]]
    assert filled == [1, 0]
    assert "where p of the loss < 0.05" in both.caption
    lossless = [{k: v for k, v in arm.items() if not k.startswith("loss")} for arm in arms]
    only = intervals("arms", "x", lossless)
    assert [str(panel).count("datum.clear") for panel in only.spec()["vconcat"]] == [1]
    assert "where p < 0.05" in only.caption


@pytest.mark.parametrize("size", [1e-6, 1e-3, 40, 3e5])
def test_no_axis_has_exponents_however_large_its_numbers(tmp_path: Path, size: float) -> None:
    given = results(layers=4, tokens=24)

    def scaled(rows: list[dict[str, Any]], *fields: str) -> None:
        for row in rows:
            row |= {key: row[key] * size for key in row if key.startswith(fields) and row[key] is not None}

    for rows in (given["causality"]["arms"], given["values"]["zero_k"], given["values"]["pruning"]):
        scaled(rows, "loss", "accuracy")
    scaled(given["values"]["geometry"], "sink", "other")
    scaled(given["identification"]["channels"], "peak")
    scaled(given["heads"]["heads"], "effect", "low", "high")
    for panel in given["example"]["components"]["values"]:
        panel["x"] = [size * x for x in panel["x"]]
    wanted = {"arms", "zero-k", "pruning", "norms", "channels", "value-components", "heads"}
    whole = {key: given[key] for key in ("run", "example", "identification", "heads", "values", "causality")}
    figures = [figure for section in sections_of(clean(whole)) for figure in section.figures if figure.name in wanted]
    assert {figure.name for figure in figures} == wanted
    write_charts(figures, tmp_path)
    for name in wanted:
        svg = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        axis = re.findall(r">([^<>]*)</text>", svg)
        assert any(re.fullmatch(r"−?[\d.,]+", text) for text in axis), name
        assert not [text for text in axis if re.search(r"\de[+−-]?\d", text)], name


def test_sentences_of_earlier_versions_get_true_minus_signs() -> None:
    given = results(layers=4, tokens=24)
    given["readings"]["heads"] = ["Head 3: -0.33 (-0.52 to -1.9e-05) of 2026-11-25, smollm2-135m, a.-5, top-1, --n 3."]
    (section,) = [section for section in sections_of(clean(given)) if section.name == "heads"]
    assert section.readings == ["Head 3: −0.33 (−0.52 to −1.9e−05) of 2026-11-25, smollm2-135m, a.-5, top-1, --n 3."]


def row(change: float, low: float | None = None, **more: Any) -> dict[str, Any]:
    high = None if low is None else change - (low - change)
    return {"label": "zero it", "loss_change": change, "loss_low": low, "loss_high": high, "p_holm": 0.01,
            "accuracy_change": None, "accuracy_low": None, "accuracy_high": None, "changed": None} | more  # fmt: skip


def test_one_file_is_said_to_show_directions_and_no_effect() -> None:
    single = [row(-5.6e-6, changed=0.0), row(0.2, changed=1.0), row(0.1, changed=0.0)]
    assert wording.conditions(single) == [
        f"Of 3 conditions, the loss rises under 2 and falls under 1; the answer changes under 1. {SINGLE}"
    ]
    assert wording.conditions([row(0.2, 0.1)]) == ["Zero it: raises the loss, +0.200 nats (+0.100 to +0.300)."]
    # What changes nothing has no interval on any number of files.
    mixed = wording.conditions([row(0.2, 0.1), row(0.0)])
    assert mixed[1] == "The loss stays under 1 condition: nothing changes on these items."
    assert wording.conditions([]) == []
