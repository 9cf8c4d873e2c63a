"""The share of yes among answers to yes/no questions: known numbers, and where it is shown."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.comparison import Comparison
from omnisink.evaluation.comparing.summary import HEADS, summary_rows
from omnisink.evaluation.comparing.tables import latex, markdown
from omnisink.report import write_comparison
from tests.evaluation.scored_runs import FEW, failed, manifest, record, write, write_scores


def answered(name: str, method: str, gold: str, said: str | None) -> dict[str, Any]:
    return record(name, method, said == gold, gold=gold, parsed=said, text=said, cluster=f"clip-{int(name) // 2}")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Forty yes/no questions of which ten are yes, and a letter; one method says yes to twenty more than are right."""
    rows = []
    for i in range(40):
        gold = "yes" if i % 4 == 0 else "no"
        rows.append(answered(f"{i}", "baseline", gold, gold))
        rows.append(answered(f"{i}", "pushed", gold, "yes" if i % 4 != 1 else "no"))
        rows.append(answered(f"{i}", "mute", gold, None) if i else failed("0", "mute", gold="yes", parsed=None))
    rows += [record("letter", method, cluster="letter") for method in ("baseline", "pushed", "mute")]
    folder = tmp_path_factory.mktemp("yes") / "run"
    return compare([write(folder, manifest(("baseline", "pushed", "mute"), 41), rows)], resamples=FEW)


def test_shares_are_those_of_the_answers(results: Comparison) -> None:
    baseline, pushed, mute = (row["yes"] for row in results["tasks"][0]["methods"])
    assert (baseline["questions"], baseline["share"], baseline["right"]) == (40, 0.25, 0.25)
    assert pushed["share"] == 0.75
    assert pushed["low"] < 0.75 < pushed["high"]
    assert (mute["questions"], mute["share"], mute["right"]) == (39, 0.0, 9 / 39)
    assert mute["low"] == 0 < mute["high"]
    assert "40 yes/no questions: 25.0% have the answer yes." in results["tasks"][0]["notes"]


def test_it_stands_beside_gain_and_cost_everywhere(results: Comparison, tmp_path: Path) -> None:
    text = markdown(results)
    assert "## How often the answer is yes" in text
    assert "| SynthAV | pushed | 75.0%" in text
    assert "75.0\\%" in latex(results)
    (head, *rows) = summary_rows(results["tasks"][0])
    assert head == HEADS
    assert dict(zip(head, rows[1], strict=True))["says yes"] == "75.0%"
    made = write_comparison(results, tmp_path)
    with (tmp_path / "charts/yes.csv").open(encoding="utf-8", newline="") as file:
        assert [float(row["share"]) for row in csv.DictReader(file)] == [0.25, 0.75, 0.0]
    assert "How often does every method say yes?" in made.read_text(encoding="utf-8")
    assert json.loads(json.dumps(results)) == results


def test_it_is_a_column_of_the_table(results: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = results.to_dataframe().set_index("method")
    assert frame.loc["pushed", "yes_share"] == 0.75
    assert frame.loc["pushed", "yes_low"] < 0.75 < frame.loc["pushed", "yes_high"]


def test_without_such_questions_nothing_is_said_of_them(tmp_path: Path) -> None:
    scores = {"baseline": [True, False] * 6, "outro": [True] * 12}
    results = compare([write_scores(tmp_path / "run", scores)], resamples=FEW)
    assert [row["yes"] for row in results["tasks"][0]["methods"]] == [None, None]
    assert "How often" not in markdown(results)
    assert "says yes" not in summary_rows(results["tasks"][0])[0]
    # A comparison that an earlier version wrote has no such field.
    for row in results["tasks"][0]["methods"]:
        del row["yes"]
    assert "accuracy" in markdown(results)
    assert summary_rows(results["tasks"][0])[1][0] == "baseline"
