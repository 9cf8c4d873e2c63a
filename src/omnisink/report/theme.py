"""The look of charts on light and dark pages: one Vega-Lite configuration each.

Colours stay apart for the colour-blind (blue, orange, green and purple differ in lightness too, and lines differ in
dash and point as well), and have a contrast of at least 3 : 1 to the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
#: Order of the modalities in every legend; anything else is "other".
MODALITIES = ("text", "image", "video", "audio", "other")


@dataclass(frozen=True)
class Look:
    """Colours for one kind of page."""

    paper: str
    ink: str
    soft: str
    grid: str
    modalities: tuple[str, ...]  # in the order of MODALITIES
    series: tuple[str, ...]
    ramp: tuple[str, ...]


LIGHT = Look(
    paper="#ffffff",
    ink="#16202a",
    soft="#4c5864",
    grid="#e3e8ec",
    modalities=("#5a6672", "#8a4f9e", "#1f6fb0", "#c2500a", "#7a7a52"),
    series=("#1f6fb0", "#c2500a", "#0b7d62", "#8a4f9e", "#5a6672"),
    ramp=("#c98a00", "#c8503c", "#8d2a7a", "#2f2a7d"),
)
DARK = Look(
    paper="#14181d",
    ink="#e8edf2",
    soft="#a9b4bf",
    grid="#2b333c",
    modalities=("#a9b4c0", "#c79be0", "#5cb3f0", "#f5a25d", "#c5c590"),
    series=("#5cb3f0", "#f5a25d", "#4fcba6", "#c79be0", "#a9b4c0"),
    ramp=("#ffd166", "#f58b6b", "#c77dd1", "#8f9bff"),
)


def config(look: Look) -> dict[str, Any]:
    """Return the Vega-Lite configuration of a look."""
    return {
        "font": FONT,
        "background": "transparent",
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "labelColor": look.soft,
            "titleColor": look.ink,
            "labelFontSize": 12,
            "titleFontSize": 12.5,
            "titleFontWeight": 500,
            "titlePadding": 8,
            "gridColor": look.grid,
            "domainColor": look.soft,
            "tickColor": look.soft,
            "labelOverlap": "greedy",
            "labelSeparation": 4,
        },
        "axisX": {"grid": False, "tickCount": 10},
        "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "layout": {"top": {"anchor": "start", "direction": "vertical", "margin": 10}},
            "labelColor": look.ink,
            "titleColor": look.soft,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": 500,
            "labelLimit": 280,
            "titleLimit": 320,
            "symbolLimit": 12,
            "symbolBaseFillColor": look.soft,
            "columnPadding": 14,
            "gradientLength": 160,
            "gradientThickness": 10,
        },
        "title": {
            "anchor": "start",
            "frame": "group",
            "color": look.ink,
            "subtitleColor": look.soft,
            "fontSize": 13,
            "fontWeight": 600,
            "subtitleFontSize": 12.5,
            "subtitlePadding": 6,
            "offset": 10,
        },
        "line": {"strokeWidth": 2},
        "point": {"filled": True, "size": 34, "opacity": 1},
        "area": {"line": False},
        "text": {"color": look.ink, "fontSize": 12},
        "rule": {"color": look.soft},
        "range": {
            "category": list(look.series),
            "ordinal": list(look.modalities),
            "ramp": list(look.ramp),
            "heatmap": list(look.ramp),
            "symbol": ["circle", "square", "triangle-up", "diamond", "cross"],
        },
        "style": {
            "outline": {"color": look.ink, "strokeWidth": 1.6},
            "zero": {"color": look.soft, "stroke": look.soft, "strokeDash": [4, 3]},
            "soft": {"color": look.soft, "fill": look.soft},
            "halo": {"color": look.paper, "stroke": look.paper, "strokeWidth": 4, "strokeJoin": "round"},
            "strong": {"color": look.series[0]},
        },
    }
