"""OutRo on a model against its plain restatement: prompt, generated tokens, every setting."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OutRo
from tests.reference_outro import PlainOutRo, prompt, tiny_llama

#: float32 through six layers against float64 (measured: 1e-6); relaxation alone moves these logits by 3e-3.
TOLERANCE = 1e-5

SETTINGS = {
    "defaults": {},
    "gentle": {"gamma": 0.3},
    "away": {"gamma": -0.5},
    "soft gate": {"tau": 1.0},
    "rotation only": {"relax": False},
    "relaxation only": {"rotate": False},
    "prompt only": {"decode": False},
    "off": {"gamma": 0.0, "relax": False},
}


def prefill_and_steps(model, ids, continuation, cache):
    """Logits of the prompt, then of each token of `continuation`, fed one by one."""
    with torch.inference_mode():
        logits = [model(input_ids=ids, past_key_values=cache).logits[0]]
        logits += [model(input_ids=torch.tensor([[t]]), past_key_values=cache).logits[0] for t in continuation]
    return logits


SINKS = [(0,), (0, 6), (3, 4, 11)]
#: Every setting with every place of sinks, and the backends in turn.
CASES = [(*case, ("sdpa", "eager")[i % 2]) for i, case in enumerate(product(SETTINGS, SINKS))]


@pytest.mark.parametrize(("name", "sinks", "backend"), CASES, ids=str)
def test_prompt_and_generated_tokens_equal_the_restatement(name, sinks, backend):
    model = tiny_llama(backend)
    ids = prompt(13, sinks)
    settings = {"gamma": 3.0, "tau": 0.1, "rotate": True, "relax": True, "decode": True, **SETTINGS[name]}
    plain = PlainOutRo(model, **settings)
    with torch.inference_mode():
        expected = [plain.prefill(ids), *[plain.step(t)[None] for t in (20, 31, 9)]]
    with OutRo(**settings)(model) as trace:
        found = prefill_and_steps(model, ids, (20, 31, 9), DynamicCache(config=model.config))
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max() < TOLERANCE
    assert {layer: trace.sinks.positions(layer) for layer in trace.sinks.examined} == plain.sinks
    assert trace.relaxed == plain.relaxed
    if name != "off":
        untouched = prefill_and_steps(model, ids, (20, 31, 9), DynamicCache(config=model.config))
        assert (untouched[0].double() - expected[0]).abs().max() > 50 * TOLERANCE  # or agreeing would prove nothing


def test_static_cache_equals_dynamic_cache():
    model = tiny_llama()
    ids = prompt(13, (0, 6))
    with OutRo()(model):
        dynamic = prefill_and_steps(model, ids, (20, 31), DynamicCache(config=model.config))
        static = prefill_and_steps(model, ids, (20, 31), StaticCache(config=model.config, max_cache_len=40))
    for a, b in zip(dynamic, static, strict=True):
        assert (a - b).abs().max() < 1e-5


def test_every_relaxation_layer_is_tried_until_a_sink_is_relaxed():
    model = tiny_llama(num_hidden_layers=14)  # 14 // 7: layers 0, 2, 4, ...
    ids = prompt(12, (0, 5))
    with OutRo(detect_layers=(1, 2, 3, 4))(model) as trace, torch.inference_mode():
        model(input_ids=ids)
    assert trace.relaxed == [(2, 0, 0), (2, 0, 5)]
    assert trace.sinks.examined == [1, 2, 3, 4]
    with OutRo(relax_layers=(3,))(model) as trace, torch.inference_mode():
        model(input_ids=ids)
    assert trace.relaxed == [(3, 0, 0), (3, 0, 5)]


def test_the_last_two_layers_look_for_no_sinks():
    model = tiny_llama()
    with OutRo()(model) as trace, torch.inference_mode():
        model(input_ids=prompt(9))
    assert trace.sinks.examined == [0, 1, 2, 3]


def test_rotated_tokens_counts_prompt_and_generated_positions():
    model = tiny_llama()
    ids = prompt(13, (0, 6))
    with OutRo()(model) as trace:
        prefill_and_steps(model, ids, (20, 31, 9), DynamicCache(config=model.config))
        assert trace.rotated_tokens == dict.fromkeys(trace.sinks.layers, 13 - 2 + 3)
    with OutRo(decode=False)(model) as trace:
        prefill_and_steps(model, ids, (20, 31, 9), DynamicCache(config=model.config))
    assert trace.rotated_tokens == dict.fromkeys(trace.sinks.layers, 13 - 2)
    with OutRo(rotate=False)(model) as trace:
        prefill_and_steps(model, ids, (20,), DynamicCache(config=model.config))
    assert trace.rotated_tokens == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(dtype):
    model = tiny_llama()
    ids = prompt(13, (0, 6))
    with OutRo(gamma=0.5)(model), torch.inference_mode():
        wide = model(input_ids=ids).logits
    model = model.to(dtype)
    with OutRo(gamma=0.5)(model) as trace, torch.inference_mode():
        narrow = model(input_ids=ids).logits
    with torch.inference_mode():
        without = model(input_ids=ids).logits
    assert trace.sinks.positions(0) == [0, 6]
    slack = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype] * float(wide.abs().max()) * 16
    assert (narrow.float() - wide).abs().max() < slack
    assert (without.float() - wide).abs().max() > slack


def test_gradients_reach_the_prompt():
    model = tiny_llama()
    embedded = model.get_input_embeddings()(prompt(9)).detach().requires_grad_()
    with OutRo(gamma=0.3)(model) as trace:
        model(inputs_embeds=embedded).logits.sum().backward()
    assert torch.isfinite(embedded.grad).all()
    assert embedded.grad.abs().sum() > 0
    assert trace.sinks.layers


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": float("nan")},
        {"gamma": float("inf")},
        {"tau": 0.0},
        {"tau": -1.0},
        {"tau": float("nan")},
        {"min_activation": 0.0},
        {"median_ratio": float("nan")},
        {"max_relaxed": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        OutRo(**settings)


def test_settings_are_data():
    import dataclasses

    assert OutRo() == OutRo(gamma=3.0, tau=0.1, rotate=True, relax=True, decode=True)
    assert OutRo(detect_layers=[3, 1]).detect_layers == (1, 3)
    assert dataclasses.asdict(OutRo(gamma=0.3))["gamma"] == 0.3
    with pytest.raises(dataclasses.FrozenInstanceError):
        OutRo().gamma = 1.0
