"""Long-context tasks as they are asked: lengths in the model's own tokens, and one command from a name to a page."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from omnisink import load_model
from omnisink.cli.eval import evaluate
from omnisink.cli.tune import tune
from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.answers import parse
from omnisink.evaluation.tasks.check import check_task
from omnisink.evaluation.tasks.long_context.generate import GENERATORS, PLACED
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.evaluation.tasks.scoring import score
from omnisink.evaluation.tasks.task import find_task, parse_task
from omnisink.models.loaded import Loaded
from omnisink.results.records import read_records

app = typer.Typer()
app.command("eval")(evaluate)
app.command("tune")(tune)


def typed(*words: Any):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tiny Llama, whose tokens are letters, a context of 4,096."""
    made: Path = tmp_path_factory.mktemp("long") / "long-llama"
    shutil.copytree(llama_folder, made)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Loaded:
    return load_model(str(folder))


@pytest.mark.parametrize("protocol", ["strict", "lettered"])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_prompt_with_its_answer_is_as_long_as_was_asked(name: str, protocol: str, model: Loaded) -> None:
    lengths = (2500, 3500)
    found = find_task(name).load(None, protocol, limit=10, settings={"lengths": lengths}, model=model)
    assert Counter(i.groups["length"] for i in found) == {(str(length),): 5 for length in lengths}
    assert len({i.id for i in found}) == 10
    assert {len(i.groups.get("depth", ())) for i in found} == {int(name in PLACED)}
    for instance in found:
        inputs = model.adapter.encode(model, [prompt_of(model, instance)])
        length, tokens = int(instance.groups["length"][0]), inputs.facts[0].prompt_tokens + instance.max_new_tokens
        assert length * 0.95 <= tokens <= length, instance.id
        assert score(parse(instance.gold, instance), instance) == 1
        assert score(parse("nothing of the kind", instance), instance) == 0
        assert instance.cluster == instance.id
        assert instance.can_be_compared == (protocol == "lettered"), "only letters can be tuned on"


def test_a_model_without_a_chat_template_is_asked_too(model: Loaded) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = None
    bare = replace(model, tokenizer=tokenizer)
    texts = []
    for asked in (model, bare):
        (found,) = find_task("needle").load(limit=1, settings={"lengths": [1500]}, model=asked)
        tokens = asked.adapter.count_tokens(asked, prompt_of(asked, found)) + found.max_new_tokens
        assert 1400 < tokens <= 1500
        texts.append(found)
    assert texts[0].gold == texts[1].gold, "the same code, in a text of another length"


def test_splits_have_other_questions_and_a_split_the_same(model: Loaded) -> None:
    def texts(**options: Any) -> list[str]:
        return [
            i.text for i in find_task("needle").load(limit=5, settings={"lengths": [1500]}, model=model, **options)
        ]

    assert texts() == texts(split="test")
    assert not set(texts()) & set(texts(split="tune"))


def test_a_group_is_made_in_full(model: Loaded) -> None:
    where = {"length": "1600", "depth": "75 %"}
    found = find_task("needle").load(limit=3, where=where, settings={"lengths": [1500, 1600]}, model=model)
    assert [i.id.rpartition("/")[2] for i in found] == ["0003", "0008", "0013"]
    assert all(instance.groups == {"length": ("1600",), "depth": ("75 %",)} for instance in found)
    with pytest.raises(OmnisinkError, match="no question is left with"):
        find_task("needle").load(limit=3, where={"depth": "10 %"}, settings={"lengths": [1500]}, model=model)


def test_there_are_a_hundred_of_each_length_and_progress_is_told(
    model: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnisink.evaluation.tasks.long_context.loader.EACH", 3)
    calls: list[tuple[int, int, str]] = []
    settings = {"lengths": [1000, 900, 1000]}
    found = find_task("needle").load(settings=settings, model=model, progress=lambda *call: calls.append(call))
    assert [i.groups["length"][0] for i in found] == ["900", "1000"] * 3
    assert calls[-1] == (6, 6, "questions made")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ("4097", "a length of 4,097 tokens, more than the context of .*long-llama, which is 4,096: take shorter"),
        ("600,100000", "a length of 100,000 tokens, more than the context"),
        ("50", "needle with room for its answer has .* tokens at least, which is more than a length of 50"),
        ("0", "must be whole numbers of tokens from 1"),
        ("99999999999", "must be whole numbers of tokens from 1 to 16,777,216"),
        ("", "--lengths takes whole numbers"),
        ("1k", "--lengths takes whole numbers"),
        ("-5", "--lengths takes whole numbers"),
        ("1024,", "--lengths takes whole numbers"),
        ("9" * 5000, "--lengths takes whole numbers"),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_anything_runs(
    lengths: str, message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(OmnisinkError, match=message) as error:
        typed("eval", "--model", folder, "--task", "needle", f"--lengths={lengths}", "--out", tmp_path / "run")
    assert len(str(error.value)) < 400
    assert not (tmp_path / "run").exists()


def test_a_longer_length_is_run_where_that_is_allowed(folder: Path, tmp_path: Path) -> None:
    words = ("eval", "--model", folder, "--task", "needle", "--lengths", "4200", "--limit", 1, "--no-compare")
    done = typed(*words, "--methods", "baseline", "--out", tmp_path / "run", "--allow-long-prompt")
    assert done.exit_code == 0
    assert "more than the context" in " ".join(done.output.split())
    assert read_records(tmp_path / "run")[0]["prompt_tokens"] > 4096


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "needle", "--data", "."), "needle has no folder: its questions are made"),
        (("--task", "synthav", "--lengths", "1024"), "synthav has no lengths to choose"),
        (("--task", "needle", "--split", "train"), "needle has no split 'train'"),
        (("--task", "needle", "--protocol", "official"), "needle has no protocol 'official'"),
    ],
)
def test_what_a_task_does_not_have_is_refused(
    words: tuple[str, ...], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(OmnisinkError, match=message):
        typed("eval", "--model", folder, "--out", tmp_path / "run", *words)


def test_one_line_asks_and_compares_by_length_and_depth(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("eval", "--model", folder, "--task", "needle-multi", "--lengths", "800,1600", "--limit", 10)
    words = (*words, "--methods", "baseline,outro:gamma=0.5", "--out", run)
    assert typed(*words).exit_code == 0
    records = read_records(run)
    assert len(records) == 20
    assert all(record["error"] is None and record["right"] in (True, False) for record in records)
    assert {tuple(record["groups"]["depth"]) for record in records} == {
        ("0 %",), ("25 %",), ("50 %",), ("75 %",), ("100 %",)
    }  # fmt: skip
    assert json.loads((run / "manifest.json").read_text())["task"]["settings"] == {"lengths": [800, 1600]}
    made = json.loads((run / "comparison" / "comparison.json").read_text())["tasks"][0]
    assert [row["at"] for row in made["curves"] if row["kind"] == "length"] == [800, 800, 1600, 1600]
    assert [row["at"] for row in made["curves"] if row["kind"] == "depth"][::2] == [0, 25, 50, 75, 100]
    assert {"curve-1-1.png", "curve-1-2.png"} <= {path.name for path in (run / "comparison" / "charts").iterdir()}
    assert typed(*words, "--no-page").exit_code == 0
    assert read_records(run) == records, "what was asked is not asked again"
    with pytest.raises(OmnisinkError, match="task"):
        typed(*words[:6], "900,1600", *words[7:])


def test_settings_can_be_tuned_on_letters(folder: Path, tmp_path: Path) -> None:
    words = ("tune", "--model", folder, "--task", "key-value", "--lengths", "700", "--limit", 6, "--out", tmp_path)
    done = typed(*words, "--protocol", "lettered", "--trials", 2, "--folds", 0)
    assert done.exit_code == 0
    assert json.loads((tmp_path / "manifest.json").read_text())["task"]["split"] == "tune"
    with pytest.raises(OmnisinkError, match="tuning compares the likelihoods"):
        typed(*words[:-1], tmp_path / "other")


def test_errors_are_no_answers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnisink.evaluation.running import run as running

    asked = running.ask

    def ask(loaded: Any, inputs: Any, instances: Any, *rest: Any) -> Any:
        if any(instance.id.endswith("0001") for instance in instances):
            raise RuntimeError("it broke")
        return asked(loaded, inputs, instances, *rest)

    monkeypatch.setattr(running, "ask", ask)
    words = ("eval", "--model", folder, "--task", "needle", "--lengths", "700", "--limit", 3, "--methods", "baseline")
    assert typed(*words, "--out", tmp_path / "run", "--no-page").exit_code == 1
    right = {record["id"]: record["right"] for record in read_records(tmp_path / "run")}
    assert right["needle/test/700/0001"] is None
    assert None not in (right["needle/test/700/0000"], right["needle/test/700/0002"])


def test_without_a_model_there_are_no_questions() -> None:
    with pytest.raises(OmnisinkError, match="give the model that is going to be asked"):
        find_task("needle").load()


def test_there_is_no_folder_to_check(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(OmnisinkError, match="has no folder"):
            check_task(find_task("common-words"), data)


def test_a_file_of_a_task_names_a_generator() -> None:
    from importlib.resources import files

    text = files("omnisink.evaluation.tasks").joinpath("benchmarks", "needle.yaml").read_text()
    with pytest.raises(OmnisinkError, match="unknown generator 'haystack': use one of needle"):
        parse_task("needle", text.replace("generator: needle", "generator: haystack"))
    with pytest.raises(OmnisinkError, match="kind must be one of choice"):
        parse_task("needle", text.replace("kind: choice", "kind: letters"))
    with pytest.raises(OmnisinkError, match="has no field 'length'"):
        parse_task("needle", text.replace("  lengths:", "  length:"))
