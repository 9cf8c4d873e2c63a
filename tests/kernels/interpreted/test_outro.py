"""OutRo on a model with kernels: the restatement's answers, the launches it takes, and what it writes to."""

from __future__ import annotations

import contextlib

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OutRo
from omnisink.kernels.launch import count_launches
from omnisink.methods import outro
from tests.kernels.interpreted.operations import Operations, hide_the_interpreter
from tests.kernels.interpreted.reference import reference
from tests.reference_outro import PlainOutRo, prompt, tiny_llama

STEPS = (20, 31, 9)


def run(model, ids, mask=None, cache=None, steps=STEPS):
    cache = cache or DynamicCache(config=model.config)
    with torch.inference_mode():
        logits = [model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits]
        for token in steps:
            if mask is not None:
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            token = torch.full((len(ids), 1), token)
            logits.append(model(input_ids=token, attention_mask=mask, past_key_values=cache).logits)
    return logits


def differ(a, b):
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "settings",
    [{}, {"gamma": -0.5}, {"relax": False}, {"rotate": False}, {"decode": False}, {"gamma": 0.0, "relax": False}],
    ids=str,
)
def test_prompt_and_generated_tokens_equal_the_restatement(settings):
    model, ids = tiny_llama(num_hidden_layers=4), prompt(11, (0, 6))
    plain = PlainOutRo(model, **settings)
    with torch.inference_mode():
        expected = [plain.prefill(ids), *[plain.step(t)[None] for t in STEPS]]
    with OutRo(**settings)(model) as trace, count_launches() as launches:
        found = run(model, ids)
    assert launches["scan"] == 2
    assert differ([logits[0] for logits in found], expected) < 1e-5
    assert {layer: trace.sinks.positions(layer) for layer in trace.sinks.examined} == plain.sinks
    assert trace.relaxed == plain.relaxed
    with reference(), OutRo(**settings)(model) as other:
        run(model, ids)
    assert trace.rotated_tokens == other.rotated_tokens


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_padded_batch_equals_the_reference(side, kind):
    model = tiny_llama(num_hidden_layers=4)
    ids = torch.cat([prompt(11, (2, 6)), prompt(11, (5,), seed=3), prompt(11, ()).clamp(min=10)])
    mask = torch.ones_like(ids)
    mask[1, slice(0, 4) if side == "left" else slice(8, 11)] = 0

    def cache():
        return DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=24)

    steps = STEPS if side == "left" else ()
    with OutRo()(model) as trace:
        found = run(model, ids, mask, cache(), steps)
    with reference(), OutRo()(model) as other:
        expected = run(model, ids, mask, cache(), steps)
    token_mask = mask.bool()
    assert (found[0] - expected[0])[token_mask].abs().max() < 1e-5
    assert differ(found[1:], expected[1:] or []) < 1e-5 if steps else True
    assert (trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens, trace.skipped_layers) == (
        other.sinks.to_json(), other.relaxed, other.rotated_tokens, other.skipped_layers
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, ids = tiny_llama(num_hidden_layers=4).to(dtype), prompt(11, (0, 6))
    with OutRo(gamma=0.5)(model) as trace:
        found = run(model, ids)
    with reference(), OutRo(gamma=0.5)(model) as other:
        expected = run(model, ids)
    assert trace.sinks.to_json() == other.sinks.to_json()
    slack = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype] * float(expected[0].abs().max()) * 16
    assert differ(found, expected) < slack


def test_without_a_sink_the_answers_are_those_of_the_model_to_the_bit():
    model, ids = tiny_llama(num_hidden_layers=4), prompt(9, ()).clamp(min=10)
    plain = run(model, ids)
    with OutRo()(model) as trace:
        assert differ(run(model, ids), plain) == 0
    assert not trace.sinks.layers
    assert trace.rotated_tokens == {}


def test_gradients_take_the_path_that_has_them():
    model = tiny_llama(num_hidden_layers=4)
    embedded = model.get_input_embeddings()(prompt(9)).detach().requires_grad_()
    with OutRo(gamma=0.3)(model) as trace, count_launches() as launches:
        model(inputs_embeds=embedded).logits.sum().backward()
    assert launches == {"scan": 2, "count": 2}  # A decision has no gradient.
    assert embedded.grad.abs().sum() > 0
    found = embedded.grad.clone()
    embedded.grad = None
    with reference(), OutRo(gamma=0.3)(model) as other:
        model(inputs_embeds=embedded).logits.sum().backward()
    assert torch.allclose(found, embedded.grad, rtol=1e-4, atol=1e-6)
    assert (trace.relaxed, trace.rotated_tokens) == (other.relaxed, other.rotated_tokens)


def test_four_launches_a_layer_one_more_to_relax_and_one_to_decode(monkeypatch):
    monkeypatch.setattr(outro, "is_eager_cpu", lambda _: False)  # On a GPU nobody knows which layers have a sink.
    depth = 14  # Every second layer relaxes; the last two look for nothing.
    model, ids = tiny_llama(num_hidden_layers=depth), prompt(9, (0, 5))
    cache = DynamicCache(config=model.config)
    with OutRo()(model), torch.inference_mode():
        with count_launches() as launches:
            model(input_ids=ids, past_key_values=cache)
        assert launches == {"scan": 12, "count": 12, "direct": 12, "turn": 12, "relax": 6}
        with count_launches() as launches:
            model(input_ids=torch.tensor([[20]]), past_key_values=cache)
        assert launches == {"turn": 12}


@pytest.fixture(autouse=True)
def _the_interpreter_is_no_operator(monkeypatch):
    hide_the_interpreter(monkeypatch)


def step_under_watch(model, cache, watch):
    with torch.inference_mode(), watch:
        model(input_ids=torch.tensor([[20]]), past_key_values=cache)
    return watch


@pytest.mark.parametrize("kernels", [True, False])
def test_a_later_pass_writes_to_nothing_that_was_there_before_but_the_cache(kernels):
    model, ids = tiny_llama(num_hidden_layers=4), prompt(9, (0, 5))
    with contextlib.nullcontext() if kernels else reference(), OutRo()(model):
        cache = StaticCache(model.config, max_cache_len=16)
        run(model, ids, cache=cache, steps=(31,))
        owned = [t for layer in cache.layers for t in (layer.keys, layer.values, layer.cumulative_length)]
        watch = step_under_watch(model, cache, Operations(owned))
        assert watch.written == []
        assert step_under_watch(model, cache, Operations()).written  # The watch sees the cache's own writes.


@pytest.mark.parametrize("padded", [False, True])
def test_no_layer_costs_an_operator_of_pytorch(padded, monkeypatch):
    """In a prefill and in a step, what is added is the same however deep the model is, and little."""
    monkeypatch.setattr(outro, "is_eager_cpu", lambda _: False)  # On a GPU nobody knows which layers have a sink.
    ids = prompt(9, (2, 5)).expand(2, -1)
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    mask = mask if padded else None
    added = []
    for depth in (4, 8):
        model, counts = tiny_llama(num_hidden_layers=depth), []
        for method in (None, OutRo()):
            with method(model) if method else contextlib.nullcontext(), torch.inference_mode():
                if method:  # A prompt before: what it has left is put away at the start of the next.
                    run(model, ids, mask, steps=())
                cache = DynamicCache(config=model.config)
                with Operations() as prefill:
                    model(input_ids=ids, attention_mask=mask, past_key_values=cache)
                longer = None if mask is None else torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
                with Operations() as step:
                    model(input_ids=ids[:, :1], attention_mask=longer, past_key_values=cache)
            counts.append((prefill.count, step.count))
        added.append([found - plain for plain, found in zip(*counts, strict=True)])
    assert added[0] == added[1]
    assert added[0][0] <= (60 if padded else 50)  # A mask has to be read, and turned into the layout of the prompts.
    # Whether the last residual stream is finite; the fifth is the host's look at it on the CPU.
    assert added[0][1] <= 5


def test_a_second_prompt_in_the_same_static_cache_has_its_vectors_where_the_first_had_them():
    model = tiny_llama(num_hidden_layers=4)
    cache = StaticCache(model.config, max_cache_len=16)
    with OutRo()(model) as trace:
        run(model, prompt(9, (0, 5)), cache=cache)
        state = next(iter(vars(cache)["_omnisink_states"].values()))
        before = {k: t.data_ptr() for k, t in state.tensors.items() if isinstance(k, int)}
        with torch.inference_mode():
            cache.reset()
        other = prompt(7, (3,), seed=2)
        found = run(model, other, cache=cache)
        state = next(iter(vars(cache)["_omnisink_states"].values()))
        assert {k: t.data_ptr() for k, t in state.tensors.items() if isinstance(k, int)} == before
        assert trace.rotated_tokens == dict.fromkeys((0, 1), 6 + len(STEPS))
    with OutRo()(model):
        assert differ(found, run(model, other)) < 1e-5


def test_passes_that_only_the_cache_has_seen_are_counted():
    model = tiny_llama(num_hidden_layers=4)
    cache = StaticCache(model.config, max_cache_len=32)
    with OutRo()(model) as trace:
        run(model, prompt(9, (0, 5)), cache=cache, steps=(20,))
        for layer in cache.layers:  # What the replay of a captured step does to it.
            layer.cumulative_length.add_(3)
        assert trace.rotated_tokens == dict.fromkeys((0, 1), 7 + 4)
