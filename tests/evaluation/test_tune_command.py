"""`omnisink tune` as it is typed, on a tiny model that really answers."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import pytest
import typer
from typer.testing import CliRunner

from omnisink import OutRo
from omnisink.cli import method_options
from omnisink.cli import tune as command
from omnisink.errors import OmnisinkError
from omnisink.evaluation.tuning import scoring
from omnisink.extras import install
from omnisink.methods.profile import read_profile

app = typer.Typer()
app.command()(command.tune)


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"id": f"q{i}", "question": "x" * (i + 1), "choices": ["red", "blue"], "answer": "AB"[i % 2]} for i in range(8)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def other_weights(model):
    made = copy.deepcopy(model)
    made.model.norm.weight.data += 1
    return made


def typed(*words):
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


def test_it_writes_a_profile_that_its_model_takes(tiny, llama_folder, items, tmp_path, capsys):
    words = ("--model", llama_folder, "--task", items, "--out", tmp_path / "run", "--trials", 3, "--folds", 2)
    said = typed(*words)
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    path = tmp_path / "run" / "tiny-llama.json"
    assert lines[0].startswith("OutRo: ")
    assert any("on questions that the search did not see" in line for line in lines)
    assert lines[-1] == str(path)
    assert "no split for that" in said.stderr
    profile = read_profile(path)
    assert profile.differences(tiny.model) == []
    assert profile.model["name"] == "tiny-llama"
    assert profile.gain["verdict"] in ("no evidence of a difference", "higher", "lower")
    assert str(tmp_path) not in path.read_text()  # Nothing of this machine.
    written = json.loads(path.read_text())
    assert written["task"]["questions"] == 8
    assert written["versions"]["optuna"]
    with OutRo.from_profile(path, tiny.model)(tiny.model):
        pass
    method = method_options.make_outro("x", None, profile=str(path), tau=0.1)
    method_options.check_profile(method, tiny)
    assert capsys.readouterr().err == ""
    method_options.check_profile(method, dataclasses.replace(tiny, model=other_weights(tiny.model)))
    assert "was tuned for tiny-llama, and this is another model: it has other weights" in " ".join(
        capsys.readouterr().err.split()
    )
    with pytest.raises(OmnisinkError, match="gamma of its own"):
        method_options.make_outro("x", 3.0, profile=str(path))
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert typed(*words, "--profile", tmp_path / "again.json").exit_code == 0
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before
    assert json.loads((tmp_path / "again.json").read_text())["settings"] == written["settings"]


def test_a_profile_that_cannot_be_written_is_refused_before_the_work(items, tmp_path):
    with pytest.raises(OmnisinkError, match="cannot write"):
        typed("--task", items, "--out", tmp_path, "--profile", tmp_path / "no" / "p.json")


def test_without_optuna_the_error_comes_before_the_work(items, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_OPTUNA", "no-such-distribution")
    with pytest.raises(OmnisinkError, match=re.escape(install("eval"))):
        typed("--task", items, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "name"), [("smolomni", "smolomni"), ("Qwen/Qwen2.5-Omni-7B", "Qwen-Qwen2.5-Omni-7B"), ("..", None)]
)
def test_a_file_is_named_after_its_model(model, name):
    made = command._file_name(model)
    assert made == name if name else made.strip("-.")
    assert "/" not in made


def test_questions_that_fail_are_left_out_named_and_counted(tiny, llama_folder, items, tmp_path, monkeypatch):
    whole_ask, whole_encode = scoring.ask, type(tiny.adapter).encode

    def ask(loaded, inputs, instances, *rest):
        if any(instance.id == "q3" for instance in instances):
            raise RuntimeError("q3 cannot be answered")
        return whole_ask(loaded, inputs, instances, *rest)

    def encode(self, loaded, prompts, media=None):
        if any(prompt.text.startswith("x" * 6 + "\n") for prompt in prompts):
            raise ValueError("q5 cannot be encoded")
        return whole_encode(self, loaded, prompts, media)

    monkeypatch.setattr(scoring, "ask", ask)
    monkeypatch.setattr(type(tiny.adapter), "encode", encode)
    words = ("--model", llama_folder, "--task", items, "--out", tmp_path / "run", "--trials", 2, "--folds", 2)
    said = typed(*words)
    assert said.exit_code == 1
    assert "left out: q3: RuntimeError: q3 cannot be answered" in said.stderr
    assert "left out: q5: ValueError: q5 cannot be encoded" in said.stderr
    assert "2 of 8 questions could not be asked, and count for nothing" in said.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["questions"] == 6
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert typed(*words).exit_code == 1
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before


def test_long_prompts_and_questions_without_a_wrong_answer_stop_nothing(tiny, llama_folder, items, tmp_path):
    rows = [*map(json.loads, items.read_text().splitlines())]
    rows[2]["question"] = "x" * 400
    rows.append({"id": "free", "question": "what is it", "answer": "a stone"})
    items.write_text("\n".join(map(json.dumps, rows)))
    said = typed("--model", llama_folder, "--task", items, "--out", tmp_path / "run", "--trials", 1, "--folds", 2)
    told = " ".join(said.stderr.split())
    assert said.exit_code == 1
    assert "1 of these have no two answers of which one is right, and cannot be tuned on: left out" in told
    assert "the first: free" in told
    assert "left out: q2: the prompt has" in told
    assert "1 of 8 questions could not be asked, and count for nothing" in told
    assert json.loads((tmp_path / "run" / "results.json").read_text())["questions"] == 7
