"""The split of every head output adds up, in every family, padded or not, with the attention backends in turn."""

from __future__ import annotations

import pytest
import torch

from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.context import AttentionCall
from omnisink.decoder.masks import visible_keys
from omnisink.errors import UnsupportedModelError
from omnisink.methods.measure import Recorder, record
from omnisink.verification.families import FAMILIES
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import LENGTHS, MARKS, alone, in_turn, reader, that_see_or_hear, tiny

pytestmark = MARKS

#: float32, relative to the largest head output (measured: 1e-6 in the worst family).
SPLIT = 5e-6
#: What is one number a token or prompt; layers without a sink hold NaN in both.
COMPARED = ("mass", "received_most", "sink_share", "sink_norm_ratio", "parallel", "query_cosine", "sink_value")


def measured_layers(family, model):
    """Layers whose attention can be reached."""
    return sorted(read_anatomy(reader(model)).attention)


SIDES = [(*cell, side) for number, side in enumerate(("left", "right")) for cell in in_turn(number)]


@pytest.mark.parametrize(("name", "backend", "side"), SIDES)
def test_sinks_and_the_rest_add_up_and_a_batch_is_measured_as_its_prompts_alone(name, backend, side):
    family = FAMILIES[name]
    model = tiny(name, backend)
    inputs = family.inputs(model, lengths=LENGTHS, padding_side=side)
    place = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    found = record(reader(model), position_ids=place, **inputs)
    assert found.layers == measured_layers(family, model)
    assert found["split_error"].max() < SPLIT
    assert found["marked"].any()
    share = torch.from_numpy(found["sink_share"]).nan_to_num()
    assert share.abs().max() > 1e-3
    for b in range(len(LENGTHS)):
        one = record(reader(model), position_ids=torch.arange(LENGTHS[b])[None], **alone(inputs, b))
        assert one["split_error"].max() < SPLIT
        for what in COMPARED:
            together, single = (torch.from_numpy(r[what]) for r in (found, one))
            size = single.nan_to_num().abs().max().clamp(min=1)
            # Where the sink is nearly all, the rest is a small difference: its direction keeps fewer digits.
            near = 5e-4 if what == "parallel" else 5e-5
            assert torch.allclose(together[b : b + 1] / size, single / size, atol=near, equal_nan=True), what


@pytest.mark.parametrize(("name", "backend"), in_turn(2))
def test_the_models_outputs_are_its_own_to_the_bit(name, backend):
    model = tiny(name, backend)
    inputs = FAMILIES[name].inputs(model, lengths=LENGTHS)
    with torch.inference_mode():
        bare = reader(model)(**inputs).logits
        with Recorder()(reader(model)):
            watched = reader(model)(**inputs).logits
    assert torch.equal(watched, bare)


def test_layers_run_on_the_last_token_alone_are_left_out_and_named():
    """Gemma 4 does so where layers share keys and values and `generate` asks for the last logits only."""
    model = tiny("gemma4", "sdpa")
    inputs = alone(FAMILIES["gemma4"].inputs(model), 0)
    with torch.inference_mode(), Recorder()(model) as trace:
        model(**inputs, logits_to_keep=1)
    assert sorted(trace.record.measured["mass"]) == [0, 1, 2]
    assert {layer: "1 of 16 tokens" in why for layer, why in trace.skipped_layers.items()} == {3: True, 4: True}


@pytest.mark.parametrize(("name", "backend"), that_see_or_hear(in_turn()))
def test_multimodal_prompts_add_up(name, backend):
    family = FAMILIES[name]
    model = tiny(name, backend)
    found = record(reader(model), **family.multimodal_inputs(model))
    assert found.layers == measured_layers(family, model)
    assert found["split_error"].max() < SPLIT
    assert found["marked"].any()


@pytest.mark.parametrize("backend", FAMILIES["gemma3_vision"].backends)
def test_image_tokens_that_see_each_other_are_counted_as_such(backend):
    """Against the model's own maps: an image token sees later ones, and they receive attention from it."""
    family = FAMILIES["gemma3_vision"]
    inputs = family.multimodal_inputs(tiny("gemma3_vision", backend))
    with torch.inference_mode():
        maps = tiny("gemma3_vision", "eager")(**inputs, output_attentions=True).attentions
    found = record(tiny("gemma3_vision", backend), **inputs)
    later = torch.ones(maps[0].shape[-2:]).triu(1).bool()
    assert maps[0][..., later].sum() > 0.1  # or there would be nothing to see
    for i, layer in enumerate(found.layers):
        weights = maps[layer][0]
        mean = weights.sum(dim=1) / (weights > 0).any(dim=0).sum(dim=0)
        assert (torch.from_numpy(found["received"][0, i]) - mean.mean(dim=0)).abs().max() < 1e-5


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_in_a_window_the_mean_runs_over_the_queries_that_reach_the_key(backend):
    model = tiny("mistral_window", backend)
    inputs = alone(FAMILIES["mistral_window"].inputs(model), 0)
    with torch.inference_mode():
        maps = tiny("mistral_window", "eager")(**inputs, output_attentions=True).attentions
    found = record(model, **inputs)
    for layer in found.layers:
        weights = maps[layer][0]
        expected = torch.stack([weights[:, t : t + 8, t].mean(dim=1) for t in range(16)], dim=1)
        assert (torch.from_numpy(found["received"][0, layer]) - expected.mean(dim=0)).abs().max() < 1e-5
        assert (torch.from_numpy(found["received_most"][0, layer]) - expected.amax(dim=1)).abs().max() < 1e-5


def test_layers_with_heads_of_different_widths_stand_beside_each_other():
    from omnisink.verification.families_text import _PATTERN, text_builder

    model = text_builder(
        "Gemma4TextConfig", "Gemma4ForCausalLM", scale=8.0, head_dim=16, global_head_dim=32, sliding_window=64,
        layer_types=_PATTERN, num_kv_shared_layers=2, vocab_size_per_layer_input=128, hidden_size_per_layer_input=8,
    )()  # fmt: skip
    found = record(model, **FAMILIES["gemma4"].inputs(model))
    assert found["sink_value"].shape[-1] == 32
    empty = torch.from_numpy(found["sink_value"][0]).isnan().all(dim=1)
    narrow = [kind == "sliding_attention" for kind in _PATTERN]
    assert [bool(row[16:].all()) and not bool(row[:16].any()) for row in empty][:3] == narrow[:3]
    assert found["split_error"].max() < SPLIT


def call_with(mask, **options):
    """One call of a prefill of five tokens."""
    query = torch.zeros(2, 2, 5, 4)
    return AttentionCall(0, query, query, query, None, options.pop("window", None), options, mask)


def test_without_a_mask_a_query_sees_itself_and_what_is_before_it():
    triangle = torch.ones(5, 5).tril().bool()
    assert torch.equal(visible_keys(call_with(None), None, 5)(slice(0, 5))[0, 0], triangle)
    near = visible_keys(call_with(None, window=2), None, 5)(slice(1, 4))[0, 0]
    assert torch.equal(near, (triangle & ~torch.ones(5, 5).tril(-2).bool())[1:4, :4])


@pytest.mark.parametrize("kind", ["bool", "float", "2-D"])
def test_padding_sees_nothing_and_is_not_seen(kind):
    token_mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()
    keys = torch.ones(5, 5).tril().bool() & token_mask[:, None, None]
    mask = {"bool": keys, "float": torch.zeros(keys.shape).masked_fill(~keys, -1e38 * 3), "2-D": token_mask.long()}[
        kind
    ]
    seen = visible_keys(call_with(mask), token_mask, 5)(slice(0, 5))
    seen = seen if seen.dtype == torch.bool else seen > -1e38
    assert torch.equal(seen.expand(2, 1, 5, 5), keys & token_mask[:, None, :, None])


@pytest.mark.parametrize("mask", ["all", torch.ones(2, 5, 5)], ids=["a word", "3-D"])
def test_masks_that_cannot_be_read_are_refused(mask):
    with pytest.raises(UnsupportedModelError, match=type(mask).__name__):
        visible_keys(call_with(mask), None, 5)


def test_attention_that_is_not_causal_and_has_no_mask_is_refused():
    with pytest.raises(UnsupportedModelError, match="not causal"):
        visible_keys(call_with(None, is_causal=False), None, 5)


def test_a_static_cache_is_measured_up_to_the_prompt():
    from transformers import StaticCache

    model, ids = tiny_llama(), prompt(13, (0, 6))
    expected = record(model, input_ids=ids)
    found = record(
        model, input_ids=ids, past_key_values=StaticCache(config=model.config, max_cache_len=40), use_cache=True
    )
    for name in expected.arrays:
        first, second = (torch.from_numpy(r[name]).double() for r in (found, expected))
        assert torch.allclose(first, second, atol=1e-5, equal_nan=True), name
