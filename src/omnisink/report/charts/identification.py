"""Charts of the tokens that are marked as sinks, by layer, criterion and modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from omnisink.report.charts.channels import channels
from omnisink.report.charts.intervals import intervals
from omnisink.report.charts.lines import Choice, distinct, layer_lines, line_rows, value_axis, wide_to_long
from omnisink.report.charts.modality_mass import mean_mass
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import at_layer, bounded, extremes, present
from omnisink.results.wording import spaced

_LAYER, _CRITERION = Column("layer", "layer", "d"), Column("criterion", "criterion", code=True)


def identification(section: Mapping[str, Any]) -> list[Figure]:
    """Draw what the section has.

    Parameters
    ----------
    section : mapping
        ``identification`` of the study's results.

    Returns
    -------
    list of Figure
        One for each part that has rows.
    """
    by_layer: Sequence[Row] = section.get("by_layer") or []
    # Rows without a number stay: at their layers nothing is marked, and lines break there.
    whole = [row for row in by_layer if row.get("modality") == "all"]
    figures = []
    if section.get("attention"):
        figures.append(mean_mass(section["attention"]))
    if by_layer:
        figures.append(_share(by_layer))
    if present(whole, "mass"):
        figures.append(_mass(whole))
    for key, draw in (("overlap", _overlap), ("stability", _stability), ("channels", channels)):
        if section.get(key):
            figures.append(draw(section[key]))
    if section.get("masking"):
        figures.append(
            intervals(
                "masking",
                "Hiding the marked tokens",
                section["masking"],
                caption="Some tokens are hidden from the attention of all others.",
            )
        )
    return figures


def _share(rows: Sequence[Row]) -> Figure:
    criteria, fields = distinct(rows, "criterion"), ("layer", "modality", "low", "high")
    drawn = line_rows(
        (
            {"series": spaced(row.get("criterion")), "value": row.get("share")} | {f: row.get(f) for f in fields}
            for row in rows
        ),
        ".2%",
    )
    modalities = distinct(drawn, "modality")
    first = [row for row in rows if row.get("modality") in modalities[:1]]
    return Figure(
        name="marked-share",
        title="How many tokens are marked",
        caption="Share of the tokens of a prompt that each criterion marks, layer by layer"
        + (", with its 95% interval." if bounded(rows) else "."),
        alternative=_for_each(criteria, first, "share", ".2%", "The share of tokens that {} marks"),
        chart=layer_lines(
            "marked-share",
            value_axis("Tokens marked (%)", ".2~%"),
            [spaced(criterion) for criterion in criteria],
            drawn,
            Choice("modality", "Tokens of modality", modalities),
        ),
        data={"marked-share": drawn},
        columns=(
            _CRITERION,
            _LAYER,
            Column("modality", "modality"),
            Column("tokens", "tokens in a prompt", ".4g"),
            Column("marked", "marked", ".3g"),
            Column("share", "share", ".2%", ("low", "high")),
            Column("mass", "attention", ".1%"),
        ),
        rows=rows,
    )


def _mass(rows: Sequence[Row]) -> Figure:
    criteria = distinct(rows, "criterion")
    drawn = line_rows(
        (
            {"layer": row.get("layer"), "series": spaced(row.get("criterion")), "value": row.get("mass")}
            for row in rows
        ),
        ".1%",
    )
    return Figure(
        name="attention-mass",
        title="How much attention the marked tokens draw",
        caption="Share of their attention that all other tokens place on what is marked.",
        alternative=_for_each(criteria, rows, "mass", ".1%", "The attention on what {} marks"),
        chart=layer_lines(
            "attention-mass", value_axis("Attention (%)", ".3~%"), [spaced(criterion) for criterion in criteria], drawn
        ),
        data={"attention-mass": drawn},
        columns=(_CRITERION, _LAYER, Column("mass", "attention", ".1%")),
        rows=rows,
    )


def _overlap(rows: Sequence[Row]) -> Figure:
    parts = {
        "both": "both criteria",
        "only_massive": "massive activation only",
        "only_dimension": "sink dimension only",
    }
    ranks = list(parts.values())
    drawn = [
        {**row, "rank": ranks.index(row["series"])} for row in present(wide_to_long(rows, parts, ["jaccard"]), "value")
    ]
    seen = [name for name in ranks if any(row["series"] == name and row["value"] > 0 for row in drawn)]
    bars = (
        alt.Chart(named("overlap"), height=220)
        .mark_bar()
        .encode(
            x=alt.X("layer:O").title("Layer").axis(labelAngle=0),
            y=alt.Y("value:Q", scale=alt.Scale() if drawn else alt.Scale(domain=[0, 1])).title("Tokens marked (mean)"),
            color=alt.Color("series:N").title("Marked by").scale(domain=ranks).legend(values=seen or ranks),
            order="rank:Q",
            tooltip=[
                alt.Tooltip("series:N", title="marked by"),
                alt.Tooltip("layer:O", title="layer"),
                alt.Tooltip("value:Q", title="tokens", format=".3~f"),
                alt.Tooltip("jaccard:Q", title="overlap (Jaccard)", format=".2~f"),
            ],
        )
    )
    said = [extremes(rows, key, ".2f", at_layer, f"The number marked by {label}") for key, label in parts.items()]
    return Figure(
        name="overlap",
        title="Do the criteria agree?",
        caption="Mean number of tokens that both criteria mark, and that only one of them marks.",
        alternative=" ".join([*said, extremes(rows, "jaccard", ".2f", at_layer, "The overlap (Jaccard index)")]),
        chart=bars,
        data={"overlap": drawn},
        columns=(
            _LAYER,
            *(Column(key, label, ".2f") for key, label in parts.items()),
            Column("jaccard", "overlap (Jaccard)", ".2f"),
        ),
        rows=rows,
    )


def _stability(rows: Sequence[Row]) -> Figure:
    parts = {
        "prompts": "prompts with a sink",
        "first": "prompts with the first token marked",
        "jaccard": "overlap between prompts",
    }
    criteria = distinct(rows, "criterion")
    drawn = line_rows(
        ({**row, "criterion": spaced(row["criterion"])} for row in wide_to_long(rows, parts, ["criterion"])), ".2f"
    )
    return Figure(
        name="stability",
        title="Is it the same from prompt to prompt?",
        caption=(
            "Share of prompts that have a sink, and that have one at the first token; and how far two prompts agree in"
            " the positions that are marked (mean Jaccard index of pairs)."
        ),
        alternative=" ".join(
            _for_each(criteria, rows, key, ".2f", f"With {{}}, the share or overlap of “{label}”")
            for key, label in parts.items()
        ),
        chart=layer_lines(
            "stability",
            value_axis("Share or overlap (0 to 1)").scale(domain=[0, 1]),
            list(parts.values()),
            drawn,
            Choice("criterion", "Criterion", distinct(drawn, "criterion")),
        ),
        data={"stability": drawn},
        columns=(_CRITERION, _LAYER, *(Column(key, label, ".2f") for key, label in parts.items())),
        rows=rows,
    )


def _for_each(criteria: Sequence[str], rows: Sequence[Row], field: str, form: str, what: str) -> str:
    """Say where a quantity is highest and lowest, for each criterion."""
    return " ".join(
        extremes(
            [row for row in rows if row.get("criterion") == criterion],
            field,
            form,
            at_layer,
            what.format(spaced(criterion)),
        )
        for criterion in criteria
    )
