"""The sink map shows the sink: the right numbers, outlines and words at the right places, for every kind of prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from omnisink.plotting.marks import grouped, layers_in_words, marked_tokens
from omnisink.plotting.palette import DARK, LIGHT, Look
from omnisink.report.charts.sinkmap import sink_map
from omnisink.report.cleaning import clean
from omnisink.report.example import MAX_COLUMNS, Example
from omnisink.report.figure import Figure
from omnisink.report.theme import config

SINK = 20_000.0


def planted(
    length: int,
    sinks: Sequence[tuple[int, int, int]],
    layers: int = 30,
    modalities: Sequence[str] = ("text",),
    magnitude: bool = True,
) -> Example:
    """Make an example whose tokens grow to 30 over the layers, but for `sinks`: (position, first, last layer)."""
    size = np.repeat(np.geomspace(0.5, 30.0, layers)[:, None], length, axis=1)
    received = np.full((layers, length), 1e-3)
    marked = []
    for position, first, last in sinks:
        size[first : last + 1, position] = SINK
        received[first : last + 1, position] = 0.6
        marked += [[layer, position] for layer in range(first, last + 1)]
    tokens = [{"text": f"t{i}", "modality": modalities[i * len(modalities) // length]} for i in range(length)]
    given: dict[str, Any] = {"layers": layers, "tokens": tokens, "received": received.tolist()}
    given |= {"marked": {"massive_activation": marked}, "magnitude": size.tolist() if magnitude else None}
    return Example.of(clean(given))


def panels(figure: Figure) -> list[dict[str, Any]]:
    return figure.spec()["vconcat"]  # type: ignore[no-any-return]


def marks_of(panel: dict[str, Any], data: str) -> list[dict[str, Any]]:
    return [layer for layer in panel["layer"] if layer["data"]["name"] == data]


def cell(rows: Sequence[Any], position: float, layer: int, field: str = "magnitude") -> float:
    """Return what is drawn at a place."""
    row = next(row for row in rows if row["begin"] <= position < row["end"])
    value: float = row[field][layer]
    return value


def boxes(rows: Sequence[Any]) -> set[tuple[float, float, float, float]]:
    """Return the outlines that are drawn: left, right, bottom, top."""
    found: dict[Any, list[Any]] = {}
    for row in rows:
        found.setdefault((row["criterion"], row["run"]), []).append((row["x"], row["y"]))
    return {(min(x), max(x), min(y), max(y)) for x, y in (zip(*corners, strict=True) for corners in found.values())}


def test_the_size_is_the_colour_and_the_modality_a_strip() -> None:
    figure = sink_map(planted(120, [(0, 12, 27)], modalities=("text", "video", "audio")))
    tokens = figure.data["tokens"]
    assert cell(tokens, 0, 12) == SINK
    assert cell(tokens, 1, 12) < 30
    assert [(row["begin"], row["end"], row["modality"]) for row in figure.data["modalities"]] == [
        (0, 40, "text"),
        (40, 80, "video"),
        (80, 120, "audio"),
    ]
    (cells,), (strip,) = (marks_of(panels(figure)[0], data) for data in ("tokens", "modalities"))
    assert cells["encoding"]["fill"]["field"] == "strength"
    assert cells["encoding"]["fill"]["scale"]["type"] == "log"
    assert strip["encoding"]["color"]["field"] == "modality"
    assert strip["encoding"]["y"]["value"] > panels(figure)[0]["height"], "the strip is under the cells"
    legend = strip["encoding"]["color"]["legend"]["values"]
    assert legend == ["text", "video", "audio"]


def test_a_sink_is_outlined_named_and_drawn_again_wide() -> None:
    figure = sink_map(planted(300, [(0, 12, 27), (200, 3, 3)]))
    assert boxes(figure.data["outlines"]) == {(0, 1, 11.5, 27.5), (200, 201, 2.5, 3.5)}
    assert [row["text"] for row in figure.data["labels"]] == ["token 0, layers 12–27", "token 200, layer 3"]
    assert [row["x"] for row in figure.data["pointers"]] == [0.5, 200.5]
    # The lower panel: both tokens with their neighbours, one column each, a gap between them.
    zoomed = figure.data["zoomed"]
    names = [row["name"].split()[0] for row in figure.data["zoomed-names"]]
    assert names == [str(p) for p in (*range(6), *range(195, 206))]
    assert all(row["end"] - row["begin"] == 1 for row in zoomed)
    assert zoomed[6]["begin"] > zoomed[5]["end"]
    drawn = dict(zip(names, zoomed, strict=True))
    assert [drawn["200"]["magnitude"][layer] == SINK for layer in (2, 3, 4)] == [False, True, False]
    assert boxes(figure.data["zoomed-outlines"]) == {
        (0, 1, 11.5, 27.5),
        (drawn["200"]["begin"], drawn["200"]["end"], 2.5, 3.5),
    }
    assert "lower panel" in figure.caption
    assert "Massive activation marks 2 tokens: token 0, layers 12–27; token 200, layer 3." in figure.alternative


def test_few_tokens_are_named_in_the_map_itself() -> None:
    figure = sink_map(planted(30, [(0, 5, 25)]))
    assert len(panels(figure)) == 1
    assert [row["name"] for row in figure.data["names"]] == [f"{i} “t{i}”" for i in range(30)]
    assert len(marks_of(panels(figure)[0], "names")) == 1
    assert "lower panel" not in figure.caption


@pytest.mark.parametrize("length", [30, 300, 5_000])
def test_a_map_without_a_sink_says_so_and_stays_pale(length: int) -> None:
    figure = sink_map(planted(length, []))
    assert len(panels(figure)) == 1
    assert [row["text"] for row in figure.data["labels"]] == ["No token is marked."]
    assert figure.data["outlines"] == figure.data["pointers"] == figure.data["zoomed"] == []
    scale = marks_of(panels(figure)[0], "tokens")[0]["encoding"]["fill"]["scale"]["domain"]["expr"]
    ends = [float(n) for n in scale.split("[")[1].split("]")[0].split(",")]
    assert ends[1] > 100 * 30, "the largest ordinary activation is far from the end of the scale"
    assert "marks no token" in figure.alternative


def test_thousands_of_tokens_keep_every_sink_in_sight() -> None:
    """Sinks of several modalities, among columns that gather tokens: outlined, named, and alone in the lower panel."""
    sinks = [(0, 12, 27), (1_700, 3, 9), (1_701, 3, 9), (4_990, 20, 27)]
    figure = sink_map(planted(5_000, sinks, modalities=("text", "image", "video", "audio")))
    assert len(figure.data["tokens"]) <= MAX_COLUMNS
    for position, first, last in sinks:
        assert [cell(figure.data["tokens"], position, layer) == SINK for layer in (first - 1, first, last)] == [
            False, True, True,
        ]  # fmt: skip
    labels = {row["text"]: row for row in figure.data["labels"]}
    assert set(labels) == {"token 0, layers 12–27", "tokens 1700–1701, layers 3–9", "token 4990, layers 20–27"}
    assert [row["align"] for row in labels.values()] == ["left", "left", "right"]
    close = {name["name"].split()[0]: row for name, row in
             zip(figure.data["zoomed-names"], figure.data["zoomed"], strict=True)}  # fmt: skip
    assert {close[str(p)]["modality"] for p, _, _ in sinks} == {"text", "image", "audio"}
    assert all(close[str(p)]["magnitude"][first] == SINK for p, first, _ in sinks)
    assert "gathers 8 neighbours" in figure.note


def test_many_sinks_are_counted_and_the_largest_drawn_again() -> None:
    figure = sink_map(planted(2_000, [(p, 8, 19) for p in range(0, 2_000, 40)]))
    assert [row["text"] for row in figure.data["labels"]] == ["50 tokens are marked, at layers 8–19"]
    assert len(figure.data["zoomed"]) == 12 * 3 - 1
    assert "shows 12 of the 50 marked tokens" in figure.note


def test_labels_do_not_cover_each_other() -> None:
    figure = sink_map(planted(600, [(0, 5, 25), (4, 5, 25), (8, 6, 25), (590, 5, 25)]))
    left = sorted(row["y"] for row in figure.data["labels"] if row["align"] == "left")
    assert len(left) == 3
    assert np.diff(left).min() >= 17 * 30 / 420 - 1e-9
    assert len(set(left)) == 3


def test_what_is_missing_is_empty_and_not_small() -> None:
    figure = sink_map(planted(60, [(0, 5, 25)], magnitude=False))
    assert {value for row in figure.data["tokens"] for value in row["magnitude"]} == {None}
    steps = marks_of(panels(figure)[0], "tokens")[0]["transform"]
    strength = next(step["calculate"] for step in steps if step.get("as") == "strength")
    assert strength.startswith("isValid(datum.value) ?")
    assert strength.endswith(": null")


def test_the_legend_names_powers_of_ten_only() -> None:
    """Its numbers stand apart, whichever quantity is shown."""
    for sinks in ([], [(0, 5, 25)]):
        legend = marks_of(panels(sink_map(planted(60, sinks)))[0], "tokens")[0]["encoding"]["fill"]["legend"]
        shown = legend["values"]["expr"]
        for part in shown.split("?")[1].split(":"):
            values = [float(n) for n in part.strip().strip("[]").split(",")]
            assert 2 <= len(values) <= 6
            ratio = np.diff(np.log10(values))
            assert ratio.min() >= 1 - 1e-9


def lightness(colour: str) -> float:
    """Return L* of a colour, 0 to 100."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))]  # fmt: skip
    y = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return float(116 * np.cbrt(y) - 16 if y > 0.008856 else 903.3 * y)


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_colours_run_evenly_from_the_page_to_its_opposite(look: Look) -> None:
    assert config(look)["range"]["heatmap"] == list(look.heat)
    steps = np.diff([lightness(colour) for colour in look.heat])
    assert (steps < 0).all() if look is LIGHT else (steps > 0).all()
    assert np.abs(steps).min() / np.abs(steps).max() > 0.5
    assert abs(lightness(look.heat[0]) - lightness(look.paper)) < 10
    # The outline is seen on either end of the scale.
    assert config(look)["style"]["outline"]["color"] == look.series[1]


def test_marked_cells_in_words() -> None:
    cells = [(layer, 0) for layer in (2, 3, 4, 12, 13)] + [(5, 7), (5, 8), (6, 10)]
    assert [one.text for one in marked_tokens(cells)] == [
        "token 0, layers 2–4, 12–13",
        "tokens 7–8, layer 5",
        "token 10, layer 6",
    ]
    assert grouped([1, 2, 5]) == [(1, 2), (5, 5)]
    assert layers_in_words([(0, 0), (2, 2), (4, 4), (6, 8)]) == "layers 0, 2, …, 6–8"
    assert layers_in_words([(0, 1)], [3, 6]) == "layers 3–6"
