"""The figures: what is drawn of which numbers, units on the axes, and PDF files without a warning."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.plotting.changes import Change, draw_changes
from omnisink.plotting.heads import draw_heads
from omnisink.plotting.modalities import draw_modalities
from omnisink.plotting.palette import DARK, LIGHT
from omnisink.plotting.sink_map import draw_sink_map
from omnisink.plotting.zero_k import draw_zero_k
from tests.skips import needs

pytestmark = needs("matplotlib")


@pytest.fixture(autouse=True)
def plt():
    """Draw without a screen, and close what a test leaves open."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def written(ax: Any, kind: str = "pdf") -> bytes:
    """Write the figure; any warning is an error."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.figure.savefig(file, format=kind)
    return file.getvalue()


MARKED = np.zeros((4, 6), dtype=bool)
MARKED[1:3, 0] = MARKED[2, 4] = True


def sink_map(**how: Any) -> Any:
    size = np.linspace(1, 2e4, 24).reshape(4, 6)
    return draw_sink_map(MARKED, [3, 4, 5, 9], range(10, 16), **({"magnitude": size} | how))


def heads(**how: Any) -> Any:
    mass = np.array([[0.0, 0.25], [0.5, np.nan]])
    return draw_heads(mass, [2, 7], "sinks (massive_activation)", **how)


def modalities(**how: Any) -> Any:
    mass = {"text": np.array([0.9, 0.5]), "audio": np.array([0.1, 0.5])}
    return draw_modalities(mass, {"text": np.array([0.0, 0.4]), "audio": np.zeros(2)}, [0, 1], **how)


def zero_k(**how: Any) -> Any:
    return draw_zero_k([0, 1, 2, 4], [55.0, 32.0, 26.0, 22.0], "attention mass on the sink (%)", **how)


def changes(**how: Any) -> Any:
    rows = [Change("$toward_x", 0.1, -0.1, 0.3), Change("away", 0.4, 0.2, 0.6, True), Change("one item", 0.0)]
    return draw_changes(rows, "loss change (nats)", "What each condition changes", **how)


FIGURES: list[tuple[Callable[..., Any], str, str]] = [
    (sink_map, "token position", "layer"),
    (heads, "head", "layer"),
    (modalities, "layer", "attention mass (%)"),
    (zero_k, "n, key channels set to zero", "attention mass on the sink (%)"),
    (changes, "loss change (nats)", ""),
]


@pytest.mark.parametrize(("draw", "x", "y"), FIGURES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_figure_names_its_axes_and_becomes_a_pdf(draw, x, y, plt) -> None:
    ax = draw()
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x, y)
    assert ax.get_title(loc="left")
    assert written(ax).startswith(b"%PDF")
    _, (first, second) = plt.subplots(1, 2, layout="constrained")
    assert draw(ax=second) is second
    assert not first.has_data()
    assert second.has_data()
    assert written(second).startswith(b"%PDF")


def colours(ax: Any) -> set[str]:
    """Return the colours of lines, areas and the strongest cells."""
    from matplotlib.colors import to_hex

    found = [line.get_color() for line in ax.lines] + [box.get_facecolor() for box in ax.patches]
    found += [row for area in ax.collections for row in area.get_facecolor()]
    return {to_hex(colour) for colour in found} | {to_hex(image.get_cmap()(1.0)) for image in ax.images}


@pytest.mark.parametrize("draw", [f[0] for f in FIGURES])
def test_the_colours_fit_the_background(draw, plt) -> None:
    def of(look: Any) -> set[str]:
        return {*look.series, *look.modalities, look.soft, look.heat[-1]}

    light = colours(draw())
    with plt.style.context("dark_background"):
        dark = colours(draw())
    assert light & of(LIGHT)
    assert dark & of(DARK)
    assert not light & of(DARK)
    assert not dark & of(LIGHT)


def test_the_sink_map_outlines_the_sinks_and_names_them() -> None:
    from matplotlib.patches import Rectangle

    ax = sink_map()
    boxes = sorted((b.get_x(), b.get_y(), b.get_height()) for b in ax.patches if isinstance(b, Rectangle))
    assert boxes == [(-0.5, 0.5, 2), (3.5, 1.5, 1)]
    assert ax.get_title(loc="left") == "Sinks, outlined: token 10 (layers 4–5), token 14 (layer 5)"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["3", "4", "5", "9"]
    ax.figure.canvas.draw()
    assert {t.get_text() for t in ax.get_xticklabels()} <= {"", *map(str, range(10, 16))}
    assert ax.figure.axes[1].get_ylabel() == "largest |h| of the token"
    assert (ax.images[0].get_array() == np.linspace(1, 2e4, 24).reshape(4, 6)).all()


def test_tokens_and_modalities_of_the_sink_map() -> None:
    tokens = ["$x_1^", "Ġthe", "Ċ", "漢", "", "a" * 40]
    ax = sink_map(tokens=tokens, modalities=["text", "text", None, "video", "audio", "text"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["$x_1^", "the", "⏎", "□", "␣", "a" * 17 + "…"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["text", "video", "audio"]
    assert written(ax).startswith(b"%PDF")


@pytest.mark.parametrize("size", [None, np.zeros((4, 6)), np.full((4, 6), np.nan), np.full((4, 6), 7.0)])
def test_a_sink_map_without_activations(size) -> None:
    ax = sink_map(magnitude=size)
    assert written(ax).startswith(b"%PDF")
    assert draw_sink_map(np.zeros((1, 1), dtype=bool), [0], [0]).get_title(loc="left") == "No sinks"


def test_many_sinks_are_counted_and_a_column_among_thousands_is_outlined() -> None:
    marked = np.zeros((3, 5000), dtype=bool)
    marked[0, ::600] = True
    ax = draw_sink_map(marked, [0, 1, 2], range(5000))
    assert ax.get_title(loc="left") == "9 tokens are sinks (outlined), at layer 0"
    assert len(ax.patches) == 9
    assert all(box.get_linewidth() >= 1 for box in ax.patches)
    assert len(written(ax)) < 300_000


def test_the_heat_map_of_heads_begins_at_nothing() -> None:
    (image,) = heads().images
    assert image.get_clim() == (0, 50)
    assert image.get_array().tolist() == [[0, 25], [50, None]]
    assert draw_heads(np.zeros((1, 1)), [0], "x").images[0].get_clim() == (0, 1)


def test_modalities_are_stacked_with_the_sinks_below() -> None:
    ax = modalities()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["audio", "text", "text, sinks"]
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in ax.collections]
    assert tops == pytest.approx([40, 90, 100])
    assert draw_modalities({"text": np.ones(1)}, {"text": np.zeros(1)}, [5]).has_data()


def test_zero_k_begins_at_no_channel() -> None:
    ax = zero_k()
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2, 4]
    assert ax.lines[0].get_ydata().tolist() == [55, 32, 26, 22]
    assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0
    places = ax.transData.transform([(n, 0) for n in (0, 1, 2, 4)])[:, 0]
    assert (np.diff(places) > 0.1 * (places[-1] - places[0])).all()  # 0 is as far from 1 as others are
    assert draw_zero_k([0, 1], [0, -0.1], "x", low=[0, -0.3], high=[0, 0.2]).collections


def test_changes_are_drawn_from_above_with_what_could_not_be_seen() -> None:
    ax = draw_changes([Change("a", 0.0, 0.0, 0.0, detectable=18.5), Change("b", 3.0, 1.0, 5.0, True)], "points", "t")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    (bar,) = ax.patches
    assert (bar.get_x(), bar.get_width()) == (-18.5, 37.0)
    assert ax.get_xlim()[0] < -18.5
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "95% interval", "change", "change, p < 0.05 (Holm)", "too small to be detected"
    ]  # fmt: skip


def test_several_axes_are_refused(plt) -> None:
    _, both = plt.subplots(1, 2)
    with pytest.raises(OmnisinkError, match=r"one Matplotlib Axes, got ndarray.*ax=axes\[0\]"):
        heads(ax=both)


def test_the_package_and_the_palette_need_no_matplotlib(tmp_path: Path) -> None:
    from tests.test_package import run_python

    source = Path(__file__).parents[2] / "src"
    code = "import sys, omnisink.methods.measurements, omnisink.plotting.palette; print('matplotlib' in sys.modules)"
    assert run_python("-c", f"import sys; sys.path.insert(0, {str(source)!r}); {code}").strip() == "False"


def test_sinks_are_hatched_in_another_colour_than_their_band() -> None:
    ax = modalities()
    hatched = [area for area in ax.collections if area.get_hatch()]
    assert [area.get_label() for area in hatched] == ["text, sinks"]
    ax.figure.canvas.draw()
    shown = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3]
    box = ax.get_window_extent()
    # The lower right of the axes: the band of the sinks, with the lines of the hatch in it.
    corner = shown[-int(box.y0 + 0.3 * box.height) : -int(box.y0) - 3, int(box.x1) - 30 : int(box.x1) - 3]
    assert len(np.unique(corner.reshape(-1, 3), axis=0)) > 1
