"""What the list ``all`` stands for on a model and a task, what it leaves out and why, and the controls of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnisink import OmnisinkError, OutRo
from omnisink.evaluation.evaluate import evaluate
from omnisink.evaluation.running.line_up import line_up
from omnisink.evaluation.tasks.instance import Instance
from omnisink.methods import VCD, PlausibleTokens, SinkRouter
from omnisink.methods.registry import registered_methods
from tests.cli.command import run


@pytest.fixture(scope="module")
def every(tiny: Any, asked: list[Instance]) -> Any:
    return line_up("outro:gamma=0.3,all,outro+plausible-tokens", loaded=tiny, instances=asked)


def test_all_is_what_the_model_and_the_task_admit_as_it_is(every: Any) -> None:
    known = {one.name for one in registered_methods()}
    assert {*every.methods, *every.left_out} == known | {"baseline", "outro:gamma=0.3", "outro+plausible-tokens"}
    assert not every.methods.keys() & every.left_out.keys()
    assert next(iter(every.methods)) == "baseline"
    assert {"outro", "replace-sink-value", "plausible-tokens"} < every.methods.keys()
    assert every.methods["outro:gamma=0.3"] == OutRo(gamma=0.3)


def test_what_is_left_out_has_a_reason_and_all_of_it_one_line(every: Any) -> None:
    assert every.left_out["zero-heads"] == "heads must be given"
    assert every.left_out["act"] == "heads must be calibrated"
    assert every.left_out["sink-router"] == "threshold must be calibrated"
    assert every.left_out["vcd"] == "no question has image or video"
    assert every.left_out["icd"] == "no question has image or video or audio"
    said = every.sentence()
    assert "\n" not in said
    assert said.startswith(f"all leaves out {len(every.left_out)}: ")
    assert all(f"{name} (" in said for name in every.left_out)


def test_what_was_calibrated_is_taken(tiny: Any, asked: list[Instance]) -> None:
    made = line_up("all", [SinkRouter(0.7, surrogate="value")], loaded=tiny, instances=asked[:1])
    assert made.methods["sink-router"] == SinkRouter(0.7, surrogate="value")


def test_all_needs_a_model() -> None:
    with pytest.raises(OmnisinkError, match="there is no model here"):
        line_up("all")


def test_controls_can_be_left_out() -> None:
    assert list(line_up("vcd").methods) == ["baseline", "vcd", "plausible-tokens"]
    assert line_up("vcd,vcd:beta=0.3").methods["plausible-tokens:beta=0.3"] == PlausibleTokens(beta=0.3)
    assert line_up("vcd", controls=False).methods == {"vcd": VCD()}


def test_a_run_keeps_what_was_left_out_and_compares_the_rest(tiny: Any, tmp_path: Path) -> None:
    rows = [{"id": str(i), "question": f"W{i}?", "answer": ("yes", "no")[i % 2]} for i in range(2)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="all leaves out .*zero-heads"):
        made = evaluate(tiny, tmp_path / "mine.jsonl", "all,outro+zero-sink-key", tmp_path / "run")
    (task,) = made["tasks"]
    assert any(note.startswith("Not run, of all methods: ") and "zero-heads" in note for note in task["notes"])
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["methods"].keys() == {row["method"] for row in task["methods"]}
    assert [one["name"] for one in manifest["methods"]["outro+zero-sink-key"]["methods"]] == ["OutRo", "ZeroSinkKey"]
    assert made["tests"] == len(task["methods"]) - 1


def test_the_command_takes_it(llama_folder: Path, tmp_path: Path) -> None:
    task = tmp_path / "mine.jsonl"
    task.write_text('{"id": "1", "question": "W?", "answer": "yes"}')
    options = ("--model", str(llama_folder), "--task", str(task), "--no-compare", "--json")
    found = run("eval", *options, "--methods", "all", "--gamma", "0.3", "--out", str(tmp_path / "run"))
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("all leaves out") == 1
    assert {"baseline", "outro", "pai"} - set(json.loads(found.stdout)["methods"]) == {"pai"}
