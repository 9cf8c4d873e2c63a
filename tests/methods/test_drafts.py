"""Assisted decoding and loops that verify drafts: refused where a draft would count as prompt, and else greedy."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from omnisink import OmnisinkError, OutRo, UnsupportedModelError
from tests.reference_outro import SINK, plain_greedy, prompt, tiny_llama

DRAFTS = {
    "assistant": lambda: {"assistant_model": tiny_llama(seed=1)},
    "prompt lookup": lambda: {"prompt_lookup_num_tokens": 3},
    "early exit": lambda: {"assistant_early_exit": 2},
    "sampled, with an assistant": lambda: {"assistant_model": tiny_llama(seed=1), "do_sample": True},
}


@pytest.mark.parametrize("drafts", DRAFTS)
def test_drafts_are_refused(drafts):
    """The draft would be run with the prompt, in one pass, and count as a part of it."""
    model, ids = tiny_llama(), prompt(13, (0, 6))
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False, **DRAFTS[drafts]()}
    plain = model.generate(input_ids=ids, **options)
    with pytest.raises(UnsupportedModelError, match="assisted decoding"), OutRo(gamma=1.0)(model):
        model.generate(input_ids=ids, **options)
    assert plain.shape == model.generate(input_ids=ids, **options).shape  # allowed again after the block


def test_drafts_set_on_the_model_are_refused():
    model, ids = tiny_llama(), prompt(13)
    model.generation_config.prompt_lookup_num_tokens = 3
    with pytest.raises(UnsupportedModelError, match="assisted decoding"), OutRo()(model):
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)


def test_an_assistant_under_a_method_is_refused():
    """Its cache is cut by the last token of the prompt, which is then run again as if it had been generated."""
    model, assistant, ids = tiny_llama(), tiny_llama(seed=1), prompt(13, (0, 6))
    with pytest.raises(OmnisinkError, match="cut to 12 of the 13"), OutRo(gamma=1.0)(assistant):
        model.generate(input_ids=ids, assistant_model=assistant, max_new_tokens=8, do_sample=False)


def verify_drafts(model, ids, count, draft_of, *, with_prompt):
    """Decode greedily by verifying drafts, as loops of one's own do; the first one with the prompt or after it."""
    cache, tokens = DynamicCache(config=model.config), ids
    if not with_prompt:
        logits = model(input_ids=ids, past_key_values=cache).logits
        tokens = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    while tokens.shape[1] < ids.shape[1] + count:
        draft = draft_of(tokens)
        held = cache.get_seq_length()
        logits = model(input_ids=torch.cat([tokens[:, held:], draft], dim=1), past_key_values=cache).logits
        chosen = logits[:, -draft.shape[1] - 1 :].argmax(-1)
        right = int((chosen[:, :-1] == draft).long().cumprod(1).sum())
        cache.crop(-(draft.shape[1] - right))
        tokens = torch.cat([tokens, chosen[:, : right + 1]], dim=1)
    return tokens[0, ids.shape[1] :][:count].tolist()


def test_drafts_verified_after_the_prompt_give_the_greedy_tokens():
    model = tiny_llama()
    for seed in range(12):
        ids = prompt(13, (0, 6), seed=seed)
        expected = plain_greedy(model, ids, 8, gamma=3.0)

        def half_right(tokens, ids=ids, expected=expected):
            done = tokens.shape[1] - ids.shape[1]
            return torch.tensor([[*expected[done : done + 1], 11, 12]])

        with OutRo(gamma=3.0)(model), torch.inference_mode():
            assert verify_drafts(model, ids, 8, half_right, with_prompt=False) == expected


def test_drafts_verified_with_the_prompt_are_noticed():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    with pytest.raises(OmnisinkError, match="cut to 13 of the 15 tokens"), OutRo()(model), torch.inference_mode():
        verify_drafts(model, ids, 8, lambda _: torch.tensor([[SINK, SINK]]), with_prompt=True)


def test_a_cache_that_was_cut_between_two_blocks_is_noticed():
    model, cache = tiny_llama(), DynamicCache()
    with OutRo()(model), torch.inference_mode():
        model(input_ids=prompt(13), past_key_values=cache)
    cache.crop(-5)
    with pytest.raises(OmnisinkError, match="cut to 8 of the 13 tokens"), OutRo()(model), torch.inference_mode():
        model(input_ids=torch.tensor([[20]]), past_key_values=cache)


def test_a_cache_that_was_cut_to_nothing_starts_over():
    model, cache = tiny_llama(), DynamicCache(config=tiny_llama().config)
    with OutRo()(model) as trace, torch.inference_mode():
        model(input_ids=prompt(13), past_key_values=cache)
        cache.crop(-13)
        model(input_ids=prompt(9, (2,)), past_key_values=cache)
    assert trace.sinks.positions(0) == [2]
