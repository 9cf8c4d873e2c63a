"""A comparison as an object: read, listed, drawn, and named where it lacks something."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.comparison import Comparison
from omnisink.evaluation.comparing.tables import write_tables
from tests.evaluation.scored_runs import FEW, write_scores
from tests.skips import needs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Compare two methods with the baseline; one gains twelve questions of forty and loses one."""
    base = [True] * 10 + [False] * 30
    arm = [True] * 9 + [False] + [True] * 12 + [False] * 18
    folder = tmp_path_factory.mktemp("runs") / "run"
    return compare([write_scores(folder, {"baseline": base, "outro": arm, "<b>same</b>": base})], resamples=FEW)


def test_a_comparison_is_saved_and_loaded(results: Comparison, tmp_path: Path) -> None:
    write_tables(results, tmp_path)
    assert Comparison.load(tmp_path) == results == Comparison.load(results.save(tmp_path / "other.json"))
    with pytest.raises(OmnisinkError, match=r"is not a comparison: its format is None"):
        (tmp_path / "other.json").write_text("{}", encoding="utf-8")
        Comparison.load(tmp_path / "other.json")


def test_it_is_shown_with_the_verdict_first(results: Comparison) -> None:
    verdict = results["tasks"][0]["methods"][1]["paired"]["verdict"]
    assert f"outro: {verdict}" in repr(results)
    assert repr(results).startswith("Comparison(with baseline, 40 questions; ")
    shown = results._repr_html_()
    assert shown.index("<th>verdict</th>") < shown.index("<th>accuracy")
    assert "<b>" not in shown
    assert repr(Comparison()) == "Comparison(with None, 0 questions; no method)"


def test_it_becomes_a_table_of_pandas(results: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = results.to_dataframe().set_index("method")
    assert frame.loc["baseline", "baseline"]
    assert frame.loc["baseline", "accuracy"] == pytest.approx(0.25)
    row = frame.loc["outro"]
    assert (row["difference"], row["wins"], row["losses"]) == (pytest.approx(11 / 40), 12, 1)
    assert row["difference_low"] < 11 / 40 < row["difference_high"]
    assert row["low"] < row["accuracy"] < row["high"]
    with pytest.raises(OmnisinkError, match="which lack a part"):
        Comparison(tasks=[{"methods": [{}]}]).to_dataframe()


@needs("matplotlib")
def test_it_draws_the_differences_in_points(results: Comparison) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ax = results.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["outro", "<b>same</b>"]
    points = sorted(x for line in ax.lines[1:] for x in line.get_xdata())
    assert points == pytest.approx([0, 27.5])
    assert ax.get_xlabel() == "accuracy difference (percentage points)"
    pair = results["tasks"][0]["methods"][1]["paired"]
    widths = [bar.get_width() for bar in ax.patches]
    assert 2 * 100 * pair["detectable"]["value"] in [pytest.approx(w) for w in widths]
    label = results["tasks"][0]["label"]
    assert results.plot(label).get_title(loc="left") == f"Difference from baseline, {label}"
    plt.close("all")
    with pytest.raises(OmnisinkError, match="there is no task 'other' in this comparison"):
        results.plot("other")
    alone = {**results["tasks"][0], "methods": results["tasks"][0]["methods"][:1]}
    with pytest.raises(OmnisinkError, match="no method was compared"):
        Comparison({**results, "tasks": [alone]}).plot()
