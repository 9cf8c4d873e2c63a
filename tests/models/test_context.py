"""Prompts longer than the model's context: refused with both numbers, or warned about where that is asked for."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image
from transformers import GPT2Config, LlamaConfig, MambaConfig, MistralConfig

from omnisink import OmnisinkError, load_model
from omnisink.evaluation.running.run import Settings, run
from omnisink.evaluation.tasks.instance import Instance
from omnisink.media import Uniform
from omnisink.methods.outro import OutRo
from omnisink.methods.registry import parse_methods
from omnisink.models.context import LongPromptWarning, context_length, room_for_answers
from omnisink.questions.items import Item
from omnisink.results.records import read_records
from omnisink.study.item_runner import item_runner
from tests.models.tiny_checkpoints import CHECKPOINTS

LONG = "A" * 20_000


@pytest.fixture(params=list(CHECKPOINTS))
def loaded(request, families):
    return families(request.param)


@pytest.fixture
def tiny(llama_folder):
    """Load the tiny Llama, whose context is 256."""
    return load_model(llama_folder, dtype="float32")


def stretched(kind: str, factor: float, **more: float) -> LlamaConfig:
    return LlamaConfig(
        max_position_embeddings=1000, rope_parameters={"rope_type": kind, "rope_theta": 1e4, "factor": factor, **more}
    )


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=1000), 1000),
        (GPT2Config(n_positions=77), 77),
        (MistralConfig(max_position_embeddings=900, sliding_window=100), 900),
        (MambaConfig(), None),
        (stretched("linear", 2.0), 2000),
        (stretched("dynamic", 4.0), 4000),
        (stretched("yarn", 4.0, original_max_position_embeddings=1000), 4000),
        (stretched("yarn", 10.0, original_max_position_embeddings=100), 1000),
        (
            stretched("llama3", 8.0, original_max_position_embeddings=500, low_freq_factor=1.0, high_freq_factor=4.0),
            1000,
        ),
    ],
)
def test_the_context_is_read_from_the_configuration(config, length):
    assert context_length(config) == length


def test_a_composite_has_the_context_of_its_text_decoder(loaded):
    assert context_length(loaded.model.config) == 8192


def test_a_long_prompt_is_refused_with_both_numbers_and_at_once(loaded, clip):
    for asked in ({}, {"video": clip, "audio": False, "frames": Uniform(2)}):
        begin = time.perf_counter()
        with pytest.raises(OmnisinkError, match=r"has 2\d,\d\d\d (tokens|positions), more than the context .* 8,192"):
            loaded.inputs(LONG, **asked)
        assert time.perf_counter() - begin < 20
    with pytest.raises(OmnisinkError, match="more than the context"):
        loaded.ask(["Why?", LONG], max_new_tokens=1)


def test_it_is_run_and_warned_about_where_that_is_asked_for(tiny):
    question = "why " * 70
    with pytest.raises(OmnisinkError, match="--allow-long-prompt"):
        tiny.ask(question, max_new_tokens=2)
    with pytest.warns(LongPromptWarning, match="the prompt has 282 tokens, more than the context of .* 256"):
        said = tiny.ask(question, max_new_tokens=2, allow_long_prompt=True)
    assert said.facts.prompt_tokens == 282
    assert 1 <= said.new_tokens <= 2
    with pytest.warns(LongPromptWarning):
        replace(tiny, allow_long_prompts=True).inputs(question)
    assert not tiny.allow_long_prompts


def test_positions_that_are_a_table_cannot_be_exceeded(tiny, monkeypatch):
    monkeypatch.setattr(tiny.model, "config", GPT2Config(n_positions=50))
    with pytest.raises(OmnisinkError, match="more than the context of .* 50: it has no positions for more"):
        tiny.inputs("why " * 30, allow_long_prompt=True)


def test_a_study_refuses_long_questions_and_passages(tiny):
    for item in (Item("q", "why " * 70, "yes", cluster="q"), Item("p", passage="why " * 70, cluster="p")):
        with pytest.raises(OmnisinkError, match="more than the context of"), item_runner(tiny, item):
            pass


def test_a_benchmark_goes_on_past_a_question_that_is_too_long(tiny, tmp_path):
    instances = [
        Instance(id=f"q{i}", text=text, gold="A", answers=("A", "B"), parser="letter", cluster=f"q{i}")
        for i, text in enumerate(["why", "why " * 70, "how"])
    ]
    run(tiny, instances, Settings(parse_methods("baseline", OutRo(gamma=0.5), 0)), tmp_path / "run")
    found = {record["id"]: record for record in read_records(tmp_path / "run")}
    assert "more than the context of" in found["q1"]["error"]
    assert found["q1"]["text"] is None
    assert [found[i]["error"] for i in ("q0", "q2")] == [None, None]


def test_an_answer_ends_where_the_context_does_whatever_the_batch(tiny):
    """The tiny Llama is made to never end an answer; 256 positions leave a long prompt a few tokens."""
    tiny.model.generation_config.eos_token_id = None
    long, short = "x" * 248, "y"
    assert tiny.inputs(long)["input_ids"].shape[1] == 250
    with pytest.warns(LongPromptWarning, match=r"the answer was cut after 6 tokens, where the context of .* ends"):
        alone = tiny.ask(long, max_new_tokens=20)
    with pytest.warns(LongPromptWarning):
        both = tiny.ask([long, short], max_new_tokens=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LongPromptWarning)
        other = tiny.ask(short, max_new_tokens=20)
    assert [alone.new_tokens, other.new_tokens] == [6, 20]
    assert [(b.text, b.new_tokens) for b in both] == [(alone.text, 6), (other.text, 20)]


def test_room_is_what_is_wanted_where_there_is_no_limit(tiny, monkeypatch):
    inputs = tiny.inputs("why")
    monkeypatch.setattr(tiny.model, "config", MambaConfig())
    assert room_for_answers(tiny, inputs, 10_000) == [10_000]


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni", "qwen2_5_vl", "qwen3_vl"])
def test_multimodal_positions_count_and_not_tokens(family, families, tmp_path, monkeypatch):
    """A picture takes fewer positions than tokens under M-RoPE: what fits by positions is run."""
    path = tmp_path / "red.png"
    Image.new("RGB", (56, 56), (255, 0, 0)).save(path)
    loaded = families(family)
    tokens = loaded.inputs("Why?", image=path).facts[0].prompt_tokens
    text = loaded.model.config.get_text_config(decoder=True)
    monkeypatch.setattr(text, "max_position_embeddings", tokens - 1)
    assert loaded.inputs("Why?", image=path).facts[0].prompt_tokens == tokens
    monkeypatch.setattr(text, "max_position_embeddings", 8)
    with pytest.raises(OmnisinkError, match=r"the prompt has \d+ positions, more than the context of .* 8"):
        loaded.inputs("Why?", image=path)


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni", "phi4_multimodal"])
def test_sound_that_is_too_long_is_refused_before_its_spectrogram(family, families, clip, monkeypatch):
    loaded = families(family)
    text = loaded.model.config.get_text_config(decoder=True)
    monkeypatch.setattr(text, "max_position_embeddings", 40)
    monkeypatch.setattr(type(loaded.adapter), "process", lambda *args: pytest.fail("the processor was called"))
    with pytest.raises(OmnisinkError, match=r"the prompt has \d+ tokens of sound, more than the context of .* 40"):
        loaded.inputs("Why?", audio=clip)


def test_a_configuration_without_an_inner_decoder_has_no_limit():
    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(llm_config=LlamaConfig()))
    assert context_length(config) is None


def test_tokens_of_a_long_text_are_made_quickly(tiny):
    begin = time.perf_counter()
    with pytest.raises(OmnisinkError, match="200,002 tokens"):
        tiny.inputs("A" * 200_000)
    assert time.perf_counter() - begin < 20
