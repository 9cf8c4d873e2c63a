"""What can be known before a model is loaded is said before: here a model that is loaded is a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer import BadParameter

from omnisink.cli import app as program
from omnisink.cli import preflight
from omnisink.cli.demo import CLIP
from omnisink.errors import OmnisinkError
from omnisink.models import loading
from omnisink.models.headers import check_layers, depth_of
from tests.media.media_files import video

Typed = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Typed:
    """Type a line that must be refused before the model's loader is reached, and return the error."""

    def loaded(*args: Any, **named: Any) -> None:
        pytest.fail("the model was loaded before this was found")

    monkeypatch.setattr(loading, "load_model", loaded)
    monkeypatch.chdir(tmp_path)

    def typed(*words: Any) -> str:
        with pytest.raises(OmnisinkError) as caught:
            program.app([str(word) for word in words], standalone_mode=False)
        return str(caught.value)

    return typed


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    rows = [{"id": f"q{i}", "question": "Is it? " * (i + 1), "choices": ["a", "b"], "answer": "A"} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("no media", encoding="utf-8")
    return path


def test_files_are_looked_at_first(refused: Typed, text: Path) -> None:
    clip = CLIP
    for verb in ("ask", "find"):
        assert "there is no such file" in refused(verb, "absent.mp4", "What is it?")
        assert "not a media file" in refused(verb, text, "What is it?")
        assert "is a folder" in refused(verb, text.parent, "What is it?")
        assert "there is no such file" in refused(verb, clip, "What?", "--audio", "absent.wav")
        assert "exclude each other" in refused(verb, clip, "What?", "--audio", clip, "--no-audio")
    assert "two texts or more" in refused("ask", clip, "What?", "--choices", "one")
    assert "cannot read" in refused("find", "--text", "absent.txt")
    assert "the name of the file is empty" in refused("ask", "", "What?")


def test_a_video_without_sound_is_told_first_where_the_model_hears(refused: Typed, tmp_path: Path) -> None:
    video(tmp_path / "mute.mp4", 5)
    for verb in ("ask", "find"):
        assert "mute.mp4: has no sound, and smolomni hears: leave the sound out with --no-audio" in refused(
            verb, "mute.mp4", "What is it?"
        )
        assert "cannot see: the family takes no video" in refused(
            verb, "mute.mp4", "What is it?", "--model", "smollm2-135m"
        ) or "takes text only" in refused(verb, "mute.mp4", "What is it?", "--model", "smollm2-135m")


def test_layers_devices_and_types_are_looked_at_first(refused: Typed, text: Path) -> None:
    assert "--layers names [30], but the model has layers 0 to 29" in refused(
        "find", "--text", text, "--layers", "3,30"
    )
    for verb in (("ask", "What?"), ("find", "--text", text), ("eval", "--task", "absent.jsonl")):
        wanted = "unknown device" if verb[0] != "eval" else "absent.jsonl"
        assert wanted in refused(*verb, "--device", "toaster")
    assert "unknown dtype" in refused("ask", "What?", "--dtype", "float7")


@pytest.mark.parametrize("verb", ["eval", "tune", "study"])
def test_the_folder_is_looked_at_first(refused: Typed, items: Path, text: Path, verb: str) -> None:
    data = ("--data", items) if verb == "study" else ("--task", items)
    assert "is not a folder" in refused(verb, *data, "--out", text)
    assert "is not a folder" in refused(verb, *data, "--out", text / "inside")
    assert "zero byte" in refused(verb, *data, "--out", "a\0b")
    run = items.parent / "run"
    run.mkdir()
    (run / "manifest.json").write_text('{"format": "another"}', encoding="utf-8")
    assert "begun otherwise" in refused(verb, *data, "--out", run)
    (run / "manifest.json").write_text("[" * 100_000, encoding="utf-8")
    assert "it is not JSON" in refused(verb, *data, "--out", run)
    (run / "manifest.json").unlink()
    (run / "records.jsonl").write_text("", encoding="utf-8")
    assert "without its manifest.json" in refused(verb, *data, "--out", run)
    assert sorted(path.name for path in items.parent.iterdir()) == ["items.jsonl", "notes.txt", "run"]


@pytest.mark.parametrize("verb", ["eval", "tune", "study"])
def test_data_and_libraries_are_looked_at_first(
    refused: Typed, items: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = "--data" if verb == "study" else "--task"
    assert "absent.jsonl" in refused(verb, named, "absent.jsonl", "--out", "run")
    assert "unknown device" in refused(verb, named, items, "--out", "run", "--device", "toaster")
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    assert "statistics need scipy and statsmodels" in refused(verb, named, items, "--out", "run")


def test_questions_that_cannot_be_tuned_are_named_first(refused: Typed, items: Path) -> None:
    assert "folds need as many clusters" in refused("tune", "--task", items, "--out", "run", "--folds", "9")
    items.write_text('{"question": "What?", "answer": "free"}\n', encoding="utf-8")
    assert "tuning compares the likelihoods" in refused("tune", "--task", items, "--out", "run")


def test_layers_of_a_profile_are_looked_at_first(refused: Typed, items: Path, tmp_path: Path) -> None:
    settings = {
        "gamma": 1, "tau": 0.1, "rotate": True, "relax": True, "decode": True, "min_activation": 100,
        "median_ratio": 1000, "detect_layers": [77], "relax_layers": None, "max_relaxed": 256,
    }  # fmt: skip
    profile = {"format": "omnisink.profile.v1", "method": "OutRo", "settings": settings,
               "model": {"name": "m", "fingerprint": {}}}  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(profile), encoding="utf-8")
    said = refused("eval", "--task", items, "--out", "run", "--profile", tmp_path / "p.json")
    assert "names [77], but the model has layers 0 to 29" in said


@pytest.mark.parametrize(
    "nested", [lambda c: c, lambda c: {"text_config": c}, lambda c: {"thinker_config": {"text_config": c}}]
)
def test_the_depth_is_read_from_the_configuration(tmp_path: Path, nested: Callable[[Any], Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(nested({"num_hidden_layers": 12})), encoding="utf-8")
    assert depth_of(str(tmp_path)) == 12


@pytest.mark.parametrize("config", ["[", "[]", '{"num_hidden_layers": "x"}', '{"num_hidden_layers": true}', "{}"])
def test_a_depth_that_is_not_said_is_none(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    assert depth_of(str(tmp_path)) is None
    assert depth_of(str(tmp_path / "absent")) is None


def test_a_configuration_of_more_layers_than_the_weights_have_is_refused_at_once(
    llama_folder: Path, tmp_path: Path
) -> None:
    config = json.loads((llama_folder / "config.json").read_text(encoding="utf-8"))
    for file in llama_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    check_layers("tiny", tmp_path)
    for change in (
        {"num_hidden_layers": 10**9}, {"num_hidden_layers": 10**400}, {"vision_config": {"depth": 10**9}},
        {"a": {"b": {"encoder_layers": 10**9}}},
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
        with pytest.raises(OmnisinkError, match="its weights are of .* tensors in all"):
            loading.load_model(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(OmnisinkError, match="config.json: it is not JSON"):
        loading.load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for content in (b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0[[[[["):
        next(tmp_path.glob("*.safetensors")).write_bytes(content)
        with pytest.raises(OmnisinkError, match="could not be loaded|no header"):
            loading.load_model(tmp_path)


MISTYPED = [
    (["ask", "What?", "--model", "absent"], "neither a folder nor in the local Hub cache"),
    (["ask", "absent.mp4", "What?"], "there is no such file"),
    (["find", "--text", "items.jsonl", "--model", "absent"], "neither a folder nor"),
    (["study", "--data", "absent.jsonl"], "absent.jsonl: cannot be read"),
    (["study", "--data", "items.jsonl", "--model", "absent"], "neither a folder nor"),
    *(
        ([verb, *words], said)
        for verb in ("eval", "tune")
        for words, said in (
            (["--task", "absent.jsonl"], "absent.jsonl: there is no such file"),
            (["--task", "absent"], "there is no task 'absent'"),
            (["--task", "avhbench", "--data", "absent"], "absent: there is no such folder"),
            (["--task", "video-mme", "--data", "."], "the annotations of video-mme are not there"),
            (["--task", "video-mme"], "video-mme needs its data"),
            (["--task", "films.jsonl"], "films: 1 of its files are missing"),
            (["--task", "items.jsonl", "--model", "absent"], "neither a folder nor"),
            (["--split", "absent"], "has no split 'absent'"),
        )
    ),
    (["eval", "--profile", "absent.json"], "absent.json: cannot be read"),
]


def test_mistyped_files_are_told_before_pytorch_is_imported(items: Path) -> None:
    (items.parent / "films.jsonl").write_text(
        '{"question": "Is it?", "answer": "yes", "video": "absent.mp4"}', encoding="utf-8"
    )
    program = (
        "import json, sys\n"
        "from omnisink.cli import app\n"
        "from omnisink.errors import OmnisinkError\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        app.app(words, standalone_mode=False)\n"
        "    except OmnisinkError as error:\n"
        "        print(json.dumps([str(error), 'torch' in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([words for words, _ in MISTYPED])],
        cwd=items.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(MISTYPED)
    for (error, heavy), (words, expected) in zip(told, MISTYPED, strict=True):
        assert expected in error, words
        assert not heavy, words


def test_a_study_leaves_bad_rows_out_and_names_them_once(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [
        {"id": f"q{i}", "question": "W is it" + " now" * i, "choices": ["a", "b"], "answer": "A"} for i in range(3)
    ]
    bad = ['{"id": "no-answer", "question": "What?"}', "not JSON", json.dumps({**good[0], "video": "absent.mp4"})]
    (tmp_path / "a.wav").write_bytes(b"no sound")
    rows = [bad[0], *map(json.dumps, good[:2]), *bad[1:], json.dumps(good[2])]
    data = tmp_path / "items.jsonl"
    data.write_text("\n".join(rows), encoding="utf-8")
    words = ["study", "--model", llama_folder, "--data", data, "--questions", "identification"]
    words += ["--out", tmp_path / "out"]
    program.app([str(word) for word in words], standalone_mode=False)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("rows that cannot be asked are left out") == 1
    assert "3 rows that cannot be asked are left out; the first: items.jsonl:1: " in said
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["run"]["data"]["used"] == 3
    data.write_text("\n".join(bad), encoding="utf-8")
    with pytest.raises(OmnisinkError, match="there is no item in the file; rows that cannot be used: 3, the first in"):
        program.app([*map(str, words[:-1]), str(tmp_path / "none")], standalone_mode=False)


@pytest.mark.parametrize("verb", ["eval", "study"])
def test_long_prompts_that_are_allowed_are_one_note(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    rows = [
        {"id": f"q{i}", "question": "is it so " * (30 + i), "choices": ["a", "b"], "answer": "A"} for i in range(3)
    ]
    data = tmp_path / "long.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    named = ["--data" if verb == "study" else "--task", data, "--out", tmp_path / "out", "--model", llama_folder]
    rest = (
        ["--questions", "identification"]
        if verb == "study"
        else ["--methods", "baseline", "--batch-size", "1", "--no-compare"]
    )
    words = [str(word) for word in (verb, *named, *rest, "--allow-long-prompt")]
    program.app(words, standalone_mode=False)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("more than the context of") == 1
    assert "(2 more warnings of this kind)" in said


@pytest.mark.parametrize("verb", ["ask", "eval", "tune", "study", "compare"])
@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_seeds_that_no_generator_takes_are_refused(verb: str, seed: int) -> None:
    with pytest.raises(BadParameter, match="Input should be"):
        program.app([verb, f"--seed={seed}"], standalone_mode=False)
