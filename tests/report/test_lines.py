"""Lines over layers: they break where there is nothing, and where they are equal all are seen."""

from __future__ import annotations

from typing import Any

from omnisink.report.charts.identification import identification
from omnisink.report.charts.lines import Choice, layer_lines, line_rows, value_axis
from omnisink.report.charts.values import values


def rows_of(**series: dict[int, float | None]) -> list[dict[str, Any]]:
    return [
        {"layer": layer, "series": name, "value": value} for name, by in series.items() for layer, value in by.items()
    ]


def runs(rows: list[Any], name: str) -> list[list[int]]:
    """Return the layers that each stretch of a line joins."""
    found: dict[int, list[int]] = {}
    for row in rows:
        if row["series"] == name:
            found.setdefault(row["run"], []).append(row["layer"])
    return [sorted(layers) for layers in found.values()]


def spec_of(rows: list[Any], series: list[str], choice: Choice | None = None) -> dict[str, Any]:
    return layer_lines("rows", value_axis("Value"), series, rows, choice).to_dict()


def test_a_line_breaks_where_there_is_no_number() -> None:
    drawn = line_rows(rows_of(a={2: 0.1, 3: 0.2, 4: None, 5: 0.3}, b={2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}), ".1f")
    assert runs(drawn, "a") == [[2, 3], [5]]
    assert runs(drawn, "b") == [[2, 3, 4, 5]]
    assert [row["layer"] for row in drawn if row["lone"]] == [5]
    line = next(layer for layer in spec_of(drawn, ["a", "b"])["layer"] if layer["mark"]["type"] == "line")
    assert line["encoding"]["detail"]["field"] == "run"


def test_a_line_breaks_at_layers_that_were_not_measured() -> None:
    """A sink at layer 3 and again from layer 12 on: nothing is said of the layers between."""
    drawn = line_rows(rows_of(a=dict.fromkeys([3, *range(12, 28)], 0.5)), ".1f")
    assert runs(drawn, "a") == [[3], list(range(12, 28))]
    # Every third layer is a line all the same.
    assert runs(line_rows(rows_of(a=dict.fromkeys(range(0, 30, 3), 0.5)), ".1f"), "a") == [list(range(0, 30, 3))]


def test_lines_along_a_quantity_join_what_they_have() -> None:
    given = [{"at": at, "series": "a", "value": 1.0} for at in (512, 4_096, 1_024)]
    assert {row["run"] for row in line_rows(given, ".1f", along="at")} == {0}


def test_lines_that_a_control_tells_apart_are_not_joined() -> None:
    given = [
        {"layer": layer, "series": "share", "value": 0.5, "criterion": name}
        for name, layers in (("one", (0, 1)), ("two", (1, 2)))
        for layer in layers
    ]
    drawn = line_rows(given, ".1f")
    assert {row["run"] for row in drawn if row["criterion"] == "one"} == {0}
    assert {row["run"] for row in drawn if row["criterion"] == "two"} == {1}


def test_the_interval_of_a_single_layer_is_seen() -> None:
    given = [row | {"low": 0.1, "high": 0.9} for row in rows_of(a={3: 0.5, 12: 0.5, 13: 0.5})]
    marks = [layer["mark"]["type"] for layer in spec_of(line_rows(given, ".1f"), ["a"])["layer"]]
    assert marks == ["area", "rule", "line", "point"]
    joined = line_rows(given[1:], ".1f")
    assert [layer["mark"]["type"] for layer in spec_of(joined, ["a"])["layer"]] == ["area", "line", "point"]


def sizes(spec: dict[str, Any], mark: str) -> list[float]:
    layer = next(layer for layer in spec["layer"] if layer["mark"]["type"] == mark)
    return layer["encoding"].get("size", {}).get("scale", {}).get("range", [])  # type: ignore[no-any-return]


def test_equal_lines_are_both_seen() -> None:
    same = spec_of(line_rows(rows_of(a={0: 0.5, 1: 0.6}, b={0: 0.5, 1: 0.6}), ".1f"), ["a", "b"])
    for mark, least in (("line", 2.0), ("point", 2.0)):
        below, above = sizes(same, mark)[:2]
        assert below > least * above, mark
    assert same["resolve"]["scale"]["size"] == "independent"
    apart = spec_of(line_rows(rows_of(a={0: 0.5, 1: 0.6}, b={0: 0.7, 1: 0.6}), ".1f"), ["a", "b"])
    assert sizes(apart, "line") == []


def test_lines_that_are_never_shown_together_do_not_coincide() -> None:
    given = [row | {"criterion": row["series"]} for row in rows_of(a={0: 0.5, 1: 0.6}, b={0: 0.5, 1: 0.6})]
    drawn = [row | {"series": "share"} for row in line_rows(given, ".1f")]
    assert sizes(spec_of(drawn, ["share", "x"]), "line") == []


def test_the_legend_names_what_is_drawn() -> None:
    """Of a single prompt there is no overlap between prompts."""
    stability = [
        {"criterion": "massive_activation", "layer": layer, "prompts": 1.0, "first": 0.0, "jaccard": None}
        for layer in range(4)
    ]
    (figure,) = identification({"stability": stability})
    points = figure.spec()["layer"][-1]["encoding"]
    named = points["color"]["legend"]["values"]
    assert (
        named == points["shape"]["legend"]["values"] == ["prompts with a sink", "prompts with the first token marked"]
    )
    assert (
        spec_of(line_rows(rows_of(a={0: 1.0}, b={0: None}), ".1f"), ["a", "b"])["layer"][-1]["encoding"]["color"][
            "legend"
        ]
        is None
    )


def test_parts_that_never_occur_are_not_in_the_legend_of_the_overlap() -> None:
    rows = [{"layer": i, "both": 1.0 * i, "only_massive": 0.0, "only_dimension": 2.0, "jaccard": 0.3} for i in (0, 1)]
    (figure,) = identification({"overlap": rows})
    assert figure.spec()["encoding"]["color"]["legend"]["values"] == ["both criteria", "sink dimension only"]


def test_the_attention_drawn_breaks_at_a_layer_where_nothing_is_marked() -> None:
    by_layer = [
        {"criterion": name, "layer": layer, "modality": modality, "share": 0.0 if mass is None else 0.1, "mass": mass}
        for name in ("massive_activation", "sink_dimension")
        for layer, mass in ((9, 0.4), (10, 0.5), (11, None), (12, 0.6), (13, 0.7))
        for modality, mass in (("all", mass), ("text", None))
    ]
    figure = next(f for f in identification({"by_layer": by_layer}) if f.name == "attention-mass")
    drawn = list(figure.data["attention-mass"])
    assert runs(drawn, "massive activation") == runs(drawn, "sink dimension") == [[9, 10], [12, 13]]
    # The share is a number there: none of the tokens.
    share = next(f for f in identification({"by_layer": by_layer}) if f.name == "marked-share")
    everything = [row for row in share.data["marked-share"] if row["modality"] == "all"]
    assert runs(everything, "massive activation") == [[9, 10, 11, 12, 13]]


def test_keys_and_values_break_between_layers_with_a_sink() -> None:
    geometry = [
        {"layer": layer, "sink_key_norm": 4.0, "other_key_norm": 18.0, "sink_value_norm": 1.0, "other_value_norm": 6.0}
        for layer in (3, 12, 13)
    ]
    norms = next(figure for figure in values({"geometry": geometry}) if figure.name == "norms")
    assert runs(list(norms.data["norms"]), "key of the sink") == [[3], [12, 13]]
