"""SinkRouter on a model with kernels: what the reference answers, the launches of a step, and what it writes to."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink.kernels.launch import count_launches
from omnisink.maths.routing import Visible, routed_decode
from omnisink.methods import OutRo, SinkRouter
from tests.kernels.interpreted.operations import Operations, hide_the_interpreter
from tests.kernels.interpreted.reference import reference
from tests.reference_outro import prompt, tiny_llama

#: Tiny random models have no sink with a small value, which is told of.
pytestmark = pytest.mark.filterwarnings("ignore::omnisink.methods.router_trace.SurrogateWarning")

STEPS = (20, 31)


@pytest.fixture(autouse=True)
def _the_interpreter_is_no_operator(monkeypatch):
    hide_the_interpreter(monkeypatch)


def run(model, ids, mask=None, cache=None):
    cache = cache or DynamicCache(config=model.config)
    with torch.inference_mode():
        logits = [model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits[:, -1]]
        for token in STEPS:
            if mask is not None:
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            token = torch.full((len(ids), 1), token)
            logits.append(model(input_ids=token, attention_mask=mask, past_key_values=cache).logits[:, -1])
    return torch.stack(logits)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_padded_batch_equals_the_reference(side, backend, kind):
    model = tiny_llama(backend, num_hidden_layers=4)
    ids = torch.cat([prompt(11, (0,)), prompt(11, (5,), seed=3)])
    mask = torch.ones_like(ids)
    mask[1, slice(0, 4) if side == "left" else slice(8, 11)] = 0
    settings = {"threshold": 0.02, "surrogate": "value" if side == "left" else "zero"}

    def cache():
        return DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=24)

    with SinkRouter(**settings)(model) as trace, count_launches() as launches:
        found = run(model, ids, mask, cache())
    with reference(), SinkRouter(**settings)(model) as other:
        expected = run(model, ids, mask, cache())
    # Two layers are never routed, and so short a cache is not cut: one launch for each of the others.
    assert launches == {"route": 2 * len(STEPS)}
    assert (found - expected)[1:].abs().max() < 1e-5
    assert torch.equal(found[0], expected[0])
    assert 0 < trace.skip_ratio < 0.5
    assert trace.skip_ratio == other.skip_ratio
    for layer, score in other.scores.items():
        assert trace.scores[layer] == pytest.approx(score, abs=1e-5)


def test_outro_rotates_what_the_kernel_leaves():
    model, ids = tiny_llama(num_hidden_layers=4), prompt(11, (0, 6))
    with SinkRouter(0.02)(model), OutRo(gamma=0.5)(model):
        found = run(model, ids)
    with reference(), SinkRouter(0.02)(model), OutRo(gamma=0.5)(model):
        expected = run(model, ids)
    assert (found - expected).abs().max() < 1e-5


def test_a_step_writes_to_nothing_that_was_there_before_but_the_cache():
    model, ids = tiny_llama(num_hidden_layers=4), prompt(9, (0,))
    with SinkRouter(0.02)(model), torch.inference_mode():
        cache = StaticCache(model.config, max_cache_len=16)
        run(model, ids, cache=cache)
        owned = [t for layer in cache.layers for t in (layer.keys, layer.values, layer.cumulative_length)]
        with Operations(owned) as watch:
            model(input_ids=torch.tensor([[20]]), past_key_values=cache)
        assert watch.written == []


def given(heads=4, kv=2, depth=16, width=16, dtype=torch.float32, keys=20):
    make = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(shape, generator=make).to(dtype)
        for shape in ((2, heads, 1, depth), (2, kv, keys, depth), (2, kv, keys, width))
    )
    visible = Visible(torch.zeros(2, dtype=torch.long), torch.tensor([keys]).expand(2))
    return query, key, value, key[:, :, 0].float(), 0.0, visible


@pytest.mark.parametrize(
    ("options", "launched"),
    [
        ({}, True),
        ({"dtype": torch.bfloat16}, True),
        ({"heads": 64}, True),
        ({"heads": 66}, False),
        ({"depth": 272}, False),
        ({"width": 272}, False),
    ],
    ids=str,
)
def test_steps_that_the_kernels_are_not_written_for_are_left_to_pytorch(options, launched):
    step = given(**options)
    with count_launches() as launches:
        found = routed_decode(*step)
    assert bool(launches) == launched
    with reference():
        expected = routed_decode(*step)
    assert torch.equal(found.routed, expected.routed)
    slack = 1e-5 if step[0].dtype == torch.float32 else 2e-2
    assert (found.output - expected.output).abs().max() < slack


def test_gradients_and_other_orders_of_channels_are_left_to_pytorch():
    query, key, value, anchor, threshold, visible = given()
    turned = key.transpose(2, 3).contiguous().transpose(2, 3)
    with count_launches() as launches:
        routed_decode(query, turned, value, anchor, threshold, visible)
        routed_decode(query.clone().requires_grad_(), key, value, anchor, threshold, visible)
        routed_decode(query, key.double(), value.double(), anchor, threshold, visible)
    assert not launches


def test_a_threshold_of_any_number_type_and_shape():
    query, key, value, anchor, _, visible = given()
    for threshold in (0.1, 1, torch.tensor(0.1), torch.tensor([0.1, -0.3], dtype=torch.float64)):
        found = routed_decode(query, key, value, anchor, threshold, visible)
        with reference():
            expected = routed_decode(query, key, value, anchor, threshold, visible)
        assert torch.equal(found.routed, expected.routed)
