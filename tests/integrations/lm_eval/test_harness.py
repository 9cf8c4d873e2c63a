"""The model that lm-evaluation-harness runs, on tasks that lie in a folder, held against the model called directly."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from omnisink import OutRo, load_model
from omnisink.errors import OmnisinkError
from omnisink.methods.registry import parse_one_method
from tests.skips import needs

pytestmark = needs("lm-eval")

#: Questions of different lengths, so that batches are padded. The letter W is a sink of the tiny model.
DOCS = [
    {"text": "W Why is the sea salty?", "choices": [" rivers", " fish", " wind"], "answer": 0},
    {
        "text": "W A longer question about the colour of the sky, is it blue?",
        "choices": [" y", " n", " x"],
        "answer": 1,
    },
    {"text": "W Hm?", "choices": [" ab", " abc", " b"], "answer": 2},
    {"text": "Nothing here is a sink:", "choices": [" a", " bc", " def"], "answer": 0},
]
TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}]
""",
    "cloze": """
output_type: loglikelihood
doc_to_target: "{{choices[1]}}"
metric_list: [{metric: acc}]
""",
    "speak": """
output_type: generate_until
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["Q"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
    "texts": """
output_type: loglikelihood_rolling
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Lay out a folder of tasks with their questions, and let the harness read it."""
    from lm_eval.tasks import TaskManager

    from omnisink.integrations.lm_eval import register

    register()
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS), encoding="utf-8")
    for name, text in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'docs.jsonl'}}}}}\n"
        asked = "" if name == "texts" else 'doc_to_text: "{{text}}"\n'
        ours = f'test_split: test\n{asked}target_delimiter: ""\n'
        if name == "texts":
            ours += 'doc_to_text: ""\n'
        (folder / f"{name}.yaml").write_text(head + ours + text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(
    tasks: Any,
    model: str = "omnisink",
    names: Any = tuple(TASKS),
    batch_size: int = 3,
    use_cache: Any = None,
    **args: Any,
) -> Any:
    """Run the harness; return its samples by task, in the order of the questions."""
    from lm_eval import simple_evaluate

    found = simple_evaluate(
        model=model,
        model_args={"device": "cpu", **args},
        tasks=list(names),
        task_manager=tasks,
        batch_size=batch_size,
        use_cache=use_cache,
        bootstrap_iters=0,
        log_samples=True,
    )
    return {name: sorted(found["samples"][name], key=lambda one: one["doc_id"]) for name in names}, found


def answers(samples: Any) -> list[Any]:
    return [one["filtered_resps"] for one in samples]


def numbers(samples: Any) -> list[float]:
    """Return every log-likelihood of a task in the order of its questions and choices."""
    found = []
    for resp in answers(samples):
        found += [float(one[0]) for one in resp] if isinstance(resp[0], list | tuple) else [float(resp[0])]
    return found


def directly(loaded: Any, method: Any, text: str, continuation: str) -> float:
    """Score a continuation by calling the model: the prompt once, and a token at a time on its cache."""
    before = loaded.tokenizer(text, return_tensors="pt").input_ids
    after = loaded.tokenizer(continuation, add_special_tokens=False).input_ids
    total = 0.0
    with torch.inference_mode(), nullcontext() if method is None else method(loaded):
        out = loaded.model(before, use_cache=True)
        for token in after:
            total += float(out.logits[0, -1].log_softmax(-1)[token])
            out = loaded.model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
    return total


def test_the_baseline_is_the_harness_s_own_model(tasks: Any, llama_folder: Path) -> None:
    ours, found = evaluate(tasks, pretrained=str(llama_folder))
    theirs, _ = evaluate(tasks, model="hf", pretrained=str(llama_folder))
    for name in ("choice", "cloze", "texts"):
        assert numbers(ours[name]) == pytest.approx(numbers(theirs[name]), abs=1e-4), name
    assert answers(ours["speak"]) == answers(theirs["speak"])
    assert found["config"]["omnisink_method"] is None


@pytest.mark.parametrize(
    "name", ["outro:gamma=3", "outro:no-decode:gamma=3", "sink-router:surrogate=value", "zero-heads:heads=[(1,0)]"]
)
def test_likelihoods_are_those_of_the_model_under_the_method(tasks: Any, llama_folder: Path, name: str) -> None:
    loaded = load_model(llama_folder)
    method = parse_one_method(name)
    wanted = [directly(loaded, method, doc["text"], choice) for doc in DOCS for choice in doc["choices"]]
    plain = [directly(loaded, None, doc["text"], choice) for doc in DOCS for choice in doc["choices"]]
    assert max(abs(a - b) for a, b in zip(wanted, plain, strict=True)) > 1e-3
    for batch_size in (1, 5):
        samples, found = evaluate(
            tasks, names=["choice", "cloze"], batch_size=batch_size, pretrained=str(llama_folder), method=name
        )
        assert numbers(samples["choice"]) == pytest.approx(wanted, abs=1e-4)
        assert numbers(samples["cloze"]) == pytest.approx(wanted[1::3], abs=1e-4)
        assert found["config"]["omnisink_method"]["name"] == type(method).__name__


def test_generation_is_that_of_the_model_under_the_method(tasks: Any, llama_folder: Path) -> None:
    loaded = load_model(llama_folder)
    wanted = []
    for doc in DOCS:
        inputs = loaded.tokenizer(doc["text"], return_tensors="pt")
        with parse_one_method("outro:gamma=9")(loaded):
            ids = loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        text = loaded.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        wanted.append([text.split("Q")[0]])
    found, _ = evaluate(tasks, names=["speak"], pretrained=str(llama_folder), method="outro:gamma=9")
    baseline, _ = evaluate(tasks, names=["speak"], pretrained=str(llama_folder))
    assert answers(found["speak"]) == wanted != answers(baseline["speak"])


def test_a_text_without_a_prompt_is_read_in_one_pass(tasks: Any, llama_folder: Path) -> None:
    loaded, method = load_model(llama_folder), parse_one_method("outro:gamma=3")
    wanted = []
    for doc in DOCS:
        ids = torch.tensor([[loaded.tokenizer.eos_token_id, *loaded.tokenizer(doc["text"]).input_ids]])
        with torch.inference_mode(), method(loaded):
            rows = loaded.model(ids[:, :-1]).logits[0].log_softmax(-1)
        wanted.append(float(rows.gather(1, ids[0, 1:, None]).sum()))
    found, _ = evaluate(tasks, names=["texts"], batch_size=4, pretrained=str(llama_folder), method="outro:gamma=3")
    assert numbers(found["texts"]) == pytest.approx(wanted, abs=1e-3)


def test_a_batch_that_does_not_fit_is_halved(tasks: Any, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnisink.integrations.lm_eval import model as module

    wanted, _ = evaluate(tasks, names=["choice"], pretrained=str(llama_folder))
    real, sizes = module.continuation_log_likelihoods, []

    def short(model: Any, inputs: Any, continuations: Any) -> Any:
        sizes.append(len(continuations))
        if len(continuations) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return real(model, inputs, continuations)

    monkeypatch.setattr(module, "continuation_log_likelihoods", short)
    found, _ = evaluate(tasks, names=["choice"], batch_size=8, pretrained=str(llama_folder))
    assert sizes[:3] == [8, 4, 2]
    assert numbers(found["choice"]) == pytest.approx(numbers(wanted["choice"]), abs=1e-4)


def test_a_cache_of_answers_belongs_to_one_method(tasks: Any, llama_folder: Path, tmp_path: Path) -> None:
    given = {"names": ["cloze"], "use_cache": str(tmp_path / "answers"), "pretrained": str(llama_folder)}
    first, _ = evaluate(tasks, **given, method="outro:gamma=3")
    again, _ = evaluate(tasks, **given, method="outro:gamma=3")
    assert numbers(again["cloze"]) == numbers(first["cloze"])
    with pytest.raises(OmnisinkError, match="answers of another model"):
        evaluate(tasks, **given, method="outro:gamma=1")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"method": "magic"}, "there is no method 'magic'"),
        ({"method": "baseline,outro"}, "one method at a time"),
        ({"method": "outro:gamma=much"}, "gamma"),
        ({"method": "vcd"}, "reads text only"),
        ({"gamma": 0.3}, "write method=outro:gamma="),
        ({"parallelize": True}, "no setting 'parallelize'"),
        ({"download": "maybe"}, "must be True or False"),
        ({"pretrained": "nowhere/nothing"}, "nowhere/nothing"),
        ({"pretrained": None}, "say which model"),
        ({"batch_size": "auto"}, "positive number"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(llama_folder: Path, wrong: dict[str, Any], why: str) -> None:
    from lm_eval.api.registry import get_model

    from omnisink.integrations.lm_eval import register

    register()
    with pytest.raises(OmnisinkError, match=why) as error:
        get_model("omnisink").create_from_arg_obj({"pretrained": str(llama_folder), **wrong}, {"device": "cpu"})
    assert "\n" not in str(error.value)


@pytest.mark.real
def test_the_command_runs_an_embedded_model(
    tasks: Any, smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnisink.integrations.lm_eval.__main__ import main

    folder = tasks.include_path
    line = [
        "lm_eval",
        "--model",
        "omnisink",
        "--model_args",
        "pretrained=smollm2-135m,dtype=float32,method=outro:gamma=0.3",
    ]
    line += [
        "--include_path",
        str(folder),
        "--tasks",
        "choice",
        "--device",
        "cpu",
        "--batch_size",
        "4",
        "--limit",
        "2",
    ]
    line += ["--log_samples", "--output_path", str(tmp_path)]
    monkeypatch.setattr("sys.argv", list(line))  # The harness changes it.
    assert main() == 0
    assert "choice" in capsys.readouterr().out
    (written,) = tmp_path.rglob("samples_choice_*.jsonl")
    samples = sorted(map(json.loads, written.read_text("utf-8").splitlines()), key=lambda one: one["doc_id"])
    method = OutRo(gamma=0.3)
    wanted = [directly(smollm2, method, doc["text"], choice) for doc in DOCS[:2] for choice in doc["choices"]]
    assert numbers(samples) == pytest.approx(wanted, abs=1e-3)
    (results,) = tmp_path.rglob("results_*.json")
    assert json.loads(results.read_text("utf-8"))["config"]["omnisink_method"]["gamma"] == 0.3

    monkeypatch.setattr("sys.argv", [*line[:4], "pretrained=smollm2-135m,method=magic", *line[5:]])
    assert main() == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: there is no method 'magic'")
