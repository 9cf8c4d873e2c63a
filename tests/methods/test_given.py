"""What may stand for a model and a prompt, and the sentence that each slip is answered with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from transformers import pipeline

from omnisink import OmnisinkError, OutRo, find_sinks, load_model, record
from omnisink.methods import (
    KnockoutTokens,
    Method,
    Positions,
    Recorder,
    ReplaceSinkValue,
    SinkDimension,
    ZeroHeads,
)
from omnisink.models.adapters.spans import Span
from tests.conftest import SINK_LETTER

TEXT = f"an {SINK_LETTER}?"


@pytest.fixture(scope="module")
def loaded(llama_folder):
    """Load the tiny Llama with its tokenizer."""
    return load_model(str(llama_folder), device="cpu")


@pytest.fixture(scope="module")
def pipe(loaded):
    """Make a pipeline of the same model."""
    return pipeline("text-generation", model=loaded.model, tokenizer=loaded.tokenizer)


def test_a_text_is_read_as_a_question_to_what_was_loaded(loaded) -> None:
    inputs = loaded.inputs(TEXT)
    found = find_sinks(loaded, TEXT)
    assert found == find_sinks(loaded.model, **inputs) == find_sinks(loaded, inputs)
    assert found.positions(0) == [0, 4]  # the template begins with the letter too
    both = find_sinks(loaded, [TEXT, SINK_LETTER])
    assert both.positions(0, 1) == [4, 5]  # padded on the left
    assert find_sinks(loaded, TEXT, system="") == found


def test_a_text_is_read_as_it_is_by_a_pipeline(loaded, pipe) -> None:
    ids = loaded.tokenizer(TEXT, return_tensors="pt")
    assert find_sinks(pipe, TEXT) == find_sinks(loaded.model, **ids) == find_sinks(pipe, dict(ids))
    assert find_sinks(pipe, TEXT) == find_sinks(loaded.model, ids["input_ids"])
    assert find_sinks(pipe, TEXT).positions(0) == [3]
    both = find_sinks(pipe, [TEXT, SINK_LETTER])
    assert (both.positions(0, 0), both.positions(0, 1)) == ([3], [4])
    assert record(pipe, TEXT).sets == ["massive_activation"]


def test_a_method_takes_the_model_of_what_holds_one(loaded, pipe) -> None:
    asked = loaded.tokenizer(TEXT, return_tensors="pt")
    made = []
    for holder in (loaded.model, loaded, pipe):
        with OutRo(gamma=1.0)(holder) as trace:
            made.append(loaded.model.generate(**asked, max_new_tokens=4))
        assert trace.rotated_tokens
    assert all(torch.equal(made[0], other) for other in made[1:])
    with OutRo(gamma=1.0)(pipe) as trace:
        pipe(TEXT, max_new_tokens=2)
    assert trace.sinks.positions(0) == [3]


def test_what_is_text_video_and_audio_is_one_argument(loaded) -> None:
    inputs = loaded.inputs(TEXT)
    length = inputs["input_ids"].shape[1]
    spans = [[Span("text", 0, 3), Span("audio", 3, 6), Span("text", 6, length)]]
    made = record(loaded.model, spans=spans, **inputs)
    assert made.sets == ["massive_activation", "text", "audio", "text: sinks", "audio: sinks"]
    assert made == record(loaded.model, spans=spans[0], **inputs)
    total = made.mass_on("text") + made.mass_on("audio")
    assert torch.allclose(torch.from_numpy(total), torch.ones(1), atol=1e-5)
    on_sinks = made.mass_on("text: sinks") + made.mass_on("audio: sinks")
    assert torch.allclose(torch.from_numpy(on_sinks), torch.from_numpy(made.mass_on("massive_activation")), atol=1e-6)
    assert (made.mass_on("audio: sinks") > 0).all()  # the letter stands at position 4
    by_hand = torch.zeros(1, length, dtype=torch.bool)
    by_hand[0, 3:6] = True
    assert (made.mass_on("audio") == record(loaded.model, sets={"mine": by_hand}, **inputs).mass_on("mine")).all()
    assert record(loaded, TEXT).sets == ["massive_activation", "text", "text: sinks"]


def test_spans_of_another_prompt_are_named(loaded) -> None:
    inputs = loaded.inputs("W")
    with pytest.raises(OmnisinkError, match="a span of text ends at"):
        record(loaded.model, spans=loaded.spans(loaded.inputs(TEXT)), **inputs)
    with pytest.raises(OmnisinkError, match="spans has 2 entries for 1 prompts"):
        record(loaded.model, spans=loaded.spans(inputs) * 2, **inputs)
    with pytest.raises(OmnisinkError, match="the set 'text' is that of a modality"):
        record(loaded, inputs, sets={"text": torch.ones(1, 3, dtype=torch.bool)})


def test_layers_and_criteria_are_named_in_the_short_way(loaded) -> None:
    assert find_sinks(loaded, TEXT, layers=2).examined == [2]
    assert record(loaded, TEXT, layers=range(1, 3), criterion="massive_activation").layers == [1, 2]
    with pytest.raises(OmnisinkError, match="takes layers as whole numbers"):
        find_sinks(loaded, TEXT, layers="12")
    with pytest.raises(ValueError, match="unknown criterion"):
        record(loaded, TEXT, criterion="massive")


@pytest.mark.parametrize("call", [find_sinks, record])
def test_slips_with_prompts_get_a_sentence(loaded, pipe, call) -> None:
    ids = loaded.tokenizer(TEXT, return_tensors="pt")
    slips: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((loaded,), {}, "needs a prompt"),
        ((pipe,), {}, "needs a prompt"),
        ((loaded.model,), {}, "needs a prompt"),
        ((loaded.model, TEXT), {}, "LlamaForCausalLM, which has no tokenizer"),
        ((loaded.model, ids["input_ids"][0]), {}, r"shape \(batch, tokens\).*ids\[None\]"),
        ((loaded.model, ids["input_ids"].float()), {}, "takes token ids"),
        ((loaded.model, ids), dict(ids), "attention_mask, input_ids twice"),
        ((loaded, []), {}, "takes a prompt that is a text"),
        ((pipe, [{"role": "user", "content": TEXT}]), {}, "apply_chat_template"),
        ((loaded.model, [[1, 2]]), {}, "a tensor of token ids"),
        ((loaded, [TEXT, 3]), {}, "takes a prompt that is a text"),
        ((pipe, ""), {}, "which makes no tokens"),
        ((loaded, ""), {}, "the question is empty"),
        ((loaded, TEXT), {"vidoe": "x.mp4"}, "was given a text and vidoe; beside a text it takes .*video"),
        ((loaded, TEXT), {"video": "x.mp4"}, "takes text only"),
        (("smolomni", TEXT), {}, r"the text 'smolomni': load the model first, as load_model\('smolomni'\)"),
        ((loaded.tokenizer, TEXT), {}, "takes a model, and was given a tokenizer"),
        ((OutRo(), TEXT), {}, r"the method OutRo: put it on the model around the call"),
        ((type(loaded.model), TEXT), {}, "the class LlamaForCausalLM: load the model first"),
        ((None, TEXT), {}, "given None: give a transformers model"),
    ]
    for given, named, message in slips:
        with pytest.raises(OmnisinkError, match=message) as caught:
            call(*given, **named)
        assert "\n" not in str(caught.value)


def test_what_is_measured_beside_is_named_in_the_right_form(loaded) -> None:
    made = record(loaded, TEXT, others=SinkDimension(5), sets={"mine": [[True] + [False] * 6]})
    assert made.sets[:3] == ["massive_activation", "sink_dimension", "mine"]
    with pytest.raises(OmnisinkError, match="sets must be masks by name"):
        record(loaded, TEXT, sets=["text"])
    with pytest.raises(OmnisinkError, match="spans must be what"):
        record(loaded, TEXT, spans=True)
    with pytest.raises(OmnisinkError, match="the set 'mine' must be bool"):
        record(loaded, TEXT, sets={"mine": [True]})


def test_numbers_stand_for_lists_of_one() -> None:
    assert ReplaceSinkValue(layers=3).layers == (3,)
    assert (SinkDimension(5).channels, Positions(0).positions) == ((5,), (0,))
    for make in (lambda: ReplaceSinkValue(layers="x"), lambda: SinkDimension([1.5]), lambda: Positions(None)):
        with pytest.raises(ValueError, match=r"must be whole numbers, as \(0, 1\), got"):
            make()


def test_texts_without_padding_are_refused(loaded) -> None:
    tokenizer = deepcopy(loaded.tokenizer)
    tokenizer.pad_token = None
    pipe = pipeline("text-generation", model=loaded.model, tokenizer=tokenizer)
    tokenizer.pad_token = None  # The pipeline sets one.
    assert find_sinks(pipe, TEXT).positions(0) == [3]
    with pytest.raises(OmnisinkError, match="no padding token"):
        find_sinks(pipe, [TEXT, "W"])


@pytest.mark.parametrize("method", [OutRo, ZeroHeads, KnockoutTokens, Recorder])
def test_a_model_among_the_settings_is_a_slip(loaded, pipe, method) -> None:
    for given in (loaded.model, loaded, pipe):
        with pytest.raises(OmnisinkError, match=rf"with {method.__name__}\(\.\.\.\)\(model\) as trace"):
            method(given)
    with pytest.raises(OmnisinkError, match="takes settings"):
        method(model=loaded.model)


def test_a_setting_may_be_a_model() -> None:
    @dataclass(frozen=True, eq=False)
    class Probe(Method):
        probe: nn.Module

        def head_output(self, call: Any, output: Any, context: Any) -> Any:
            return output

    assert isinstance(Probe(nn.Linear(2, 2)).probe, nn.Linear)


@pytest.mark.parametrize("wrong", ["tokenizer", "name", "method", "list", "none"])
def test_a_block_on_something_else_gets_a_sentence(loaded, wrong) -> None:
    given = {
        "tokenizer": loaded.tokenizer, "name": "smolomni", "method": OutRo(), "list": [loaded.model], "none": None
    }  # fmt: skip
    with pytest.raises(OmnisinkError, match="takes a model, and was given"):
        with OutRo()(given[wrong]):
            pass


def test_a_block_without_a_model_gets_a_sentence() -> None:
    method: AbstractContextManager[Any] = OutRo(0.3)  # type: ignore[assignment]
    with pytest.raises(OmnisinkError, match=r"no model yet; write with OutRo\(\.\.\.\)\(model\) as trace"):
        with method:
            pass


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": "0.3"}, {"gamma": [1.0]}, {"tau": None}, {"rotate": "no"}, {"relax": 1}, {"decode": None},
        {"max_relaxed": "256"}, {"max_relaxed": 2.5}, {"detect_layers": 5}, {"relax_layers": [None]},
    ],
)  # fmt: skip
def test_settings_of_another_kind_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} must be"):
        OutRo(**settings)
