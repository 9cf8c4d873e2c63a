"""A residual stream that is not finite is told as such, by every method, and is never "no sinks"."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OmnisinkError, OutRo, find_sinks
from omnisink.maths.finite import cause_of_nonfinite, nonfinite_names
from omnisink.methods import base
from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads
from omnisink.methods.controls import OutRoControl
from omnisink.methods.criteria import Positions
from omnisink.methods.knockout import KnockoutTokens
from omnisink.methods.measure import record
from omnisink.models.finite import finite_logits
from tests.decoder.test_no_waiting import NoReads
from tests.reference_outro import prompt, tiny_llama

BAD_TOKEN = 9
KINDS = {"NaN": math.nan, "inf": math.inf}
METHODS = {
    "OutRo": OutRo(gamma=1.0),
    "OutRo switched off": OutRo(gamma=0.0, relax=False),
    "control": OutRoControl(gamma=1.0, direction="random"),
    "sink values": ReplaceSinkValue(),
    "hidden": KnockoutTokens(Positions((0,))),
    "heads": ZeroHeads(((1, 0),)),  # looks at no residual stream
}


@pytest.fixture(params=[True, False], ids=["host looks", "host may not look"])
def looking(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(base, "is_eager_cpu", lambda _: False)
    return request.param


def damaged(layer=None, value=math.nan, **settings):
    """A tiny Llama with one bad weight: in the embedding of `BAD_TOKEN`, or behind a layer's attention."""
    model = tiny_llama(**settings)
    with torch.no_grad():
        if layer is None:
            model.model.embed_tokens.weight[BAD_TOKEN, 3] = value
        else:
            model.model.layers[layer].self_attn.o_proj.weight[2, 2] = value
    return model


def with_bad_token(at=5):
    ids = prompt(11, (0, 4))
    ids[0, at] = BAD_TOKEN
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_find_sinks_names_layer_token_and_weight(kind):
    says = rf"{kind} enters layer 0 \(first at token 5\), and 3 more after it\. .*model\.embed_tokens\.weight"
    with pytest.raises(OmnisinkError, match=says):
        find_sinks(damaged(value=KINDS[kind]), input_ids=with_bad_token())


def test_the_sequence_of_a_batch_is_named():
    ids = torch.cat([prompt(11, (0, 4)), with_bad_token(7)])
    with pytest.raises(OmnisinkError, match=r"first at token 7 of sequence 1"):
        find_sinks(damaged(), input_ids=ids)


@pytest.mark.parametrize("layer", [0, 2, 3, 4, 5])
def test_what_goes_wrong_in_the_middle_is_named_where_it_enters(layer):
    """Layers 4 and 5 are the last two, at which no sinks are looked for."""
    says = f"NaN enters layer {layer + 1} " if layer < 3 else "leaves the last layer"
    weight = rf"{says}.*layers\.{layer}\.self_attn\.o_proj\.weight"
    with pytest.raises(OmnisinkError, match=weight):
        find_sinks(damaged(layer), input_ids=prompt(11))
    model = damaged(layer)
    with pytest.raises(OmnisinkError, match=weight), OutRo()(model), torch.inference_mode():
        model(input_ids=prompt(11))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells(method, looking):
    model = damaged()
    with pytest.raises(OmnisinkError, match="the residual stream is not finite"), torch.inference_mode():
        with METHODS[method](model):
            model(input_ids=with_bad_token())
            assert not looking, "on the CPU it is told at once"


def test_the_recorder_tells(looking):
    with pytest.raises(OmnisinkError, match="the residual stream is not finite"):
        record(damaged(), input_ids=with_bad_token())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_may_hold_anything(kind, side, looking):
    model, ids = tiny_llama(), prompt(11, (2, 6))
    mask = torch.ones_like(ids)
    padding = slice(0, 2) if side == "left" else slice(9, None)
    mask[:, padding] = 0
    gone = ~mask.bool()[..., None]
    with torch.inference_mode():
        with OutRo()(model) as trace:
            expected = model(input_ids=ids, attention_mask=mask).logits
        sinks = trace.sinks.to_json()
        for module in (model.model.layers[1], model.model.norm):
            module.register_forward_hook(lambda _, args, output: output.masked_fill(gone, KINDS[kind]))
        with OutRo()(model) as trace:
            # After the method has looked: a key of NaN would be in every score, masked or not.
            model.model.layers[2].register_forward_pre_hook(
                lambda _, args: (args[0].masked_fill(gone, 0.0), *args[1:])
            )
            found = model(input_ids=ids, attention_mask=mask).logits
        assert not trace.record.finite.magnitudes[2].isfinite().all()
    assert trace.sinks.to_json() == sinks
    assert (found - expected)[mask.bool()].abs().max() < 1e-5
    assert not found[~mask.bool()].isfinite().any()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_generated_token_tells(cache, looking):
    model = damaged()
    held = DynamicCache() if cache == "dynamic" else StaticCache(config=model.config, max_cache_len=24)
    with pytest.raises(OmnisinkError, match="at a generated token"), torch.inference_mode(), OutRo()(model) as trace:
        model(input_ids=prompt(11).clamp(min=10), past_key_values=held)
        assert trace.sinks.layers == []
        model(input_ids=torch.tensor([[20]]), past_key_values=held)
        model(input_ids=torch.tensor([[BAD_TOKEN]]), past_key_values=held)
        assert not looking
        model(input_ids=torch.tensor([[20]]), past_key_values=held)


def test_an_earlier_prompt_of_the_block_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(base, "is_eager_cpu", lambda _: False)
    model = damaged()
    with (
        pytest.raises(OmnisinkError, match=r"NaN enters layer 0, and"),
        torch.inference_mode(),
        OutRo()(model) as trace,
    ):
        for ids in (prompt(9), with_bad_token(), prompt(11), prompt(13)):
            model(input_ids=ids)
        assert trace._record.sinks


def test_reading_the_trace_in_the_block_tells(monkeypatch):
    monkeypatch.setattr(base, "is_eager_cpu", lambda _: False)
    model = damaged()
    with torch.inference_mode(), pytest.raises(OmnisinkError, match="not finite"), OutRo()(model) as trace:
        model(input_ids=with_bad_token())
        with pytest.raises(OmnisinkError, match="not finite"):
            _ = trace.sinks


def test_float16_that_overflows_says_what_to_do():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 3e4
        model.model.layers[1].mlp.up_proj.weight *= 3e3
    ids = prompt(11, (0, 4))
    assert find_sinks(model, input_ids=ids).examined  # float32 holds it
    with pytest.raises(OmnisinkError, match=r"(inf|NaN).*enters layer 2.*float16 ends at 65504.*bfloat16"):
        find_sinks(model.half(), input_ids=ids)


def test_nothing_waits_for_it(monkeypatch):
    from omnisink.maths import prompts, rotation, sinks
    from omnisink.methods import outro

    for module in (sinks, rotation, prompts, outro, base):
        monkeypatch.setattr(module, "is_eager_cpu", lambda _: False)
    model, cache = damaged(), DynamicCache()
    with pytest.raises(OmnisinkError, match="not finite"), OutRo()(model), torch.inference_mode():
        with NoReads():
            for ids in (with_bad_token(), torch.tensor([[20]])):
                model(input_ids=ids, past_key_values=cache)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_without_a_method_tell_too(kind, monkeypatch):
    from omnisink.models import finite

    model, ids = damaged(3, KINDS[kind]), prompt(11)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 3, "do_sample": False}
    for look in (True, False):
        monkeypatch.setattr(finite, "is_eager_cpu", lambda _, look=look: look)
        with pytest.raises(OmnisinkError, match=r"logits are not finite.*layers\.3"), finite_logits(model):
            model.generate(input_ids=ids, **options)
    assert not model.lm_head._forward_hooks
    sound = tiny_llama()
    with finite_logits(sound):
        sound.generate(input_ids=ids, suppress_tokens=[3, 4], **options)


def test_weights_are_named_and_few():
    assert nonfinite_names(damaged().named_parameters()) == ["model.embed_tokens.weight"]
    named = [(str(i), torch.tensor([math.nan])) for i in range(9)]
    assert nonfinite_names(named) == ["0", "1", "2"]
    others = [("meta", torch.empty(2, device="meta")), ("whole", torch.ones(2, dtype=torch.int8))]
    small = torch.tensor([1.0, math.nan]).to(torch.float8_e5m2)
    assert nonfinite_names([*others, ("small", small)]) == ["small"]
    assert "weights in memory are finite" in cause_of_nonfinite(others)
    assert "The weights are finite" in cause_of_nonfinite(tiny_llama().named_parameters())
