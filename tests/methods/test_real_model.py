"""Real weights: the sink of SmolLM2-135M, and what OutRo does to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnisink import OutRo, find_sinks
from tests.reference_outro import PlainOutRo

pytestmark = pytest.mark.real

TEXT = Path(__file__).with_name("lighthouse.txt").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def prompt(smollm2):
    ids = smollm2.tokenizer(TEXT, return_tensors="pt").input_ids
    assert 180 <= ids.shape[1] <= 230
    return ids


def test_the_sink_is_the_first_token_from_layer_12_on(smollm2, prompt):
    found = find_sinks(smollm2.model, input_ids=prompt)
    assert found.examined == list(range(28))
    assert found.layers == list(range(12, 28))
    for layer in found.layers:
        assert found.positions(layer) == [0]
        assert found.magnitude(layer)[0] == pytest.approx(25_000, rel=0.15)


def test_the_sink_dimensions_of_the_model_mark_the_same_token(smollm2, prompt):
    with torch.inference_mode():
        hidden = smollm2.model(input_ids=prompt, output_hidden_states=True).hidden_states[15]
    channel = int(hidden[0, 0].abs().argmax())
    found = find_sinks(smollm2.model, criterion="sink_dimension", channels=[channel], input_ids=prompt)
    assert 0 in found.positions(15)


@pytest.mark.parametrize("gamma", [0.3, 3.0])
def test_the_method_equals_its_restatement_on_trained_weights(smollm2, gamma):
    ids = smollm2.tokenizer(
        "The capital of France is Paris, and the capital of Italy is", return_tensors="pt"
    ).input_ids
    plain = PlainOutRo(smollm2.model, gamma=gamma)
    with torch.inference_mode():
        untouched = smollm2.model(input_ids=ids).logits[0]
        expected = plain.prefill(ids)
        with OutRo(gamma=gamma)(smollm2.model) as trace:
            found = smollm2.model(input_ids=ids).logits[0]
    moved = (untouched.double() - expected).abs().max()
    assert moved > 0.5
    assert (found.double() - expected).abs().max() < 2e-3 < 0.01 * moved
    assert {layer: trace.sinks.positions(layer) for layer in trace.sinks.examined} == plain.sinks
    assert trace.relaxed == plain.relaxed


def test_relaxation_happens_once_at_the_first_relaxation_layer_with_a_sink(smollm2, prompt):
    with OutRo()(smollm2.model) as trace, torch.inference_mode():
        smollm2.model(input_ids=prompt)
    assert trace.relaxed == [(12, 0, 0)]  # 30 // 7 = 4: layers 0, 4, 8, 12, ...
    assert trace.skipped_layers == {}


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_padded_batch_equals_each_alone(smollm2, backend):
    model, tokenizer = smollm2.model, smollm2.tokenizer
    questions = ["The colours of the rainbow are", TEXT[:300], "Once upon a time, there was a"]
    was, side = model.config._attn_implementation, tokenizer.padding_side
    tokenizer.padding_side = "left"
    try:
        model.set_attn_implementation(backend)
        batch = tokenizer(questions, return_tensors="pt", padding=True)
        options = {"max_new_tokens": 5, "do_sample": False}
        with OutRo(gamma=0.3)(model) as trace:
            together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
        starts = (batch["attention_mask"].argmax(dim=1)).tolist()
        assert [trace.sinks.positions(20, b) for b in range(3)] == [[s] for s in starts]
        for b, question in enumerate(questions):
            single = tokenizer(question, return_tensors="pt")
            with OutRo(gamma=0.3)(model):
                alone = model.generate(**single, **options)[0, single["input_ids"].shape[1] :]
            assert together[b].tolist() == alone.tolist()
    finally:
        model.set_attn_implementation(was)
        tokenizer.padding_side = side


def test_the_model_is_untouched_afterwards(smollm2, prompt):
    with torch.inference_mode():
        before = smollm2.model(input_ids=prompt).logits
        with OutRo()(smollm2.model):
            assert not torch.equal(smollm2.model(input_ids=prompt).logits, before)
        assert torch.equal(smollm2.model(input_ids=prompt).logits, before)


def test_half_precision_finds_the_same_sink(smollm2, prompt):
    import copy

    half = copy.deepcopy(smollm2.model).to(torch.bfloat16)
    found = find_sinks(half, input_ids=prompt)
    assert found.layers == list(range(12, 28))
    with OutRo(gamma=0.3)(half) as trace:
        out = half.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False
        )
    assert out.shape[1] == prompt.shape[1] + 3
    assert trace.rotated_tokens[20] == prompt.shape[1] - 1 + 2
