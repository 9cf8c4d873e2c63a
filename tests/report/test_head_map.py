"""The heat map of heads: every head in its cell, from 9 heads at 24 layers to 64 at 80, and where some are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omnisink.report.charts.head_map import head_map
from omnisink.report.charts.heads import heads


def given(layers: int, count: int, seed: int = 0) -> list[dict[str, Any]]:
    mass = np.random.default_rng(seed).beta(1, 2, (layers, count))
    return [
        {"layer": i, "head": h, "sink_attention": float(mass[i, h]), "marked": 1.0}
        for i in range(layers)
        for h in range(count)
    ]


@pytest.mark.parametrize(("layers", "count"), [(24, 9), (30, 64), (80, 64), (1, 1)])
def test_every_head_is_in_its_cell(layers: int, count: int) -> None:
    rows = given(layers, count)
    figure = head_map(rows)
    drawn = figure.data["head-map"]
    assert len(drawn) == layers * count
    for cell, row in zip(drawn, rows, strict=True):
        assert (cell["left"] + cell["right"]) / 2 == row["layer"]
        assert (cell["low"] + cell["high"]) / 2 == row["head"]
        assert cell["right"] - cell["left"] == cell["high"] - cell["low"] == 1
        assert cell["sink_attention"] == row["sink_attention"]
    spec = figure.spec()
    mark = spec["layer"][0]
    assert mark["encoding"]["fill"]["scale"]["domain"][0] == 0
    assert mark["encoding"]["y"]["scale"]["domain"] == [-0.5, count - 0.5]
    assert len(mark["encoding"]["y"]["axis"]["values"]) <= 12
    assert 20 <= spec["height"] <= 460
    assert figure.many_marks == (layers * count > 600)
    top = max(rows, key=lambda r: r["sink_attention"])
    assert f"highest at layer {top['layer']}, head {top['head']}" in figure.alternative or layers == 1


def test_missing_heads_stay_empty() -> None:
    """Layers with fewer heads, numbers that are missing, and every third layer only."""
    rows = [row for row in given(30, 8) if row["layer"] % 3 == 0 and not (row["layer"] == 6 and row["head"] > 3)]
    rows[0]["sink_attention"] = None
    figure = head_map(rows)
    drawn = {(cell["layer"], cell["head"]): cell for cell in figure.data["head-map"]}
    assert len(drawn) == 10 * 8 - 4 - 1
    assert (0, 0) not in drawn
    assert (6, 4) not in drawn
    # Cells of every third layer are as wide as the step, so that nothing lies between them.
    assert drawn[3, 0]["right"] == drawn[6, 0]["left"] == 4.5
    assert len(figure.rows) == len(rows)


def test_it_stands_before_the_scatter_and_shows_all_heads_that_were_measured() -> None:
    zeroed = [row | {"effect": 0.1, "low": None, "high": None} for row in given(30, 4) if row["layer"] % 10 == 0]
    figures = heads({"heads": zeroed, "sink_attention": given(30, 4)})
    assert [figure.name for figure in figures] == ["head-map", "heads"]
    assert len(figures[0].data["head-map"]) == 120
    # A study of an earlier version has the attention of the heads only that were zeroed.
    assert len(heads({"heads": zeroed})[0].data["head-map"]) == 12
    assert heads({}) == []


def test_little_attention_is_pale() -> None:
    rows = [row | {"sink_attention": 1e-4} for row in given(4, 4)]
    scale = head_map(rows).spec()["layer"][0]["encoding"]["fill"]["scale"]
    assert scale["domain"] == [0, 0.01]
