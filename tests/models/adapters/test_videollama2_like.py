"""A model that transformers does not have, with the loader and adapter of docs/write-an-adapter.md in a package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

from omnisink import OmnisinkError, OutRo, find_sinks, load_model
from omnisink.cli.app import app
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.evaluation.tasks.task import find_task
from omnisink.models.adapters.qwen2_5_omni import Qwen25Omni
from omnisink.models.loaded import Loaded
from omnisink.questions.items import Item
from omnisink.results.records import read_records
from omnisink.study.calibration import calibrate
from omnisink.study.item_runner import item_runner
from omnisink.study.plan import Plan
from omnisink.study.run import run_study
from tests.evaluation.benchmark_folders import lay_out
from tests.models.adapters.page_examples import example, installed
from tests.models.tiny_parts import TEXT, save, tokenizer

QUESTION = "What is heard?"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Install the model's own package, and beside it the page's second example."""
    site = tmp_path_factory.mktemp("site")
    (site / "videollama2.py").write_text(Path(__file__).with_name("videollama2_like.py").read_text())
    with installed(1, "videollama2_adapter", site):
        import videollama2

        yield videollama2
    sys.modules.pop("videollama2", None)


@pytest.fixture(scope="module")
def folder(package: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny checkpoint: no processor, a chat template for text, a sink at the beginning of a text."""
    made = tokenizer({})
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = package.Videollama2ForCausalLM(
            package.Videollama2Config(**{**TEXT, "num_hidden_layers": 5, "vocab_size": len(made), "pad_token_id": 0})
        )
        path = save(tmp_path_factory.mktemp("videollama2"), model, made)
    with torch.no_grad():
        model.model.embed_tokens.weight[1, 3] = 400.0
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load_model(folder)


def run(*words: object) -> str:
    """Run a command and return what it prints."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def printed(*words: object) -> str:
    """Run a command and return what it prints on stdout."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def own_inputs(loaded: Loaded, question: str, clip: Path) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Make ids and clips as a user of the model's own code does."""
    from videollama2 import VIDEO

    text = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": f"<video>\n{question}"}], add_generation_prompt=True, tokenize=False
    )
    before, after = (loaded.tokenizer.encode(part, add_special_tokens=False) for part in text.split("<video>"))
    (media,) = loaded.adapter.read(loaded, loaded.inputs(question, video=clip).prompts)
    seen = {"video": torch.from_numpy(media.frames), "audio": torch.from_numpy(media.samples)}
    return torch.tensor([[*before, VIDEO, *after]]), [seen]


def test_the_file_is_short() -> None:
    assert len(example(1)[0].splitlines()) <= 45


@pytest.mark.parametrize("method", [None, OutRo(gamma=0.8)], ids=["baseline", "OutRo"])
def test_answers_are_those_of_its_own_generate(loaded: Loaded, clip: Path, method: OutRo | None) -> None:
    ids, clips = own_inputs(loaded, QUESTION, clip)
    answer = loaded.ask(QUESTION, video=clip, method=method, max_new_tokens=6)
    with (method or OutRo(rotate=False, relax=False))(loaded) as trace:
        own = loaded.model.generate(ids, images=clips, max_new_tokens=6, do_sample=False)
    assert answer.new_tokens == own.shape[1]
    assert answer.text == loaded.tokenizer.decode(own[0], skip_special_tokens=True).strip()
    if method is not None:
        assert trace.sinks.to_json() == answer.trace.sinks.to_json()
        assert trace.rotated_tokens[1] > 0
    assert answer.facts.video_tokens == 8 * 4
    assert answer.facts.audio_tokens > 0
    assert answer.facts.prompt_tokens == ids.shape[1] - 1 + answer.facts.video_tokens + answer.facts.audio_tokens


def test_logits_and_sinks_are_its_own_and_positions_count_embeddings(loaded: Loaded, clip: Path) -> None:
    ids, clips = own_inputs(loaded, QUESTION, clip)
    inputs = loaded.inputs(QUESTION, video=clip)
    with torch.inference_mode(), OutRo(gamma=0.8)(loaded):
        own = loaded.model(ids, images=clips).logits
        found = loaded.adapter.forward(loaded, inputs).logits
    torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-4)
    with torch.inference_mode():
        assert (loaded.model(ids, images=clips).logits - own).abs().max() > 1e-3
    last = int((ids[0] == 1).nonzero()[-1])  # of the ids, one of which is a whole video
    sinks = find_sinks(loaded, inputs)
    assert sinks.to_json() == find_sinks(loaded.model, input_ids=ids, images=clips).to_json()
    facts = inputs.facts[0]
    assert sinks.positions(1) == [0, last - 1 + facts.video_tokens + facts.audio_tokens]
    spans = loaded.spans(inputs)[0]
    assert [p for s in spans for p in range(s.start, s.stop)] == list(range(inputs["input_ids"].shape[1]))
    assert [s.modality for s in spans if s.modality != "video"] == ["text", "audio", "text"]
    assert sum(s.stop - s.start for s in spans if s.modality == "video") == facts.video_tokens
    assert next(s for s in spans if s.modality == "audio").ends == pytest.approx(facts.audio_seconds)


def test_a_batch_answers_as_its_questions_one_at_a_time(loaded: Loaded, clip: Path) -> None:
    questions = [QUESTION, "Is it a long question that is asked of the clip?"]
    batch = loaded.ask(questions, video=clip, method=OutRo(gamma=0.8), max_new_tokens=5)
    for question, answer in zip(questions, batch, strict=True):
        assert answer.text == loaded.ask(question, video=clip, method=OutRo(gamma=0.8), max_new_tokens=5).text
    text = loaded.ask("Why is the sea salty?", max_new_tokens=3)
    assert text.facts.video_tokens == text.facts.audio_tokens == 0
    with pytest.raises(OmnisinkError, match="the question holds <video>"):
        loaded.inputs("What is a <video>?", video=clip)


def test_the_commands_take_it(folder: Path, clip: Path, tmp_path: Path) -> None:
    found = json.loads(printed("find", clip, QUESTION, "--model", folder, "--json"))
    assert {count["modality"] for count in found["by_modality"]} >= {"text", "video", "audio"}
    said = json.loads(
        printed("ask", clip, QUESTION, "--model", folder, "--compare", "--json", "--max-new-tokens", "4")
    )
    assert said["media"]["video_tokens"] == 32
    assert said["positions"].startswith("embedded tokens")
    assert said["prompt_tokens"] > 32 + said["media"]["audio_tokens"]
    assert "positions count embedded tokens" in run("find", clip, QUESTION, "--model", folder)
    assert found["positions"] == said["positions"]


def test_it_is_evaluated_on_avhbench(folder: Path, clip: Path, tmp_path: Path) -> None:
    data = lay_out("avhbench", tmp_path / "data", clip.read_bytes())
    out = tmp_path / "run"
    run(
        *("eval", "--model", folder, "--task", "avhbench", "--data", data, "--out", out, "--no-page"),
        *("--methods", "baseline,outro:gamma=0.8"),
    )
    records = read_records(out)
    assert len(records) == 8
    assert not [record["error"] for record in records if record.get("error")]


def test_a_protocol_gives_it_no_other_familys_system_message(
    loaded: Loaded, clip: Path, tmp_path: Path, families: Callable[[str], Loaded]
) -> None:
    first = find_task("avhbench").load(lay_out("avhbench", tmp_path, clip.read_bytes()))[0]
    assert first.system == Qwen25Omni.default_system
    assert prompt_of(loaded, first).system is None
    assert prompt_of(loaded, replace(first, system="Be brief.")).system == "Be brief."
    assert prompt_of(families("qwen2_5_omni"), first).system == first.system


def test_an_item_of_a_study_is_run_and_recorded(loaded: Loaded, clip: Path) -> None:
    item = Item(id="one", question=QUESTION, answer="bell", video=clip)
    assert calibrate(loaded, [item]).items == 1
    with item_runner(loaded, item) as runner:
        changed = runner.run(OutRo(gamma=0.8))
    assert runner.length > runner.prompt_length  # The answer is embedded behind the prompt.
    assert changed.loss != runner.base.loss
    ids, clips = own_inputs(loaded, QUESTION, clip)
    tokens = torch.tensor([loaded.tokenizer.encode("bell", add_special_tokens=False)])
    with torch.inference_mode(), OutRo(gamma=0.8)(loaded):
        logits = loaded.model(torch.cat([ids, tokens[:, :-1]], dim=1), images=clips).logits[0, -tokens.shape[1] :]
    own = torch.nn.functional.cross_entropy(logits.float(), tokens[0])
    assert changed.loss == pytest.approx(float(own), abs=1e-4)


def test_a_study_runs_on_it(loaded: Loaded, clip: Path, tmp_path: Path) -> None:
    """The first question of a study on one item about a clip with sound; drawing its page would take the longest."""
    item = Item(id="one", question=QUESTION, choices=("bell", "drum"), answer="A", video=clip)
    plan = Plan(questions=("identification",), gammas=(0.8,), seeds=1)
    results = run_study(loaded, [item], plan, tmp_path / "study", facts={"model": {"name": "videollama2"}})
    assert results["run"]["failed"] == {}
    assert set(results["readings"]) == {"identification"}
