"""Comparisons: known answers, what is left out and counted, verdicts, and how often they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from omnisink.errors import OmnisinkError
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.tables import tables_of
from omnisink.evaluation.comparing.wording import HIGHER, LOWER, NO_EVIDENCE, NOTHING
from omnisink.results.statistics import paired_difference
from tests.evaluation.scored_runs import FEW, correlated, failed, manifest, record, write, write_scores


def compared(*folders: Path, **settings: Any) -> dict[str, Any]:
    """Compare, and make sure that JSON can hold the result."""
    found = compare(folders, **{"resamples": FEW, **settings})
    json.dumps(found, allow_nan=False)
    return found


def row(results: dict[str, Any], method: str = "outro", task: int = 0) -> dict[str, Any]:
    return next(row for row in results["tasks"][task]["methods"] if row["method"] == method)


def test_a_comparison_by_hand(tmp_path: Path) -> None:
    base = [True] * 10 + [False] * 30
    arm = [True] * 9 + [False] + [True] * 12 + [False] * 18
    results = compared(write_scores(tmp_path / "run", {"baseline": base, "outro": arm}))
    assert row(results, "baseline")["accuracy"] == pytest.approx(0.25)
    assert row(results, "baseline")["paired"] is None
    found = row(results)
    assert found["accuracy"] == pytest.approx(21 / 40)
    assert found["low"] < 21 / 40 < found["high"]
    pair = found["paired"]
    assert pair["difference"] == pytest.approx(11 / 40)
    assert (pair["wins"], pair["losses"], pair["ties"]) == (12, 1, 27)
    # Where every question is its own cluster both tests ask the same: 2 (1 + 13) / 2**13.
    assert pair["mcnemar_p"] == pytest.approx(28 / 2**13)
    assert paired_difference(arm, base, [str(i) for i in range(40)]).p == pytest.approx(28 / 2**13)
    assert pair["p"] == pytest.approx(28 / 2**13, abs=0.01)
    assert pair["verdict"] == HIGHER
    (said,) = results["verdicts"]
    assert said.startswith("SynthAV, outro: accuracy is higher than with baseline (+27.5 points, 95% interval +")
    assert "With 40 questions in 40 clusters, a difference of less than" in said


def test_another_baseline_turns_the_sign(tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "run", {"baseline": [False] * 20, "outro": [True] * 20})
    assert row(compared(folder))["paired"]["verdict"] == HIGHER
    turned = compared(folder, baseline="outro")
    assert row(turned, "baseline")["paired"]["difference"] == -1
    assert row(turned, "baseline")["paired"]["verdict"] == LOWER
    with pytest.raises(OmnisinkError, match="no answers of 'rotate' to compare with; methods: baseline, outro"):
        compared(folder, baseline="rotate")


def test_errors_are_counted_and_never_scored_as_wrong(tmp_path: Path) -> None:
    base = [True] * 10 + [False] * 10
    arm = [None] * 5 + [True] * 15
    results = compared(write_scores(tmp_path / "run", {"baseline": base, "outro": arm}))
    found = row(results)
    assert (found["errors"], found["answered"], found["accuracy"]) == (5, 15, 1.0)
    assert found["errors_as_wrong"] == pytest.approx(0.75)
    pair = found["paired"]
    assert (pair["questions"], pair["left_out"], pair["losses"]) == (15, 5, 0)
    assert pair["base"] == pytest.approx(5 / 15)
    (said,) = results["tasks"][0]["notes"]
    assert said == (
        "outro: 5 errors, left out and not scored as wrong. Scored as wrong, they would make accuracy 75.0% instead"
        " of 100.0%."
    )
    assert "5 questions left out" in results["verdicts"][0]
    rows = results["tasks"][0]["questions_differing"]
    assert [r["outcome"] for r in rows] == ["error"] * 5 + ["win"] * 10
    assert rows[0]["text"] == "the video could not be read"
    # The baseline is scored on what it answered: an error of another method is none of its own.
    assert row(results, "baseline")["answered"] == 20


def test_nothing_but_errors_is_nothing_to_compare(tmp_path: Path) -> None:
    results = compared(write_scores(tmp_path / "run", {"baseline": [True] * 3, "outro": [None] * 3}))
    found = row(results)
    assert found["accuracy"] is None
    assert found["paired"]["verdict"] == NOTHING
    assert found["paired"]["p_holm"] is None
    assert results["tests"] == 0
    assert "nothing to compare" in results["verdicts"][0]


def test_unparsed_answers_are_wrong_and_counted(tmp_path: Path) -> None:
    rows = [record(f"{i}", "baseline") for i in range(8)]
    rows += [record(f"{i}", "outro", i > 2, **({"parsed": None} if i < 2 else {})) for i in range(8)]
    results = compared(write(tmp_path / "run", manifest(("baseline", "outro"), 8), rows))
    assert row(results)["unparsed"] == 2
    assert row(results)["accuracy"] == pytest.approx(5 / 8)
    assert results["tasks"][0]["notes"] == ["outro: 2 answers that could not be parsed, scored as wrong."]


def test_a_run_that_goes_on_is_compared_as_far_as_it_is(tmp_path: Path) -> None:
    rows = [record(f"{i}", "baseline", i % 2 == 0) for i in range(30)]
    rows += [record(f"{i}", "outro", attempt=1) for i in range(20)]
    rows += [failed("0", "outro")]
    results = compared(write(tmp_path / "run", manifest(("baseline", "outro"), 50), rows))
    task = results["tasks"][0]
    assert (task["questions"], task["reached"], task["missing"]) == (50, 20, 30)
    assert row(results, "baseline")["answered"] == 20, "the same questions for all"
    assert row(results)["retried"] == 20
    assert row(results)["errors"] == 0
    assert task["notes"] == ["30 questions of 50 missing, as not all methods have reached them yet: left out."]


def test_holm_is_over_tasks_and_methods(tmp_path: Path) -> None:
    base = [False] * 40
    gains = {"few": [True] * 7 + [False] * 33, "more": [True] * 10 + [False] * 30}
    first = write_scores(tmp_path / "a", {"baseline": base, **gains})
    second = write_scores(tmp_path / "b", {"baseline": base, "few": gains["few"]}, task={"name": "c", "title": "CMM"})
    results = compared(first, second, resamples=9999)
    # Only gains: all signs alike, two of 2**n choices.
    few, more = 2 / 2**7, 2 / 2**10
    assert row(results, "few")["paired"]["p"] == pytest.approx(few)
    assert row(results, "more")["paired"]["p"] == pytest.approx(more)
    # Holm: the smallest times three, the next times two, and none below the one before it.
    assert row(results, "more")["paired"]["p_holm"] == pytest.approx(3 * more)
    assert row(results, "few")["paired"]["p_holm"] == pytest.approx(2 * few)
    assert row(results, "few", task=1)["paired"]["p_holm"] == pytest.approx(2 * few)
    assert results["tests"] == 3
    assert [said.split(":")[0] for said in results["verdicts"]] == ["SynthAV, few", "SynthAV, more", "CMM, few"]
    alone = compared(second, resamples=9999)
    assert row(alone, "few")["paired"]["p_holm"] == pytest.approx(few)


def test_seeds_are_averaged_and_their_deviation_told(tmp_path: Path) -> None:
    columns = ([True, True, False, False], [True, False, False, False], [True, True, True, None])
    folders = [
        write_scores(tmp_path / f"{i}", {"baseline": [True, False, False, False], "outro": column}, seed=i)
        for i, column in enumerate(columns)
    ]
    results = compared(*folders)
    (task,) = results["tasks"]
    assert task["seeds"] == [0, 1, 2]
    found = row(results)
    # The question with an error in one seed is left out of all.
    assert found["by_seed"]["values"] == pytest.approx([2 / 3, 1 / 3, 1])
    assert found["by_seed"]["mean"] == pytest.approx(2 / 3)
    assert found["by_seed"]["deviation"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    pair = found["paired"]
    assert pair["by_seed"]["values"] == pytest.approx([1 / 3, 0, 2 / 3])
    assert pair["questions"] == 3, "more seeds are no more questions"
    assert pair["mcnemar_p"] is None, "a mean over seeds is neither right nor wrong"
    assert (pair["wins"], pair["losses"]) == (2, 0)
    assert row(results, "baseline")["by_seed"]["deviation"] == 0
    told = {r["id"]: (r["outcome"], r["seed"]) for r in task["questions_differing"]}
    assert told == {"q1": ("win", 0), "q2": ("win", 2), "q3": ("error", 2)}


def test_breakdowns_are_paired_and_without_tests(tmp_path: Path) -> None:
    groups = [{"kind": ["even" if i % 2 == 0 else "odd", "all"]} for i in range(20)]
    arm = [i % 2 == 0 for i in range(20)]
    results = compared(write_scores(tmp_path / "run", {"baseline": [False] * 20, "outro": arm}, groups=groups))
    found = {r["group"]: r for r in results["tasks"][0]["breakdowns"]}
    assert {name: (r["questions"], r["difference"]) for name, r in found.items()} == {
        "even": (10, 1.0),
        "all": (20, 0.5),
        "odd": (10, 0.0),
    }
    assert "p" not in found["all"]
    assert found["all"]["low"] < 0.5 < found["all"]["high"]


def test_groups_that_are_numbers_are_a_curve_of_every_method(tmp_path: Path) -> None:
    groups = [
        {"length": [f"{(512, 2048, 10240)[i % 3]}"], "depth": [f"{25 * (i % 2)} %"], "kind": ["short" if i else "7"]}
        for i in range(12)
    ]
    arms = {"baseline": [i % 3 == 0 for i in range(12)], "outro": [i % 3 < 2 for i in range(12)]}
    arms["outro"][5] = None
    made = compare([write_scores(tmp_path / "run", arms, groups=groups)], resamples=FEW)
    (task,) = made["tasks"]
    found = {(row["kind"], row["at"], row["method"]): (row["accuracy"], row["questions"]) for row in task["curves"]}
    assert found["length", 512.0, "baseline"] == (1.0, 4)
    assert found["length", 10240.0, "baseline"] == (0.0, 4)
    assert found["length", 10240.0, "outro"] == (0.0, 3), "an error is not an answer"
    assert found["depth", 25.0, "baseline"] == (pytest.approx(1 / 3), 6)
    assert {kind for kind, _, _ in found} == {"length", "depth"}, "a name that is no number has no place on an axis"
    assert [row["at"] for row in task["curves"] if row["kind"] == "length"] == [512, 512, 2048, 2048, 10240, 10240]
    assert [row["group"] for row in task["breakdowns"] if row["kind"] == "length"] == ["512", "2048", "10240"]
    table = next(table for table in tables_of(made) if table.name == "curves")
    assert table.rows[0][1:4] == ("length", "512", "baseline")


def test_methods_that_leave_heads_out_are_a_line_along_what_they_left_out(tmp_path: Path) -> None:
    low, high = "sink-router:threshold=0.6", "sink-router:threshold=0.5"
    right = {"baseline": [True] * 4, low: [True, True, True, False], high: [True, False, False, False]}
    each = {low: {"skip_ratio": 0.25}, high: {"skip_ratio": 0.5}}
    made = compare([write_scores(tmp_path / "run", right, each=each)], resamples=FEW)
    rows = made["tasks"][0]["curves"]
    assert [(one["kind"], one["series"], one["at"], one["accuracy"]) for one in rows] == [
        ("skip ratio", "baseline", 0.0, 1.0),
        ("skip ratio", "sink-router", 25.0, 0.75),
        ("skip ratio", "sink-router", 50.0, 0.25),
    ]
    plain = compare([write_scores(tmp_path / "plain", {"baseline": [True] * 4, "outro": [True] * 4})], resamples=FEW)
    assert plain["tasks"][0]["curves"] == []


def test_cost_is_that_of_the_same_questions(tmp_path: Path) -> None:
    each = {"outro": {"seconds": 1.0, "memory_mb": 900.0, "new_tokens": 5}}
    results = compared(
        write_scores(tmp_path / "run", {"baseline": [True] * 4, "outro": [True, None, True, True]}, each=each)
    )
    spent = row(results)["cost"]
    assert (spent["seconds"], spent["slower"], spent["memory_mb"], spent["new_tokens"]) == (1.0, 2.0, 900.0, 5.0)
    assert spent["video_tokens"] is None
    assert spent["timed"] == 3
    assert row(results, "baseline")["cost"]["slower"] is None


def test_what_makes_a_comparison_unfair_is_told(tmp_path: Path) -> None:
    each = {"outro": {"batch": 1, "prompt_sha256": "else"}}
    results = compared(write_scores(tmp_path / "run", {"baseline": [True] * 2, "outro": [True] * 2}, each=each))
    assert results["tasks"][0]["notes"] == [
        "outro: 2 prompts not the same as with baseline.",
        "Methods ran in batches of different sizes: their times cannot be compared.",
    ]


def test_a_mean_over_groups_is_said_to_be_another_number(tmp_path: Path) -> None:
    scores = {"baseline": [True] * 2, "outro": [True] * 2}
    (said,) = compared(write_scores(tmp_path / "run", scores, task={"metric": "group_mean"}))["tasks"][0]["notes"]
    assert said == "This benchmark reports a mean over groups; accuracy here is the mean over questions."


def test_equal_answers_are_no_proof_of_equality(tmp_path: Path) -> None:
    same = [i % 3 == 0 for i in range(100)]
    results = compared(write_scores(tmp_path / "run", {"baseline": same, "outro": same}))
    (said,) = results["verdicts"]
    assert said == (
        "SynthAV, outro: no evidence of a difference from baseline (accuracy 0.0 points, 95% interval −3.0 to +3.0,"
        " Holm p = 1.000). With 100 questions in 100 clusters, none better or worse, up to 3.0% of clusters may still"
        " be so, and a difference of less than 7.8 points is missed more often than one time in five."
    )


def test_one_clip_says_nothing(tmp_path: Path) -> None:
    results = compared(
        write_scores(tmp_path / "run", {"baseline": [False] * 20, "outro": [True] * 20}, clusters=[0] * 20)
    )
    pair = row(results)["paired"]
    assert pair["mcnemar_p"] < 1e-5, "it takes the questions for independent"
    assert pair["low"] is None
    assert pair["verdict"] == NO_EVIDENCE
    assert "no difference could have been detected" in results["verdicts"][0]


def test_the_seed_decides(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arm, base, place = correlated(random, 40)
    folder = write_scores(tmp_path / "run", {"baseline": base.tolist(), "outro": arm.tolist()}, list(place))
    assert compared(folder) == compared(folder)
    assert compared(folder)["tasks"] != compared(folder, seed=1)["tasks"]


@pytest.mark.slow
def test_without_a_difference_one_is_rarely_found_in_a_whole_comparison(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    runs, wrong = 30, 0
    for i in range(runs):
        arm, base, place = correlated(random, 40)
        # The second method takes back half of what the first does, so that the two are not one test.
        other = np.where(np.repeat(random.random(40) < 0.5, 3), arm, base)
        scores = {"baseline": base.tolist(), "outro": arm.tolist(), "half": other.tolist()}
        results = compared(write_scores(tmp_path / f"{i}", scores, list(place)), seed=i)
        wrong += any(row(results, method)["paired"]["verdict"] != NO_EVIDENCE for method in ("outro", "half"))
    assert wrong <= binom.ppf(0.999, runs, 0.05)


def test_intervals_cover_the_true_difference_with_clusters() -> None:
    random = np.random.default_rng(2)
    runs, gain = 400, 0.08
    covered = naive = 0
    for i in range(runs):
        arm, base, place = correlated(random, 60, gain)
        found = paired_difference(arm, base, list(map(str, place)), seed=i, resamples=FEW)
        covered += found.low <= gain <= found.high  # type: ignore[operator]
        pretended = paired_difference(arm, base, list(map(str, range(len(arm)))), seed=i, resamples=FEW)
        naive += pretended.low <= gain <= pretended.high  # type: ignore[operator]
    # A percentile bootstrap of 60 clusters is a little narrow: 93 to 95 %.
    assert binom.ppf(0.001, runs, 0.93) <= covered <= binom.ppf(0.999, runs, 0.96)
    assert naive < 0.9 * runs, "clusters matter"


def test_the_numbers_that_the_benchmark_reports_stand_beside_the_accuracy(tmp_path):
    """A mean over groups of unequal size is not the mean over questions; precision and the share of yes are shown."""
    rights = {"a1": True, "a2": True, "a3": True, "b1": False}
    facts = {"name": "t", "title": "T", "metric": "group_mean", "mean_over": "kind", "questions": 4}
    rows = [
        {
            "id": n,
            "method": m,
            "attempt": 0,
            "cluster": n,
            "groups": {"kind": [n[0]]},
            "right": r,
            "error": None,
            "parsed": "yes",
            "gold": "yes" if r else "no",
            "text": "yes",
        }
        for m in ("baseline", "outro")
        for n, r in rights.items()
    ]
    for metric in ("group_mean", "yes_no"):
        folder = tmp_path / metric
        folder.mkdir()
        manifest = {
            "format": "omnisink.eval.v1",
            "task": {**facts, "metric": metric},
            "methods": {"baseline": None, "outro": {}},
            "seed": 0,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = compare([tmp_path / "group_mean"])["tasks"][0]["methods"][0]
    assert row["accuracy"] == pytest.approx(0.75)
    assert row["reported"]["mean over kind"] == pytest.approx(0.5)
    row = compare([tmp_path / "yes_no"])["tasks"][0]["methods"][0]
    assert row["reported"] == pytest.approx(
        {"accuracy": 0.75, "precision": 0.75, "recall": 1.0, "f1": 6 / 7, "yes": 1.0}
    )
