"""OutRo through `generate()`: padded batches, beams, caches, conversations, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OmnisinkError, OutRo, UnsupportedModelError
from omnisink.decoder.caches import stored_state
from tests.reference_outro import FLEX_WARNING, SINK, PlainOutRo, plain_greedy, prompt, tiny_llama

SIDES = ["left", "right"]
CACHES = {
    "dynamic": lambda model: DynamicCache(config=model.config),
    "static": lambda model: StaticCache(config=model.config, max_cache_len=64),
    "none": lambda model: None,
}


def padded(prompts, side):
    """Pad (1, n) prompts to one batch on the given side."""
    longest = max(p.shape[1] for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for b, p in enumerate(prompts):
        span = slice(longest - p.shape[1], None) if side == "left" else slice(0, p.shape[1])
        ids[b, span], mask[b, span] = p[0], 1
    return {"input_ids": ids, "attention_mask": mask}


def three_prompts():
    """Three prompts of different length: two sinks, one sink, none."""
    plain = prompt(9, ())
    plain[plain == SINK] = SINK + 1
    return [prompt(17, (0, 8)), prompt(12, (2,)), plain]


@FLEX_WARNING
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("backend", ["sdpa", "eager", "flex_attention"])
def test_a_padded_batch_gives_each_sequence_what_it_gets_alone(backend, side, cache):
    model = tiny_llama(backend)
    prompts = three_prompts()
    batch = padded(prompts, side)
    with OutRo(gamma=1.0)(model) as trace, torch.inference_mode():
        position_ids = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        together = model(**batch, position_ids=position_ids, past_key_values=CACHES[cache](model)).logits
    token_mask = batch["attention_mask"].bool()
    rotated = 0
    for b, alone in enumerate(prompts):
        with OutRo(gamma=1.0)(model) as single, torch.inference_mode():
            expected = model(input_ids=alone, past_key_values=CACHES[cache](model)).logits[0]
        assert (together[b][token_mask[b]] - expected).abs().max() < 2e-5
        rotated += sum(single.rotated_tokens.values())
        first = int(token_mask[b].nonzero()[0])
        for layer in trace.sinks.examined:
            assert trace.sinks.positions(layer, b) == [first + p for p in single.sinks.positions(layer)]
    assert sum(trace.rotated_tokens.values()) == rotated > 0
    assert not (trace.sinks.mask(0) & ~token_mask).any()


@pytest.mark.parametrize("implementation", [None, "static"])
def test_greedy_generation_of_a_left_padded_batch_equals_each_alone(implementation):
    model = tiny_llama()
    prompts = three_prompts()
    options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": implementation}
    with OutRo(gamma=1.0)(model) as trace:
        together = model.generate(**padded(prompts, "left"), **options)
    assert trace.rotated_tokens[0] == (17 - 2) + (12 - 1) + 2 * 5
    for b, alone in enumerate(prompts):
        with OutRo(gamma=1.0)(model):
            expected = model.generate(input_ids=alone, attention_mask=torch.ones_like(alone), **options)
        assert together[b, 17:].tolist() == expected[0, alone.shape[1] :].tolist()


@pytest.mark.parametrize("decode", [True, False])
def test_greedy_tokens_are_those_of_the_restatement(decode):
    model = tiny_llama()
    ids = prompt(15, (0, 4))
    with OutRo(decode=decode)(model):
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=7, do_sample=False)
    assert found[0, 15:].tolist() == plain_greedy(model, ids, 7, decode=decode)


def test_sampling_is_reproducible_and_moved_by_the_method():
    model = tiny_llama()
    ids = prompt(15, (0, 4))
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": True}

    def sample():
        torch.manual_seed(5)
        return model.generate(input_ids=ids, **options)[0].tolist()

    with OutRo()(model):
        inside = [sample(), sample()]
    assert inside[0] == inside[1]
    assert inside[0] != sample()


def test_beams_keep_their_own_sink_value():
    """Beam search by transformers against beam search over the restatement, for prompts with different sinks."""
    model = tiny_llama()
    prompts = [prompt(11, (0, 4)), prompt(11, (3,), seed=3)]
    beams, steps = 3, 4
    batch = {"input_ids": torch.cat(prompts), "attention_mask": torch.ones(2, 11, dtype=torch.long)}
    with OutRo(gamma=1.0)(model):
        found = model.generate(
            **batch, num_beams=beams, max_new_tokens=steps, do_sample=False, length_penalty=0.0, early_stopping=False
        )
    for b, ids in enumerate(prompts):
        assert found[b, 11:].tolist() == plain_beam_search(model, ids, beams, steps, gamma=1.0)


def plain_beam_search(model, ids, beams, steps, **settings):
    root = PlainOutRo(model, **settings)
    with torch.inference_mode():
        live = [(0.0, [], root, root.prefill(ids)[-1])]
        for _ in range(steps):
            grown = []
            for score, tokens, state, logits in live:
                best = logits.log_softmax(-1).topk(beams)
                grown += [(score + float(p), [*tokens, int(t)], state) for p, t in zip(*best, strict=True)]
            grown = sorted(grown, key=lambda g: -g[0])[:beams]
            live = []
            for score, tokens, state in grown:
                branch = copy.copy(state)
                branch.keys, branch.values = list(state.keys), list(state.values)
                live.append((score, tokens, branch, branch.step(tokens[-1])))
    return live[0][1]


@pytest.mark.parametrize("way", ["reorder", "select", "repeat"])
def test_the_state_follows_sequences_of_the_cache(way):
    model = tiny_llama()
    prompts = [prompt(11, (0, 4)), prompt(11, (3,), seed=3), prompt(11, (), seed=4)]
    order = {"reorder": [2, 0, 1], "select": [1, 0], "repeat": [0, 0, 1, 1, 2, 2]}[way]
    with OutRo(gamma=1.0)(model) as trace, torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(input_ids=torch.cat(prompts), past_key_values=cache)
        if way == "reorder":
            cache.reorder_cache(torch.tensor(order))
        elif way == "select":
            cache.batch_select_indices(torch.tensor(order))
        else:
            cache.batch_repeat_interleave(2)
        token = torch.full((len(order), 1), 20)
        found = model(input_ids=token, past_key_values=cache).logits[:, 0]
        for row, b in enumerate(order):
            alone = DynamicCache(config=model.config)
            model(input_ids=prompts[b], past_key_values=alone)
            assert (model(input_ids=token[:1], past_key_values=alone).logits[0, 0] - found[row]).abs().max() < 1e-5
    assert trace.sinks.token_mask.shape == (1, 11)


def test_a_conversation_goes_on_with_the_first_prompts_sink_value():
    model = tiny_llama()
    first, second = prompt(11, (0, 4)), prompt(5, (1,), seed=9)
    plain = PlainOutRo(model)
    with torch.inference_mode():
        plain.prefill(first)
        expected = torch.stack([plain.step(int(t)) for t in second[0]])
    method = OutRo()
    cache = DynamicCache(config=model.config)
    with method(model) as trace, torch.inference_mode():
        model(input_ids=first, past_key_values=cache)
        keys = cache.layers[2].keys.clone()
        found = model(input_ids=second, past_key_values=cache).logits[0]
        assert trace.sinks.token_mask.shape == (1, 11)  # the later pass finds no new sinks
        assert torch.equal(cache.layers[2].keys[:, :, :11], keys)
    assert (found.double() - expected).abs().max() < 1e-5
    with method(model), torch.inference_mode():  # an equal method in a later block continues it as well
        again = model(input_ids=torch.tensor([[20]]), past_key_values=cache).logits[0, 0]
    with torch.inference_mode():
        assert (again.double() - plain.step(20)).abs().max() < 1e-5


def test_copies_of_a_cache_branch():
    model = tiny_llama()
    with OutRo()(model), torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(input_ids=prompt(11, (0, 4)), past_key_values=cache)
        branch = copy.deepcopy(cache)
        one = model(input_ids=torch.tensor([[20]]), past_key_values=cache).logits
        other = model(input_ids=torch.tensor([[20]]), past_key_values=branch).logits
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_filled_elsewhere_is_refused(kind):
    model = tiny_llama()
    cache = CACHES[kind](model)
    with torch.inference_mode():
        model(input_ids=prompt(11), past_key_values=cache)
    with pytest.raises(OmnisinkError, match="already holds"), OutRo()(model), torch.inference_mode():
        model(input_ids=prompt(3, ()), past_key_values=cache)
    other = OutRo(gamma=0.5)
    with torch.inference_mode():
        cache = CACHES[kind](model)
        with OutRo()(model):
            model(input_ids=prompt(11), past_key_values=cache)
        with pytest.raises(OmnisinkError, match="already holds"), other(model):
            model(input_ids=prompt(3, ()), past_key_values=cache)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_an_emptied_cache_starts_over(kind):
    model = tiny_llama()
    with OutRo()(model) as trace, torch.inference_mode():
        cache = CACHES[kind](model)
        model(input_ids=prompt(11, (0, 4)), past_key_values=cache)
        cache.reset()
        model(input_ids=prompt(9, (2,)), past_key_values=cache)
        assert trace.sinks.positions(0) == [2]


def test_another_number_of_sequences_is_refused():
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match=r"2 sequences.* 1"), OutRo()(model), torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(input_ids=prompt(11), past_key_values=cache)
        for layer in cache.layers:  # behind the cache's own methods
            layer.keys, layer.values = layer.keys.repeat(2, 1, 1, 1), layer.values.repeat(2, 1, 1, 1)
        model(input_ids=torch.tensor([[5], [6]]), past_key_values=cache)


def test_chunked_prefill_is_refused():
    model = tiny_llama()
    ids = prompt(12)
    with pytest.raises(UnsupportedModelError, match="prefill_chunk_size"), OutRo()(model):
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False, prefill_chunk_size=4
        )


def test_continuous_batching_is_refused():
    model = tiny_llama()
    with pytest.raises(UnsupportedModelError, match="continuous batching"), OutRo()(model):
        model.generate_batch([[5, 6, 7]])


def test_packed_sequences_are_refused():
    model = tiny_llama()
    with pytest.raises(UnsupportedModelError, match="packed"), OutRo()(model), torch.inference_mode():
        model(input_ids=prompt(8), cu_seq_lens_q=torch.tensor([0, 4, 8]), cu_seq_lens_k=torch.tensor([0, 4, 8]))


def test_guidance_rotates_each_prompt_with_its_own_sink_and_traces_the_unconditional_one():
    model, ids, scale = tiny_llama(), prompt(13, (0, 6)), 1.5
    with OutRo(gamma=1.0)(model) as trace:
        found = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, guidance_scale=scale
        )
    assert trace.sinks.token_mask.shape == (1, 1)  # The unconditional prompt is the last token alone.
    prompted, free = PlainOutRo(model, gamma=1.0), PlainOutRo(model, gamma=1.0)
    with torch.inference_mode():
        rows, tokens = [prompted.prefill(ids)[-1], free.prefill(ids[:, -1:])[-1]], []
        while len(tokens) < 5:
            said, unsaid = (row.log_softmax(-1) for row in rows)
            tokens.append(int((scale * (said - unsaid) + unsaid).argmax()))
            rows = [one.step(tokens[-1]) for one in (prompted, free)]
    assert found[0, 13:].tolist() == tokens


def test_without_a_cache_every_pass_is_a_prefill():
    model = tiny_llama()
    ids = prompt(9, (0,))
    with OutRo()(model) as trace, torch.inference_mode():
        model(input_ids=ids, use_cache=False)
        model(input_ids=prompt(12, (3,)), use_cache=False)
    assert trace.sinks.positions(0) == [3]


def test_nothing_is_kept_on_a_cache_that_a_method_never_saw():
    model = tiny_llama()
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=prompt(9), past_key_values=cache)
    assert stored_state(cache, OutRo()) is None
