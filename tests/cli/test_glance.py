"""A comparison on the terminal: the answer, a line a method, the groups that change, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

import omnisink.cli.models
import omnisink.cli.tasks
from omnisink.cli import columns
from omnisink.cli.app import app
from omnisink.cli.columns import columns_within
from omnisink.cli.glance import print_comparison
from omnisink.cli.next_steps import after_comparison
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.summary import answer, changes_anything, missed, summary_rows
from omnisink.evaluation.comparing.tables import markdown
from omnisink.evaluation.tasks.task import task_names
from omnisink.verification.families import FAMILIES
from omnisink.verification.ports import ROWS
from tests.evaluation.scored_runs import FEW, write_scores

LONG = "outro:gamma=0.25,tau=0.125,layers=all"
HALF = [i % 2 == 0 for i in range(40)]
BETTER, WORSE = [True] * 40, [False] * 40


def compared(folder: Path, arms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return compare([write_scores(folder / "run", {"baseline": HALF, **arms}, **more)], resamples=FEW)


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"outro": BETTER}, "SynthAV: yes, outro is better than baseline."),
        ({"outro": WORSE}, "SynthAV: no, outro is worse than baseline."),
        ({"outro": WORSE, "b": WORSE}, "SynthAV: no, all 2 methods are worse than baseline."),
        ({"outro": HALF}, "SynthAV: cannot tell whether outro is better than baseline."),
        ({"outro": HALF, "b": HALF}, "SynthAV: cannot tell whether any of 2 methods is better than baseline."),
        ({"a": BETTER, "b": BETTER}, "SynthAV: yes, a and b are better than baseline."),
        (
            {"a": BETTER, "b": WORSE, "c": HALF, "d": [None] * 40},
            "SynthAV: yes, a is better than baseline. Worse: b. No evidence of a difference: c. Not compared: d.",
        ),
        (
            {"b": WORSE, "c": HALF},
            "SynthAV: cannot tell whether any of 2 methods is better than baseline. Worse: b. No evidence of a"
            " difference: c.",
        ),
        ({}, "SynthAV: there is one method only, and nothing to compare it with."),
    ],
)
def test_the_answer_is_yes_no_or_cannot_tell(tmp_path: Path, arms: dict[str, Any], said: str) -> None:
    assert answer(compared(tmp_path, arms)["tasks"][0], "baseline") == said


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_every_method_has_one_line_that_fits(tmp_path: Path, width: int) -> None:
    arms = {"outro": BETTER, LONG: HALF, LONG.replace("all", "27"): WORSE, "方法" * 20: HALF}
    rows = summary_rows(compared(tmp_path, arms)["tasks"][0])
    lines = columns_within(rows, width, least=4)
    assert len(lines) == len(rows) == 6
    assert max(map(cell_len, lines)) <= width
    for line, verdict in zip(lines[1:], ("–", "better", "no evidence", "worse", "no evidence"), strict=True):
        assert f"  {verdict}" in line
    assert ("accuracy" in lines[0], "time" in lines[0]) == (width >= 80, width >= 80)
    # Names that are cut are cut in the middle, and still told apart.
    cut = lines[3].split("  ")[0]
    assert cut == LONG if width >= 100 else cut.startswith("outro:") and "…" in cut and cut.endswith("all")
    assert cut != lines[4].split("  ")[0]


def test_what_would_have_been_missed_stands_beside_the_change(tmp_path: Path) -> None:
    few = compare([write_scores(tmp_path / "few", {"baseline": [True] * 4, "outro": [True] * 4})], resamples=FEW)
    assert dict(zip(*summary_rows(few["tasks"][0])[::2], strict=True))["missed"] == "any"
    many = compared(tmp_path, {"outro": HALF})["tasks"][0]
    value = many["methods"][1]["paired"]["detectable"]["value"]
    assert dict(zip(*summary_rows(many)[::2], strict=True))["missed"] == f"< {100 * value:.1f}"
    assert "larger ones may be missed too" in missed(many)
    assert missed(compared(tmp_path / "alone", {})["tasks"][0]) == ""


def test_groups_that_change_nothing_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = [{"kind": [f"kind {i % 10}"]} for i in range(40)]
    # One win in group 1, and in group 2 a win and a loss, which are no difference but a change.
    arm = [True if i in (1, 12) else False if i == 22 else right for i, right in enumerate(HALF)]
    arm[2], arm[12] = False, HALF[12]
    arm[22] = HALF[22]
    results = compared(tmp_path, {"outro": arm}, groups=groups)
    moving = [row["group"] for row in results["tasks"][0]["breakdowns"] if changes_anything(row)]
    assert moving == ["kind 1", "kind 2"]
    print_comparison(results, "run")
    said = capsys.readouterr().out
    assert "kind: kind 1, outro" in said
    assert "kind: kind 5" not in said
    assert "no answer changes in 8 of 10 rows of groups; comparison.md has all" in said
    assert "kind 5" in markdown(results)


def test_a_win_and_a_loss_are_a_change() -> None:
    assert changes_anything({"difference": 0.0, "changed": 2})
    assert not changes_anything({"difference": 0.0, "changed": 0})
    assert changes_anything({"difference": 0.1})
    assert not changes_anything({"difference": 0.0})


@pytest.mark.parametrize(
    ("arm", "command", "next_"),
    [
        (
            HALF,
            "omnisink eval -m smolomni --task=synthav --limit 20 --out a --methods baseline,outro",
            [
                "eval -m smolomni --task=synthav --methods baseline,outro --limit 80 --out run-80",
                "tune -m smolomni --task=synthav",
            ],
        ),
        (HALF, "omnisink eval --data 'my clips' --download", ["tune --data 'my clips' --download"]),
        (HALF, "python evaluate.py --limit 3", ["tune"]),
        (HALF, "omnisink eval '--limit", ["tune"]),
        (BETTER, "omnisink eval --seed=0", ["eval --seed 1 --out run-seed-1"]),
        (WORSE, "omnisink eval --device cuda", ["tune --device cuda"]),
        (HALF, "omnisink eval --task '; rm -rf x'", ["tune --task '; rm -rf x'"]),
        (None, "omnisink eval --methods baseline", ["eval --methods baseline,outro --out run"]),
    ],
)
def test_the_next_command_repeats_the_options_of_the_run(
    tmp_path: Path, arm: list[bool] | None, command: str, next_: list[str]
) -> None:
    results = compared(tmp_path, {} if arm is None else {"outro": arm}, command=command)
    found = [said for _, said in after_comparison(results, "run")]
    assert found == [f"omnisink {line}" for line in next_]
    assert all(shlex.split(line) for line in found)


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("verb", ["models", "tasks"])
def test_lists_have_a_line_for_each_and_fit(verb: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=width, force_terminal=True, color_system=None, highlight=False)
    for module in (columns, omnisink.cli.models, omnisink.cli.tasks):
        monkeypatch.setattr(module, "stdout", lambda: console)
    names = [*FAMILIES, *ROWS] if verb == "models" else task_names()
    with console.capture() as caught:
        CliRunner().invoke(app, [verb], catch_exceptions=False)
    lines = [line.rstrip() for line in caught.get().splitlines()]
    assert max(map(cell_len, lines)) <= width
    for name in names:
        assert len([line for line in lines if line.split("  ")[0] == name]) == 1


def test_models_say_first_how_many_do_what(capsys: pytest.CaptureFixture[str]) -> None:
    omnisink.cli.models.models(names=["llama", "mamba", "qwen3_next", "qwen3_5"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "4 families: 1 supported, 2 partial, 1 refused"
    assert any(line.startswith("qwen3_next, qwen3_5: linear-attention layers") for line in lines)
    # In a pipe every column is there, whatever its width, and no line ends in spaces.
    assert "qwen3_next  partial    text   Qwen3-Next (gated and linear attention)" in lines
    assert all(line == line.rstrip() for line in lines)
