"""The models and tasks that lmms-eval finds, run by lmms-eval itself and held against our own runner."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.export import export_lmms, export_parquet
from omnisink.evaluation.running.parts import read_parts
from omnisink.evaluation.running.run import Settings, run
from omnisink.evaluation.tasks.task import find_task
from omnisink.integrations.lmms import tasks_folder
from omnisink.integrations.lmms.questions import load as load_questions
from omnisink.integrations.lmms.questions import variable
from omnisink.methods.registry import parse_methods
from omnisink.methods.shipped import default_outro
from tests.evaluation.benchmark_folders import lay_out
from tests.skips import needs

pytestmark = [needs("lmms-eval"), needs("espeak-ng"), pytest.mark.real, pytest.mark.slow]

#: The last is far too strong, so that its answers show that it was there.
METHODS = ("baseline", "outro", "outro:gamma=300")
COUNT = 12
#: Our names in lmms-eval, with the task, the protocol and the group of the benchmark.
TASKS = {
    "avhbench_video_driven": ("avhbench", "outro", "Video-driven Audio Hallucination"),
    "avhbench_audio_driven": ("avhbench", "outro", "Audio-driven Video Hallucination"),
    "avhbench_matching": ("avhbench", "outro", "AV Matching"),
    "avhbench_strict": ("avhbench", "strict", None),
    "daily_omni": ("daily-omni", "outro", None),
    "daily_omni_official": ("daily-omni", "official", None),
    "daily_omni_lettered": ("daily-omni", "lettered", None),
}


@pytest.fixture(scope="module", autouse=True)
def settings(tmp_path_factory: pytest.TempPathFactory):
    """Keep lmms-eval's caches out of the home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, settings: None) -> Path:
    """Render SynthAV, and say so to the task."""
    from omnisink.synthav.dataset import write_split

    folder = tmp_path_factory.mktemp("clips")
    list(write_split(folder, "test", COUNT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable("synthav"), str(folder))
        yield folder


@pytest.fixture(scope="module")
def ours(clips: Path, smolomni: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the same questions with our own runner."""
    folder = tmp_path_factory.mktemp("ours") / "run"
    methods = parse_methods(",".join(METHODS), default_outro("smolomni"))
    task = find_task("synthav")
    asked = task.load(clips, "strict", limit=COUNT)
    facts = {"task": task.facts("strict"), "model": {"name": "smolomni"}}
    run(smolomni, asked, Settings(methods, batch_size=4), folder, facts=facts)
    return folder


@cache
def task_manager() -> Any:
    """Make the list of all tasks once: lmms-eval reads a thousand files for it."""
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(tasks_folder()), model_name="omnisink")


def evaluate(tasks: str, count: int = COUNT, **model_args: Any) -> dict[str, Any]:
    from lmms_eval.evaluator import simple_evaluate

    return simple_evaluate(
        model="omnisink",
        model_args=",".join(f"{name}={value}" for name, value in {"pretrained": "smolomni", **model_args}.items()),
        tasks=[tasks],
        task_manager=task_manager(),
        batch_size=4,
        limit=count,
        bootstrap_iters=0,
        log_samples=True,
    )


@pytest.fixture(scope="module")
def theirs(clips: Path) -> dict[str, dict[str, Any]]:
    """Run them with lmms-eval."""
    return {method: evaluate("synthav", method=method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_the_answers_are_those_of_our_runner(method: str, ours: Path, theirs: dict[str, dict[str, Any]]) -> None:
    records = {r["id"]: r for r in read_parts(ours) if r["method"] == method}
    samples = theirs[method]["samples"]["synthav"]
    assert len(samples) == len(records) == COUNT
    for sample in samples:
        record = records[sample["doc"]["id"]]
        assert record["error"] is None
        assert sample["filtered_resps"] == [record["text"]]
        assert sample["synthav_score"]["pred"] == record["parsed"]
        assert sample["synthav_score"]["score"] == float(record["right"])
        # As many tokens, of which the sound's are a good part: it reached the model.
        counts = {"input_tokens": record["prompt_tokens"], "output_tokens": record["new_tokens"]}
        assert sample["token_counts"] == [counts]
        assert record["audio_tokens"] > 0
    accuracy = sum(float(r["right"]) for r in records.values()) / COUNT
    assert theirs[method]["results"]["synthav"]["synthav_score,none"] == pytest.approx(accuracy)


def test_the_method_is_there(theirs: dict[str, dict[str, Any]]) -> None:
    said = {m: [sample["filtered_resps"] for sample in theirs[m]["samples"]["synthav"]] for m in METHODS}
    assert said["outro:gamma=300"] != said["baseline"]


def test_the_sound_can_be_left_out(clips: Path, theirs: dict[str, dict[str, Any]]) -> None:
    silent = evaluate("synthav", 2, audio="never", frames=4)["samples"]["synthav"]
    assert len(silent) == 2
    for without, sample in zip(silent, theirs["baseline"]["samples"]["synthav"], strict=False):
        assert without["token_counts"][0]["input_tokens"] < sample["token_counts"][0]["input_tokens"]


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_those_of_our_tasks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.tasks import get_task_dict

    task, protocol, group = TASKS[name]
    monkeypatch.setenv(variable(task), str(lay_out(task, tmp_path)))
    found = get_task_dict([name], task_manager(), "chat")[name]
    docs = list(found.test_docs())
    asked = find_task(task).load(tmp_path, protocol, where={"task": group} if group else None)
    assert [doc["id"] for doc in docs] == [instance.id for instance in asked]
    snapshot = (Path(__file__).parents[2] / "evaluation" / "snapshots" / f"{task}.{protocol}.txt").read_text("utf-8")
    seen = 0
    for doc, instance in zip(docs, asked, strict=True):
        messages = found.doc_to_messages(doc)
        content = next(m["content"] for m in messages if m["role"] == "user")
        said = next(part["text"] for part in content if part["type"] == "text")
        assert said == instance.text
        assert {"type": "video", "url": str(instance.video)} in content
        system = [m["content"][0]["text"] for m in messages if m["role"] == "system"]
        assert system == ([instance.system] if instance.system else [])
        assert found.doc_to_target(doc) == instance.gold
        drawn = "".join(f"|{line}|\n" for line in said.split("\n"))
        if f"=== {instance.id}\n" in snapshot:
            assert drawn in snapshot.split(f"=== {instance.id}\n")[1].split("\n=== ")[0] + "\n"
            seen += 1
    assert seen
    assert found.config.generation_kwargs["max_new_tokens"] == find_task(task).protocol(protocol).max_new_tokens


def test_an_error_is_raised_and_names_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: Path
) -> None:
    folder = lay_out("daily-omni", tmp_path, b"no video")
    monkeypatch.setenv(variable("daily-omni"), str(folder))
    with pytest.raises(OmnisinkError, match="daily_omni, question 0"):
        evaluate("daily_omni")
    monkeypatch.delenv(variable("daily-omni"))
    with pytest.raises(OmnisinkError, match="set OMNISINK_DATA_DAILY_OMNI"):
        load_questions("daily-omni")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"method": "baseline,outro"}, "one method at a time"),
        ({"audio": "loud"}, "always, if-there, never"),
        ({"nothing": 1}, "no setting 'nothing'"),
        ({"batch_size": "auto"}, "positive number"),
        ({"trust_remote_code": "False"}, "must be True or False"),
        ({"pretrained": "nowhere/nothing"}, "nowhere/nothing"),
    ],
)
def test_wrong_model_args_are_refused(wrong: dict[str, Any], why: str) -> None:
    from lmms_eval.models import get_model

    with pytest.raises(OmnisinkError, match=why):
        get_model("omnisink")(**wrong)


def test_likelihoods_fit_what_is_generated(clips: Path, theirs: dict[str, dict[str, Any]]) -> None:
    from lmms_eval.api.instance import Instance
    from lmms_eval.models import get_model

    from omnisink.integrations.lmms.questions import to_text, to_visual

    model = get_model("omnisink", force_simple=True)(pretrained="smolomni", batch_size=3)
    docs = load_questions("synthav", "strict")
    model.task_dict = {"synthav": {"test": docs}}
    said = [sample["filtered_resps"][0] for sample in theirs["baseline"]["samples"]["synthav"][:4]]

    def request(place: int, text: str) -> Instance:
        arguments = (to_text(docs[place]), text, to_visual, place, "synthav", "test")
        return Instance("loglikelihood", arguments, 0, {"task": "synthav", "doc_id": place, "repeats": 1})

    likely = model.loglikelihood([request(i, text) for i, text in enumerate(said)])
    assert all(greedy for _, greedy in likely)
    others = model.loglikelihood([request(i, "A wrong answer" if text != "A" else "B") for i, text in enumerate(said)])
    assert not any(greedy for _, greedy in others)
    assert all(math.exp(a) + math.exp(b) <= 1 + 1e-4 for (a, _), (b, _) in zip(likely, others, strict=True))
    with pytest.raises(OmnisinkError, match="several rounds"):
        model.generate_until_multi_round([])


@pytest.mark.parametrize(("method", "same"), [("baseline", True), ("outro:relax", False)])
def test_relaxed_sinks_do_not_see_the_continuation_that_is_scored(method: str, same: bool) -> None:
    import torch
    from lmms_eval.api.instance import Instance
    from lmms_eval.models import get_model

    from omnisink.integrations.lmms.questions import to_text, to_visual
    from omnisink.models.adapters.asking import attached
    from omnisink.models.last_rows import last_log_likelihoods

    model = get_model("omnisink", force_simple=True)(pretrained="smolomni", method=method)
    docs = load_questions("synthav", "strict")
    model.task_dict = {"synthav": {"test": docs}}
    of, text = {"task": "synthav", "doc_id": 0, "repeats": 1}, "It is a wrong answer"
    scored, _ = model.loglikelihood(
        [Instance("loglikelihood", (to_text(docs[0]), text, to_visual, 0, "synthav", "test"), 0, of)]
    )[0]
    prompt = model._simple(Instance("", (to_text(docs[0]), "", to_visual, 0, "synthav", "test"), 0, of), Path)[1]
    inputs = model.loaded.adapter.encode(model.loaded, [replace(prompt, reply=text)])
    tokens = torch.tensor(model.loaded.tokenizer.encode(text, add_special_tokens=False))
    with torch.inference_mode(), attached(model.method, model.loaded, inputs):
        rows = last_log_likelihoods(model.loaded, inputs, len(tokens) + 1)[0, :-1]
    in_one_pass = float(rows.gather(1, tokens[:, None]).sum())
    assert len(tokens) > 2
    assert (abs(scored - in_one_pass) < 1e-3) == same


def test_a_batch_that_does_not_fit_is_halved() -> None:
    import torch
    from lmms_eval.models import get_model

    from omnisink.integrations.lmms.model import _Asked
    from omnisink.integrations.lmms.settings import Generation
    from omnisink.questions.prompt import Prompt

    model, sizes = get_model("omnisink")(batch_size=4), []

    def work(batch: Any, inputs: Any) -> list[str]:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("too large")
        return [one.name for one in batch]

    asked = [_Asked(f"q{i}", Prompt("Hello"), Generation(1 + i % 2)) for i in range(5)]
    assert model._each(asked, work) == [f"q{i}" for i in range(5)]
    assert sizes == [3, 1, 1, 1, 1, 1]

    def never(batch: Any, inputs: Any) -> list[str]:
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(OmnisinkError, match="q0: OutOfMemoryError: too large"):
        model._each(asked[:1], never)


def test_what_we_export_lmms_eval_and_datasets_read(ours: Path, clips: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from lmms_eval.baselines.loader import _load_baseline_from_local

    asked = find_task("synthav").load(clips, "strict")
    written = [p for p in export_lmms(ours, tmp_path / "lmms", asked) if p.suffix == ".jsonl"]
    records = {(r["method"], r["id"]): r for r in read_parts(ours)}
    for method, path in zip(METHODS, written, strict=True):
        scores, results = _load_baseline_from_local(str(path), "synthav")
        assert scores == {i: float(records[method, one.id]["right"]) for i, one in enumerate(asked)}
        assert results["results"]["synthav"]["synthav_score,none"] == pytest.approx(sum(scores.values()) / COUNT)
    export_parquet(ours, tmp_path / "hub")
    for method in METHODS:
        table = load_dataset(
            str(tmp_path / "hub"), re.sub(r"\W", "_", method), cache_dir=str(tmp_path / "cache"), split="test"
        )
        assert {row["id"]: row["text"] for row in table} == {
            name: record["text"] for (of, name), record in records.items() if of == method
        }


def test_what_lmms_eval_writes_has_our_fields(ours: Path, theirs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    from lmms_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(tmp_path / "theirs"))
    tracker.general_config_tracker.model_name_sanitized = "smolomni"
    tracker.date_id = "20260101_000000"
    tracker.save_results_samples("synthav", [dict(s) for s in theirs["outro"]["samples"]["synthav"]])
    (file,) = (tmp_path / "theirs").rglob("*_samples_synthav.jsonl")
    one = json.loads(file.read_text("utf-8").splitlines()[0])
    mine = export_lmms(ours, tmp_path / "ours")[0]
    other = json.loads(mine.read_text("utf-8").splitlines()[0])
    groups = {"existence", "audio", "visual", "temporal", "cross_modal"}
    assert one.keys() - groups <= other.keys()
    assert type(one["filtered_resps"]) is type(other["filtered_resps"])
    assert one["synthav_score"].keys() == other["synthav_score"].keys()
