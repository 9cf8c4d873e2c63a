"""The look of charts on light and dark pages: one Vega-Lite configuration each.

Colours are those of `omnisink.plotting.palette`; lines differ in dash and point as well.
"""

from __future__ import annotations

from typing import Any

from omnisink.plotting.palette import Look

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


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
        "line": {"strokeWidth": 2, "strokeJoin": "round"},
        "point": {"filled": True, "size": 34, "opacity": 1},
        "area": {"line": False},
        "text": {"color": look.ink, "fontSize": 12},
        "rule": {"color": look.soft},
        "range": {
            "category": list(look.series),
            "ordinal": [*look.modalities, look.ink],  # the last one is that of sinks
            "ramp": list(look.ramp),
            "heatmap": list(look.heat),
            "symbol": ["circle", "square", "triangle-up", "diamond", "cross"],
        },
        "style": {
            "outline": {"color": look.series[1], "strokeWidth": 2},
            "pointer": {"color": look.series[1], "fill": look.series[1]},
            "zero": {"color": look.soft, "stroke": look.soft, "strokeDash": [4, 3]},
            "soft": {"color": look.soft, "fill": look.soft},
            "halo": {"color": look.paper, "stroke": look.paper, "strokeWidth": 4, "strokeJoin": "round"},
            "behind": {"color": look.paper, "fill": look.paper},
            "unseen": {"color": look.grid, "fill": look.grid, "stroke": look.soft, "strokeWidth": 1},
            "sink": {"stroke": look.ink, "strokeWidth": 1.6, "opacity": 1},
            "strong": {"color": look.series[0]},
        },
    }
