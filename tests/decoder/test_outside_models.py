"""Models whose code is not transformers' own: right, or refused by name, and never silently otherwise."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from omnisink import OutRo, UnsupportedModelError, find_sinks
from omnisink.decoder.attention_code import uses_interface
from tests.decoder.outside_llamas import (
    MaskHandedOn,
    OwnEager,
    OwnMask,
    ThroughFunction,
    ThroughMethod,
    ThroughSuper,
    outside_llama,
    with_attention,
    with_text_model,
)
from tests.reference_outro import PlainOutRo, prompt, tiny_llama


def padded_pair():
    """Two prompts of 11 and 8 tokens in one left-padded batch, and its mask."""
    long, short = prompt(11, (0, 4)), prompt(8, (0, 3))
    ids = torch.cat([long, torch.cat([torch.full((1, 3), 20), short], dim=1)])
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return ids, mask


@pytest.mark.parametrize("how", ["old name", "old name by position", "a name of its own"])
def test_a_cache_by_another_name_tells_prompts_from_generated_tokens(how):
    model, ids = outside_llama(how), prompt(13, (0, 6))
    plain = PlainOutRo(tiny_llama())
    with torch.inference_mode(), OutRo()(model) as trace:
        cache = DynamicCache(config=model.config)
        found = [model(input_ids=ids, past_key_values=cache).logits[0, -1]]
        found += [model(input_ids=torch.tensor([[t]]), past_key_values=cache).logits[0, -1] for t in (20, 31)]
    with torch.inference_mode():
        expected = [plain.prefill(ids)[-1], plain.step(20), plain.step(31)]
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max() < 1e-5
    assert trace.sinks.positions(0) == [0, 6]
    assert trace.rotated_tokens[0] == 11 + 2


@pytest.mark.parametrize("how", ["old name", "old name by position"])
def test_a_warm_cache_by_another_name_is_refused(how):
    model, cache = outside_llama(how), DynamicCache()
    with torch.inference_mode():
        model(input_ids=prompt(9), past_key_values=cache)
    with pytest.raises(Exception, match="already holds tokens"), torch.inference_mode(), OutRo()(model):
        model(input_ids=prompt(5), past_key_values=cache)


@pytest.mark.parametrize("given", [True, False], ids=["given", "made inside"])
def test_a_cache_that_cannot_be_found_is_refused(given):
    model = outside_llama("on the layer itself")
    with torch.inference_mode():
        cache = DynamicCache() if given else None
        with pytest.raises(UnsupportedModelError, match="keeps a cache"), OutRo()(model):
            model(input_ids=prompt(9), past_key_values=cache)
        expected = find_sinks(tiny_llama(), input_ids=prompt(9, (0, 4)))
        assert (
            find_sinks(model, input_ids=prompt(9, (0, 4))).to_json() == expected.to_json()
        )  # without one it is right


def test_a_cache_that_does_not_say_how_much_it_holds_is_refused():
    model = outside_llama("old name")
    states = torch.zeros(1, 2, 3, 12)
    model.model.__dict__["run"] = lambda layer, hidden, *_: layer(hidden, past_key_value=(states, states))
    with pytest.raises(UnsupportedModelError, match="given a tuple as its cache"), OutRo()(model):
        model(input_ids=prompt(9), use_cache=False)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("how", [".forward() of all", ".forward() of one"])
def test_layers_whose_hooks_never_run_are_refused(how, use_cache):
    model = outside_llama(how)
    with torch.inference_mode():
        plain = model(input_ids=prompt(9)).logits
        with pytest.raises(UnsupportedModelError, match=r"not as layer\.forward"), OutRo()(model):
            model(input_ids=prompt(9), use_cache=use_cache)
        assert torch.equal(model(input_ids=prompt(9)).logits, plain)


def test_a_batch_is_refused_where_the_mask_has_another_name():
    model = with_text_model(OwnMask)
    ids, mask = padded_pair()
    with torch.inference_mode():
        with pytest.raises(UnsupportedModelError, match="no argument called attention_mask"), OutRo()(model):
            model(ids, mask)
        alone = prompt(9, (0, 4))
        for own in (None, torch.ones_like(alone)):
            with OutRo()(model) as trace:
                found = model(alone, own).logits
            other = tiny_llama()
            with OutRo()(other) as expected:
                assert (other(input_ids=alone).logits - found).abs().max() < 1e-6
            assert trace.relaxed == expected.relaxed != []
        with pytest.raises(UnsupportedModelError, match="no argument called attention_mask"), OutRo()(model):
            model(ids[1:], mask[1:])  # one prompt alone may be padded too


def test_a_mask_that_is_handed_on_by_its_name_is_found():
    ids, mask = padded_pair()
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    found = []
    for model in (with_text_model(MaskHandedOn), tiny_llama()):
        with torch.inference_mode(), OutRo()(model) as trace:
            found.append(model(input_ids=ids, attention_mask=mask, position_ids=position_ids).logits)
        assert trace.sinks.positions(0, 1) == [3, 6]
    assert torch.equal(*found)


def causal(mask):
    length = mask.shape[1]
    return torch.ones(length, length, dtype=torch.bool).tril()[None, None] & mask[:, None, None].bool()


PREPARED = {
    "bool": lambda seen: seen,
    "smallest float": lambda seen: torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min),
    "minus infinity": lambda seen: torch.zeros(seen.shape).masked_fill(~seen, float("-inf")),
    "-1e9": lambda seen: torch.zeros(seen.shape).masked_fill(~seen, -1e9),
    "-1e4": lambda seen: torch.zeros(seen.shape).masked_fill(~seen, -1e4),
}


@pytest.mark.parametrize("opened", [False, True], ids=["", "blind rows opened"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", PREPARED)
def test_prepared_masks_tell_padding(kind, side, opened):
    model = tiny_llama()
    ids, mask = padded_pair()
    if side == "right":
        ids[1], mask[1] = ids[1].roll(-3), mask[1].roll(-3)
    seen = causal(mask)
    if opened:
        seen = seen | ~seen.any(dim=-1, keepdim=True)
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    token_mask = mask.bool()
    with torch.inference_mode(), OutRo()(model) as trace:
        expected = model(input_ids=ids, attention_mask=mask, position_ids=position_ids).logits[token_mask]
        found = model(input_ids=ids, attention_mask=PREPARED[kind](seen), position_ids=position_ids).logits[token_mask]
        assert torch.equal(trace.sinks.token_mask, token_mask)
    assert (found - expected).abs().max() < 1e-5


def test_one_padding_token_whose_row_was_opened_is_padding():
    model, ids = tiny_llama(), torch.cat([torch.tensor([[20]]), prompt(8, (0, 3))], dim=1)
    mask = torch.ones_like(ids)
    mask[:, 0] = 0
    seen = causal(mask)
    seen = seen | ~seen.any(dim=-1, keepdim=True)
    with torch.inference_mode(), OutRo()(model) as trace:
        model(input_ids=ids, attention_mask=seen)
    assert trace.sinks.token_mask.tolist() == [[False] + [True] * 8]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_float_mask_in_half_precision_tells_padding(dtype):
    model = tiny_llama().to(dtype)
    ids, mask = padded_pair()
    additive = torch.zeros(2, 1, 11, 11, dtype=dtype).masked_fill(~causal(mask), -1e4)
    with torch.inference_mode(), OutRo()(model) as trace:
        model(input_ids=ids, attention_mask=additive)
    assert torch.equal(trace.sinks.token_mask, mask.bool())


def test_masks_of_keys_alone_and_of_all_that_sees_all():
    """Bidirectional attention: a row that sees everything is then no padding, unless others see less."""
    model, (ids, mask) = tiny_llama(), padded_pair()
    whole = torch.ones(2, 1, 11, 11, dtype=torch.bool)
    for prepared, token_mask in (
        (mask[:, None, None].bool(), mask.bool()),
        (whole, torch.ones_like(mask, dtype=torch.bool)),
        (whole[:1], torch.ones_like(mask, dtype=torch.bool)),
        (whole & mask[:, None, None].bool(), mask.bool()),
    ):
        with torch.inference_mode(), OutRo()(model) as trace:
            model(input_ids=ids, attention_mask=prepared)
        assert torch.equal(trace.sinks.token_mask, token_mask)


def test_biases_by_distance_are_not_padding():
    model, ids = tiny_llama(), prompt(9, (0, 4))
    place = torch.arange(9)
    bias = -0.7 * (place[:, None] - place[None, :]).abs().float()
    additive = bias.masked_fill(place[None, :] > place[:, None], float("-inf"))[None, None]
    with torch.inference_mode(), OutRo()(model) as trace:
        model(input_ids=ids, attention_mask=additive)
    assert trace.sinks.token_mask.all()


def test_a_mask_that_neither_opens_nor_closes_is_refused():
    model = tiny_llama()
    ids, mask = padded_pair()
    weak = torch.zeros(2, 1, 11, 11).masked_fill(~causal(mask), -200.0)
    for unclear, says in ((weak, "neither open nor close"), (causal(mask).long(), "use bool, or float")):
        with pytest.raises(UnsupportedModelError, match=says), torch.inference_mode(), OutRo()(model):
            model(input_ids=ids, attention_mask=unclear)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", [ThroughSuper, ThroughMethod, ThroughFunction])
def test_attention_that_uses_the_interface_by_a_detour_is_reached(kind, backend):
    ids, found = prompt(11, (0, 4)), []
    for model in (with_attention(kind, attn_implementation=backend), tiny_llama(backend)):
        with torch.inference_mode(), OutRo()(model) as trace:
            found.append(model(input_ids=ids).logits)
        assert trace.rotated_tokens[0] == 9
        assert not trace.skipped_layers
    assert torch.equal(*found)


def test_what_holds_an_attention_is_not_one():
    model = with_attention(ThroughSuper)
    layer = model.model.layers[0]
    assert [type(m).__name__ for m in model.modules() if uses_interface(m)] == ["ThroughSuper"] * 6
    assert not uses_interface(layer)


def test_eager_attention_past_the_interface_says_to_load_with_sdpa():
    ids, rotated = prompt(11, (0, 4)), []
    with torch.inference_mode():
        for model in (tiny_llama(), with_attention(OwnEager)):
            with OutRo()(model) as trace:
                model(input_ids=ids)
            rotated.append(trace.rotated_tokens)
        assert rotated[0] == rotated[1]
        model = with_attention(OwnEager, attn_implementation="eager")
        with (
            pytest.raises(UnsupportedModelError, match="Load the model with attn_implementation='sdpa'"),
            OutRo()(model),
        ):
            model(input_ids=ids)
