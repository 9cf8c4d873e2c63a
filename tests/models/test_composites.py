"""Checkpoints with code of their own around a language model: asked, and under a method as the plain model is."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaModel
from typer.testing import CliRunner

from omnisink import OmnisinkError, OutRo, UnsupportedModelError, find_sinks, load_model
from omnisink.cli.app import app
from omnisink.models.loaded import Loaded
from omnisink.verification.outside import checkpoints
from omnisink.verification.tiny import plant_sink

#: The stand-ins, and where their language model is, and is found by its name.
KINDS = {"internvl_like": ("language_model", "language_model"), "minicpm_like": ("llm", "")}
IDS = torch.tensor([[1, 30, 40, 7, 50, 60, 70, 20]])


@pytest.fixture(params=KINDS)
def kind(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that saves a checkpoint, each once."""

    @cache
    def save(kind: str) -> Path:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Path(getattr(checkpoints, kind)(tmp_path_factory.mktemp(kind)))

    return save


@pytest.fixture(scope="module")
def models(folders: Any) -> Any:
    """Return a function that loads a checkpoint, each once, with token 7 as a sink."""

    @cache
    def load(kind: str) -> Loaded:
        loaded = load_model(folders(kind), trust_remote_code=True)
        plant_sink(getattr(loaded.model, KINDS[kind][0]))
        return loaded

    return load


def test_generate_and_logits_are_those_of_the_language_model(kind: str, models: Any) -> None:
    model, (name, path) = models(kind).model, KINDS[kind]
    inner = getattr(model, name)
    assert "transformers_modules" in type(model).__module__
    embeds = inner.get_input_embeddings()(IDS)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}
    options |= {"output_logits": True, "attention_mask": torch.ones_like(IDS)}
    with torch.inference_mode():
        before = model.generate(input_ids=IDS, **options)
        with OutRo(gamma=0.8)(model) as trace:
            made = model.generate(input_ids=IDS, **options)
            logits = model(input_ids=IDS).logits
        with OutRo(gamma=0.8)(inner) as own:
            expected = inner.generate(inputs_embeds=embeds, **options)
            expected_logits = inner(inputs_embeds=embeds).logits
        after = model.generate(input_ids=IDS, **options)
    assert trace.decoder == path
    assert torch.equal(logits, expected_logits)
    assert all(torch.equal(a, b) for a, b in zip(made.logits, expected.logits, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after.logits, before.logits, strict=True))
    assert not torch.equal(made.logits[0], before.logits[0])
    assert trace.sinks.positions(0) == own.sinks.positions(0) == [3]
    assert find_sinks(model, input_ids=IDS).to_json() == find_sinks(inner, input_ids=IDS).to_json()
    # What would be silently wrong is refused where the inner generate begins.
    with pytest.raises(UnsupportedModelError, match="assisted decoding"), OutRo()(model):
        model.generate(input_ids=IDS, prompt_lookup_num_tokens=2, attention_mask=torch.ones_like(IDS))


def test_a_batch_is_asked_as_its_questions_one_at_a_time(kind: str, models: Any) -> None:
    loaded = models(kind)
    questions = ["Why?", "What is heard in the middle of it?"]
    made = loaded.ask(questions, method=OutRo(), max_new_tokens=4)
    assert [a.text for a in made] == [loaded.ask(q, method=OutRo(), max_new_tokens=4).text for q in questions]
    assert "with the language model Qwen2ForCausalLM" in repr(loaded)
    # The output layer is that of the language model, so that numbers that are not finite are noticed.
    weights = getattr(loaded.model, KINDS[kind][0]).lm_head.weight
    kept = weights.data.clone()
    weights.data.fill_(float("nan"))
    try:
        with pytest.raises(OmnisinkError, match="the logits are not finite"):
            loaded.ask("Why?", max_new_tokens=2)
    finally:
        weights.data.copy_(kept)


def test_the_talker_runs_as_without_a_method(models: Any) -> None:
    model = models("minicpm_like").model
    assert isinstance(model.tts, LlamaModel)
    hidden = torch.randn(1, 5, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.speak(hidden).last_hidden_state
        with OutRo()(model) as trace:
            assert torch.equal(model.speak(hidden).last_hidden_state, before)
    assert trace.is_empty


def test_commands_take_the_folder(kind: str, folders: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Why is the sea salty?")
    model = ("--model", str(folders(kind)))

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, [*words], catch_exceptions=True)

    refused = run("find", *model, "--text", str(text))
    assert isinstance(refused.exception, OmnisinkError)
    assert "--trust-remote-code" in str(refused.exception)
    found = run("find", *model, "--text", str(text), "--trust-remote-code", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout).get("decoder", "") == KINDS[kind][1]
    asked = run("ask", "Why?", *model, "--trust-remote-code", "--compare", "--json", "--max-new-tokens", "3")
    assert asked.exit_code == 0, asked.output
    said = json.loads(asked.stdout)
    assert said["answer_without"] is not None
    assert said.get("decoder", "") == KINDS[kind][1]


def changed(folder: Path, target: Path, **settings: Any) -> Path:
    """Copy a checkpoint with other settings; None takes one away."""
    shutil.copytree(folder, target)
    written = json.loads((target / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps({k: v for k, v in written.items() if v is not None}))
    return target


CLASS = "internvl_like.InternVLLike"


@pytest.mark.parametrize(
    ("auto_map", "message"),
    [
        (None, "does not recognize this architecture.* import that package before load_model is called"),
        ({"AutoModel": f"{CLASS}Model"}, "does not recognize this architecture.* import that package"),
        ({"AutoConfig": f"{CLASS}Config"}, "names no class for the model: put AutoModel or AutoModelForCausalLM into"),
        (
            {"AutoConfig": f"{CLASS}Config", "AutoModelForVision2Seq": f"{CLASS}Model"},
            "names no class for the model: put AutoModel or AutoModelForCausalLM into",
        ),
    ],
)
def test_a_folder_that_leads_to_no_class_says_what_to_do(
    auto_map: dict[str, str] | None, message: str, folders: Any, tmp_path: Path
) -> None:
    folder = changed(folders("internvl_like"), tmp_path / "other", auto_map=auto_map)
    with pytest.raises(OmnisinkError, match=message):
        load_model(folder, trust_remote_code=True)


def test_other_names_of_auto_map_are_taken(folders: Any, tmp_path: Path) -> None:
    auto = {"AutoConfig": f"{CLASS}Config", "AutoModelForMultimodalLM": f"{CLASS}Model"}
    folder = changed(folders("internvl_like"), tmp_path / "other", auto_map=auto)
    assert type(load_model(folder, trust_remote_code=True).model).__name__ == "InternVLLikeModel"


def test_code_for_another_transformers_and_a_missing_tokenizer_say_what_to_do(folders: Any, tmp_path: Path) -> None:
    folder = changed(folders("internvl_like"), tmp_path / "bare")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(OmnisinkError, match="No tokenizer that can be read lies in the folder"):
        load_model(folder, trust_remote_code=True)
    folder = changed(folders("internvl_like"), tmp_path / "old")
    code = folder / "internvl_like.py"
    code.write_text(code.read_text() + "\n\nfrom transformers import LogitsWarper\n")
    with pytest.raises(OmnisinkError, match="LogitsWarper.* was written for another release of transformers"):
        load_model(folder, trust_remote_code=True)
