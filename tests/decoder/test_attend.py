"""A method that answers the attention of a layer itself, alone and before others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from transformers import DynamicCache

from omnisink import OmnisinkError, OutRo
from omnisink.methods import Method
from tests.decoder.test_attachment import fingerprint
from tests.reference_outro import prompt, tiny_llama


@dataclass(frozen=True)
class Own(Method):
    """Attend as a Llama does, at some layers, and count how often."""

    layers: tuple[int, ...] = (1, 2, 4)
    scale: float = 1.0

    def attend(self, call, context):
        if call.layer not in self.layers:
            return None
        counts = context.record.measured.setdefault("answered", {})
        counts[call.layer] = counts.get(call.layer, 0) + 1
        first = call.key.shape[2] - call.query.shape[2]
        seen = torch.ones(call.query.shape[2], call.key.shape[2], dtype=torch.bool).tril(first)
        key, value = (x.repeat_interleave(call.query.shape[1] // x.shape[1], dim=1) for x in (call.key, call.value))
        return self.scale * F.scaled_dot_product_attention(call.query, key, value, seen).transpose(1, 2)

    def head_output(self, call, output, context):
        return output


@dataclass(frozen=True)
class Another(Own):
    """The same, of another class."""


@dataclass(frozen=True)
class Narrow(Own):
    """Answer with the heads cut off."""

    def attend(self, call, context):
        answer = super().attend(call, context)
        return None if answer is None else answer[:, :, :2]


def passes(model, ids):
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        found = [model(input_ids=ids, past_key_values=cache).logits]
        found += [model(input_ids=torch.full((len(ids), 1), t), past_key_values=cache).logits for t in (20, 31)]
    return torch.cat(found, dim=1)


def own_function_calls(model, monkeypatch):
    """Count how often each layer's own attention function runs."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    calls = []
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def counted(module, *args, **kwargs):
        calls.append(module.layer_idx)
        return own(module, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", counted)
    return calls


def test_a_layer_is_answered_in_place_of_its_own_attention(monkeypatch):
    model, ids = tiny_llama(), prompt(9)
    calls = own_function_calls(model, monkeypatch)
    expected = passes(model, ids)
    assert sorted(set(calls)) == [0, 1, 2, 3, 4, 5]
    before = fingerprint(model)
    calls.clear()
    with Own()(model) as trace:
        found = passes(model, ids)
    assert (found - expected).abs().max() < 1e-5
    assert calls == [0, 3, 5] * 3
    assert trace.record.measured["answered"] == dict.fromkeys((1, 2, 4), 3)
    assert fingerprint(model) == before
    assert torch.equal(passes(model, ids), expected)
    with Own(scale=0.5)(model):
        assert (passes(model, ids) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("first", [True, False])
def test_other_methods_act_on_what_it_answers(first):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    with OutRo()(model) as trace:
        expected = passes(model, ids)
    outer, inner = (Own(), OutRo()) if first else (OutRo(), Own())
    with outer(model) as one, inner(model) as two:
        found = passes(model, ids)
    assert (found - expected).abs().max() < 1e-5
    assert (two if first else one).rotated_tokens == trace.rotated_tokens


def test_it_is_asked_by_every_backend_and_has_no_weights_to_give():
    model, ids = tiny_llama("eager"), prompt(9)
    with torch.inference_mode(), Own(scale=0.5)(model):
        maps = model(input_ids=ids, output_attentions=True).attentions
        plain = model(input_ids=ids).logits
    assert sum(one is not None for one in maps) == 3
    with torch.inference_mode():
        assert (model(input_ids=ids).logits - plain).abs().max() > 1e-5


def test_two_answers_to_one_layer_are_refused():
    model, ids = tiny_llama(), prompt(9)
    before = fingerprint(model)
    with pytest.raises(OmnisinkError, match="Another answers the attention of layer 1, which another method"):
        with Own()(model), Another()(model):
            passes(model, ids)
    with Own(layers=(1,))(model) as one, Another(layers=(2,))(model) as two:
        passes(model, ids)
    assert (list(one.record.measured["answered"]), list(two.record.measured["answered"])) == ([1], [2])
    assert fingerprint(model) == before


def test_an_answer_of_another_shape_is_refused():
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match=r"Narrow answers .* shape \(1, 9, 2, 12\), but \(B, S, H, D'\) is"):
        with Narrow()(model):
            passes(model, prompt(9))


def test_a_batch_gives_each_sequence_what_it_gets_alone():
    model = tiny_llama()
    rows = [prompt(9), prompt(9, (3,), seed=2)]
    with Own(scale=0.5)(model):
        together = passes(model, torch.cat(rows))
        alone = [passes(model, row) for row in rows]
    assert (together - torch.cat(alone)).abs().max() < 1e-5
