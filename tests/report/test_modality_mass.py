"""Attention by modality over the layers: bands that add up, the sinks apart, whatever modality they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omnisink.plotting.palette import DARK, LIGHT, MODALITIES, Look
from omnisink.report.charts.identification import identification
from omnisink.report.charts.modality_mass import SINKS, last_token_mass, mean_mass
from omnisink.report.cleaning import clean
from omnisink.report.example import Example
from omnisink.report.figure import Figure
from omnisink.report.theme import config


def row(layer: int, modality: str, sink: bool, mass: float | None) -> dict[str, Any]:
    return {"layer": layer, "modality": modality, "sink": sink, "items": 3, "mass": mass, "low": None, "high": None}


def bands(figure: Figure) -> dict[tuple[str, int], tuple[float, float]]:
    return {(r["band"], r["layer"]): (r["low"], r["high"]) for r in figure.data[figure.name]}


def test_bands_stand_on_each_other_with_the_sinks_below() -> None:
    given = [
        *(row(layer, "text", True, mass) for layer, mass in ((1, 0.5), (2, 0.25))),
        row(1, "video", True, 0.125),
        *(row(layer, "text", False, mass) for layer, mass in ((0, 0.5), (1, 0.125), (2, 0.25))),
        *(row(layer, "video", False, mass) for layer, mass in ((0, 0.5), (1, 0.25), (2, 0.5))),
    ]
    figure = mean_mass(given)
    assert bands(figure) == {
        (SINKS, 0): (0, 0), (SINKS, 1): (0, 0.625), (SINKS, 2): (0, 0.25),
        ("text", 0): (0, 0.5), ("text", 1): (0.625, 0.75), ("text", 2): (0.25, 0.5),
        ("video", 0): (0.5, 1), ("video", 1): (0.75, 1), ("video", 2): (0.5, 1),
    }  # fmt: skip
    assert "The sinks are text and video tokens." in figure.alternative
    assert "The attention to sinks is highest at layer 1 (62.5%)" in figure.alternative
    # The table keeps what the picture adds up.
    assert [(r["modality"], r["tokens"], r["mass"]) for r in figure.rows[:3]] == [
        ("text", "sinks", 0.5), ("text", "sinks", 0.25), ("video", "sinks", 0.125),
    ]  # fmt: skip


def test_the_legend_names_the_bands_that_are_there() -> None:
    figure = mean_mass([row(layer, m, False, 0.5) for layer in (0, 1) for m in ("text", "audio")])
    area = figure.spec()["layer"][0]
    assert area["encoding"]["fill"]["legend"]["values"] == ["text", "audio"]
    assert area["encoding"]["fill"]["scale"]["domain"] == [*MODALITIES, SINKS]
    assert SINKS not in figure.alternative


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_every_band_has_its_colour(look: Look) -> None:
    colours = config(look)["range"]["ordinal"]
    assert dict(zip([*MODALITIES, SINKS], colours, strict=True)) == {
        **{name: look.modality(name) for name in MODALITIES}, SINKS: look.ink,
    }  # fmt: skip
    assert len(set(colours)) == len(colours)


def test_an_item_of_one_layer_is_seen() -> None:
    """An area without a width is nothing; the rectangles under the pointer are drawn instead."""
    one, two = (mean_mass([row(i, "text", False, 1.0) for i in range(n)]).spec()["layer"][1] for n in (1, 2))
    assert (one["mark"]["fillOpacity"], two["mark"]["fillOpacity"]) == (1, 0)
    assert [t["field"] for t in two["encoding"]["tooltip"]] == ["band", "layer", "share"]


def planted(sinks: list[int], marked_at: range) -> tuple[Example, np.ndarray[Any, Any]]:
    attention = np.random.default_rng(3).dirichlet(np.ones(12), 6)
    modalities = ["text"] * 3 + ["video"] * 4 + ["audio"] * 3 + ["text"] * 2
    given = {
        "layers": 6,
        "tokens": [{"text": "a", "modality": m} for m in modalities],
        "last_query": attention.tolist(),
        "marked": {"massive_activation": [[layer, p] for layer in marked_at for p in sinks]},
    }
    return Example.of(clean(given)), attention


def test_the_last_token_of_the_example() -> None:
    example, attention = planted([0, 4], range(2, 5))
    figure = last_token_mass(example)
    assert figure is not None
    found = bands(figure)
    for layer in range(6):
        expected = {
            SINKS: attention[layer, [0, 4]].sum(),
            "text": attention[layer, [1, 2, 10, 11]].sum(),
            "video": attention[layer, [3, 5, 6]].sum(),
            "audio": attention[layer, 7:10].sum(),
        }
        for band, share in expected.items():
            low, high = found[band, layer]
            assert high - low == pytest.approx(share)
        assert found["audio", layer][1] == pytest.approx(1.0)


def test_the_last_token_without_a_sink_and_without_numbers() -> None:
    figure = last_token_mass(planted([], range(0))[0])
    assert figure is not None
    assert {band for band, _ in bands(figure)} == {"text", "video", "audio"}
    silent = Example.of({"layers": 2, "tokens": [{"text": "a", "modality": "text"}]})
    assert last_token_mass(silent) is None


def test_it_stands_first_among_the_charts_of_what_is_marked() -> None:
    section = {"attention": [row(0, "text", False, 1.0)], "by_layer": [
        {"criterion": "massive_activation", "layer": 0, "modality": "all", "share": 0.0, "mass": None}]}  # fmt: skip
    assert [figure.name for figure in identification(section)] == ["modality-mass", "marked-share"]
    assert [figure.name for figure in identification({"by_layer": section["by_layer"]})] == ["marked-share"]
