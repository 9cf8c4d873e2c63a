"""SinkRouter's threshold, read off the scores of a baseline: exact to a head, kept in a profile, and loaded again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from omnisink import OmnisinkError
from omnisink.cli.tune import tune
from omnisink.evaluation.running.asking import ask
from omnisink.evaluation.tuning.calibrate import Calibration, calibrate, sentences
from omnisink.evaluation.tuning.scoring import prepare
from omnisink.methods import SinkRouter
from omnisink.methods.router_scores import RouterScores, threshold_for
from tests.methods.reference_edits import run
from tests.reference_outro import prompt, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore::omnisink.methods.router_trace.SurrogateWarning")

app = typer.Typer()
app.command("tune")(tune)


@pytest.mark.parametrize("target", [0.0, 0.1, 0.31, 0.5])
def test_the_threshold_realises_the_share_to_one_head(target):
    scores = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).tanh()
    threshold, share = threshold_for(scores, target, 60)
    assert abs(share - target) <= 0.5 / 60 + 1e-9
    assert int((scores > threshold).sum()) == round(target * 60)


def test_more_than_may_be_routed_is_refused():
    with pytest.raises(OmnisinkError, match=r"a skip ratio of 0.9 cannot be reached: 0.583"):
        threshold_for(torch.zeros(35), 0.9, 60)


def test_scoring_changes_no_bit_and_gives_the_scores_of_the_method():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    plain = run(model, ids, (20, 31))
    with RouterScores(threshold=0.0)(model) as trace:
        assert torch.equal(run(model, ids, (20, 31)), plain)
        scores = trace.record.measured["scores"]
    with SinkRouter(0.9999)(model) as trace:
        run(model, ids, (20, 31))
    assert list(scores) == [2, 3, 4, 5]
    for layer, steps in scores.items():
        assert trace.scores[layer] == pytest.approx(float(torch.stack(steps).mean()), abs=1e-6)


def test_prompts_of_several_lengths_give_a_curve_that_leaves_out_the_target(tiny, asked):
    lengths = [
        replace(one, groups={"length": ("64" if i % 2 else "16",)}, text=one.text + " x" * (30 * (i % 2)))
        for i, one in enumerate(asked)
    ]
    found = calibrate(tiny, lengths, SinkRouter(), Calibration(0.25, steps=6))
    assert [point["prompts"] for point in found["points"]] == [6, 6]
    short, long = found["points"]
    assert short["length"] < long["length"]
    for point in found["points"]:
        heads = point["prompts"] * 5 * 16
        assert abs(point["scored"] - 0.25) <= 0.5 / heads + 1e-6
        assert abs(point["realised"] - 0.25) < 0.15
    assert found["settings"]["threshold"] == [
        [short["length"], short["threshold"]],
        [long["length"], long["threshold"]],
    ]
    assert len(sentences(found)) == 2


def test_prompts_without_lengths_give_one_threshold(tiny, asked):
    found = calibrate(tiny, asked[:4], SinkRouter(surrogate="value"), Calibration(0.25, steps=4))
    assert isinstance(found["settings"]["threshold"], float)
    assert found["settings"]["surrogate"] == "value"


@pytest.mark.parametrize(("settings", "what"), [({"target": 1.0}, "between 0 and 1"), ({"steps": 1}, "2 tokens")])
def test_what_cannot_be_calibrated_is_refused(settings, what):
    with pytest.raises(OmnisinkError, match=what):
        Calibration(**settings)


def test_the_share_left_out_reaches_the_reply_of_each_question(tiny, asked):
    batches, _ = prepare(tiny, asked[:3], {one.cluster: 0 for one in asked}, size=3)
    for batch in batches:
        replies = ask(tiny, batch.inputs, batch.instances, SinkRouter(-1.01), "generate")
        # The layers are four, of which two are routed; an answer of one token has no step.
        assert [one.skip_ratio for one in replies] == [0.5 if one.new_tokens > 1 else None for one in replies]
        assert all(one.skip_ratio is None for one in ask(tiny, batch.inputs, batch.instances, None, "generate"))


def test_the_command_writes_a_profile_that_the_method_loads(llama_folder: Path, tmp_path: Path):
    data = tmp_path / "items.jsonl"
    rows = [{"question": f"Which is it, {word}?", "answer": "A", "choices": ["red", "blue"]} for word in ("ab", "cde")]
    data.write_text("\n".join(map(json.dumps, rows)))
    base = ["--model", str(llama_folder), "--task", str(data), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*base, "--method", "outro", "--target-skip", "0.2"])
    assert "--target-skip calibrates SinkRouter" in str(refused.exception)
    refused = CliRunner().invoke(app, [*base, "--method", "sink-router"])
    assert "SinkRouter acts on generated tokens" in str(refused.exception)
    done = CliRunner().invoke(
        app, [*base, "--method", "sink-router:value", "--target-skip", "0.2"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "out").glob("*.sink-router.json")
    method = SinkRouter.from_profile(path)
    assert method.surrogate == "value"
    assert str(path) in done.output
    assert json.loads(path.read_text())["search"]["target"] == 0.2
