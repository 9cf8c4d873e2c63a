"""`omnisink eval` as it is typed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from omnisink.cli import options
from omnisink.cli.eval import evaluate
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running import run as running
from omnisink.results.records import read_records
from tests.evaluation.benchmark_folders import lay_out

app = typer.Typer()
app.command()(evaluate)


def run(*words: str):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("task") / "mine.jsonl"
    rows = [
        {"id": f"q{i}", "question": f"which of these is it {i}", "choices": ["red", "blue"], "answer": "AB"[i % 2]}
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_line_asks_everything_and_compares_and_a_second_asks_nothing(llama_folder, task, tmp_path):
    words = (
        "--model",
        llama_folder,
        "--task",
        task,
        "--methods",
        "baseline,outro:gamma=0.5",
        "--out",
        tmp_path / "run",
    )
    done = run(*words)
    assert done.exit_code == 0
    assert re.search(r"mine: (yes|no|cannot tell)\b", done.output)
    assert {p.name for p in (tmp_path / "run" / "comparison").iterdir()} >= {"comparison.md", "page.html"}
    before = read_records(tmp_path / "run")
    assert len(before) == 12
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["task"]["name"] == "mine"
    assert manifest["model"]["class"] == "LlamaForCausalLM"
    again = run(*words, "--no-page")
    assert again.exit_code == 0
    assert read_records(tmp_path / "run") == before


def test_without_a_baseline_the_first_method_is_what_others_are_compared_with(llama_folder, task, tmp_path):
    done = run(
        "--model",
        llama_folder,
        "--task",
        task,
        "--methods",
        "outro:relax,outro",
        "--out",
        tmp_path / "run",
        "--limit",
        "3",
        "--no-page",
    )
    assert done.exit_code == 0
    assert "outro:relax" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch-size", "0"), "--batch-size takes auto or a positive number"),
        (("--engine", "spark"), "--engine takes local or ray"),
        (("--score", "guess"), "scored by generate or likelihood"),
        (("--methods", "no-such"), "there is no method"),
        (("--task", "nothing"), "there is no task"),
        (("--task", "avhbench"), "--data"),
        (("--only", "AV Matching"), "--only takes KIND=GROUP"),
        (("--only", "a=b", "--only", "a=c"), "each kind once"),
    ],
)
def test_a_wrong_option_is_one_clear_error_before_a_model_is_loaded(llama_folder, tmp_path, words, message):
    folder = tmp_path / "without-weights"
    shutil.copytree(llama_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(OmnisinkError, match=message):
        run("--model", folder, "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_see_stops_with_the_reason(llama_folder, clip, tmp_path):
    rows = [
        {"id": str(i), "question": "what", "video": "clip.mp4", "choices": ["a", "b"], "answer": "A"} for i in range(9)
    ]
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(OmnisinkError, match="takes text only"):
        run(
            "--model",
            llama_folder,
            "--task",
            tmp_path / "seen.jsonl",
            "--methods",
            "baseline",
            "--out",
            tmp_path / "run",
        )


@pytest.mark.real
def test_avhbench_as_it_lies_on_a_disk(smolomni, clip, tmp_path, monkeypatch):
    """Real clips under its own names; a file that is missing is an error, never an answer, and only when allowed."""
    monkeypatch.setattr(options, "load", lambda *args, **settings: smolomni)  # Loading it takes seconds.
    data = lay_out("avhbench", tmp_path / "AVHBench", clip.read_bytes())
    videos = sorted(data.rglob("*.mp4"))
    words = ("--model", "smolomni", "--task", "avhbench", "--data", data, "--methods", "baseline,outro", "--no-page")
    done = run(*words, "--out", tmp_path / "one", "--only", "task=AV Matching")
    assert done.exit_code == 0
    found = read_records(tmp_path / "one")
    assert {tuple(record["groups"]["task"]) for record in found} == {("AV Matching",)}
    assert all(record["error"] is None and record["audio_tokens"] and record["video_tokens"] for record in found)
    videos[0].unlink()
    with pytest.raises(OmnisinkError, match="files are missing"):
        run(*words, "--out", tmp_path / "all")
    done = run(*words, "--out", tmp_path / "all", "--allow-missing")
    assert done.exit_code == 1  # As there are errors.
    failed = [record for record in read_records(tmp_path / "all") if record["error"] is not None]
    assert failed
    assert all(record["cluster"] == videos[0].stem and record["right"] is None for record in failed)
    assert len(failed) < len(read_records(tmp_path / "all"))


def test_a_question_that_fails_is_counted_named_and_not_scored(llama_folder, task, tmp_path, monkeypatch):
    whole_ask = running.ask

    def ask(loaded, inputs, instances, *rest):
        if any(instance.id == "q3" for instance in instances):
            raise RuntimeError("of the\nmachine \x1b[2J")
        return whole_ask(loaded, inputs, instances, *rest)

    monkeypatch.setattr(running, "ask", ask)
    words = ("--model", llama_folder, "--task", task, "--methods", "baseline,outro", "--out", tmp_path / "run")
    for line in ((*words, "--no-page"), (*words, "--no-compare")):
        done = run(*line)
        assert done.exit_code == 1
        assert "2 of 12 answers are errors, and not scored. " in done.stderr
        assert " on q3: RuntimeError: of the machine" in done.stderr
        assert "\x1b[2J" not in done.stderr
    found = read_records(tmp_path / "run")
    assert [(r["id"], r["right"], r["text"]) for r in found if r["error"] is not None] == [("q3", None, None)] * 2
    monkeypatch.setattr(running, "ask", whole_ask)
    assert run(*words, "--no-page", "--retry-errors").exit_code == 0
