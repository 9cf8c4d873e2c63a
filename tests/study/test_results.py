"""The results of a study as an object: read, listed, drawn, and named where they lack something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.study.plan import Plan
from omnisink.study.results import StudyResults
from tests.report import study_results
from tests.skips import needs

QUESTIONS = ("identification", "heads", "values", "causality")


@pytest.fixture(scope="module")
def results() -> StudyResults:
    return StudyResults(json.loads(json.dumps(study_results.results(layers=6, tokens=20))))


def test_results_are_saved_and_loaded(results: StudyResults, tmp_path: Path) -> None:
    path = results.save(tmp_path / "results.json")
    assert StudyResults.load(path) == StudyResults.load(tmp_path) == results
    assert isinstance(StudyResults.load(path), dict)
    path.write_text('{"format": "omnisink.comparison.v1"}', encoding="utf-8")
    with pytest.raises(OmnisinkError, match="results.json is not the results of a study: its format is"):
        StudyResults.load(path)
    with pytest.raises(OmnisinkError, match="cannot be read"):
        StudyResults.load(tmp_path / "nothing")
    with pytest.raises(OmnisinkError, match="not plain data"):
        StudyResults(format="x", number=float("nan")).save(path)


def test_they_are_shown_in_short(results: StudyResults) -> None:
    assert repr(results).startswith("StudyResults(")
    assert "items; identification, heads, values, causality; baseline: accuracy" in repr(results)
    assert len(repr(results)) < 240
    assert all(line in results._repr_html_() for line in ("<th>finding</th>", "<td>causality</td>"))
    assert repr(StudyResults()) == "StudyResults(None: 0 items; no section)"


def test_every_table_becomes_one_of_pandas(results: StudyResults) -> None:
    pytest.importorskip("pandas")
    frame = results.to_dataframe()
    assert list(frame["arm"]) == [row["arm"] for row in results["causality"]["arms"]]
    assert list(results.to_dataframe("zero_k")["n"]) == [1, 2, 4, 8]
    assert {"arms", "zero_k", "pruning", "heads", "geometry"} <= results.tables.keys()
    for name, rows in results.tables.items():
        assert len(results.to_dataframe(name)) == len(rows)
    with pytest.raises(OmnisinkError, match=r"no table 'arm'; there are .*arms"):
        results.to_dataframe("arm")


@needs("matplotlib")
def test_figures_of_a_study(results: StudyResults) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ax = results.plot()
    assert [t.get_text().replace("\n", " ") for t in ax.get_yticklabels()] == [
        row["label"] for row in results["causality"]["arms"]
    ]
    assert ax.get_xlabel() == "loss change (nats)"
    assert results.plot("pruning", measure="accuracy").get_xlabel() == "accuracy change (percentage points)"
    ax = results.plot("zero_k", measure="loss")
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [0, 1, 2, 4, 8]
    changes = [row["loss_change"] for row in results["values"]["zero_k"]]
    assert line.get_ydata().tolist() == pytest.approx([0, *changes])
    ax = results.plot("zero_k")
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([80, 50, 25, 12.5, 6.25])
    # The band of the intervals begins with that of n = 0.
    band = ax.collections[0].get_paths()[0].vertices
    assert {75.0, 85.0} <= {round(float(y), 6) for x, y in band if x == 0}
    older = [{k: v for k, v in row.items() if "before" not in k} for row in results["values"]["zero_k"]]
    old = StudyResults({**results, "values": {**results["values"], "zero_k": older}})
    assert old.plot("zero_k").lines[0].get_ydata().tolist() == pytest.approx([50, 25, 12.5, 6.25])
    drawn = np.asarray(results.plot("heads").images[0].get_array())
    first = results["heads"]["heads"][0]
    assert drawn[0, first["head"]] == pytest.approx(100 * first["sink_attention"])
    plt.close("all")


@needs("matplotlib")
@pytest.mark.parametrize(
    ("change", "how", "why"),
    [
        ({}, {"what": "arm"}, "no figure 'arm' of a study"),
        ({}, {"measure": "attention"}, "no measure 'attention' of arms"),
        ({"causality": {}}, {}, "no table 'arms'"),
        ({"causality": {"arms": [{"arm": "x"}]}}, {}, "the figure 'arms' cannot be read from these results"),
        ({"causality": {"arms": [{"accuracy_change": None, "accuracy_low": None, "accuracy_high": None}]}},
         {"measure": "accuracy"}, "no accuracy was measured"),
        ({"values": {"zero_k": [{"n": 1, "mass": None}]}}, {"what": "zero_k"}, "no attention was measured"),
        ({"values": {"zero_k": [{"n": "many", "mass": 1}]}}, {"what": "zero_k"}, "which lack a part: ValueError"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named(results: StudyResults, change: Any, how: Any, why: str) -> None:
    with pytest.raises(OmnisinkError, match=why):
        StudyResults({**results, **change}).plot(**how)


def test_a_study_keeps_the_attention_before_any_channel_is_zeroed(tiny, items_file, tmp_path) -> None:
    from omnisink.methods.measure import record
    from omnisink.questions.items import read_items
    from omnisink.study.run import run_study

    items = read_items(items_file)[4:5]
    plan = Plan(questions=("values",), calibration=1)
    facts = {"model": {"name": "tiny"}, "versions": {}, "data": {}, "command": "", "quick": False}
    made = run_study(tiny, items, plan, tmp_path / "run", facts=facts)
    assert isinstance(made, StudyResults)
    assert made == StudyResults.load(tmp_path / "run")
    (before,) = {row["mass_before"] for row in made.rows("zero_k")}
    seen = record(tiny.model, tiny.tokenizer("Wa stone lies in the grass", return_tensors="pt"))
    layers = [i for i, layer in enumerate(seen.layers) if layer in (0, 1)]  # all but the last two have the sink
    assert before == pytest.approx(float(seen.mass_on("massive_activation")[0, layers].mean()), rel=1e-3)
