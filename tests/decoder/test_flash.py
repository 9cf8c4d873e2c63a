"""FlashAttention's conventions, without its kernels: there is no GPU here to run them on.

transformers gives that backend a 2-D mask, or none, and transposes nothing back. A stand-in with those conventions
takes the kernel's place under its name, so that everything around it is the real code.
"""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache
from transformers.modeling_utils import AttentionInterface

from omnisink import OutRo
from tests.reference_outro import prompt, tiny_llama


def stand_in(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, **kwargs):
    """Causal attention of unpadded sequences, each by itself, as the kernel computes it."""
    assert attention_mask is None or attention_mask.dim() == 2
    _, heads, length, _ = query.shape
    groups = heads // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    past = key.shape[2] - length
    causal = torch.ones(length, key.shape[2], dtype=torch.bool).tril(past)[None, None]
    if attention_mask is not None:
        causal = causal & attention_mask[:, None, None, : key.shape[2]].bool()
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~causal, float("-inf"))
    output = scores.softmax(dim=-1).nan_to_num() @ value  # rows of padding attend to nothing
    return output.transpose(1, 2), None


@pytest.fixture(params=["flash_attention_2", "flash_attention_3"])
def flash(request, monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, request.param, stand_in)
    model = tiny_llama()
    model.config._attn_implementation = request.param
    return model


def passes(model, inputs):
    cache = DynamicCache(config=model.config)
    mask = inputs["attention_mask"]
    with torch.inference_mode():
        found = [model(**inputs, past_key_values=cache).logits]
        for token in (20, 31):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            ids = torch.full((len(mask), 1), token)
            found.append(model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits)
    return found


@pytest.mark.parametrize("padding", [0, 3])
def test_the_same_as_sdpa(flash, padding):
    ids = torch.cat([prompt(13, (3, 7)), prompt(13, (0,))])
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    model = tiny_llama()
    with OutRo()(model) as trace:
        expected = passes(model, inputs)
    with OutRo()(flash) as found_trace:
        found = passes(flash, inputs)
    token_mask = mask.bool()
    assert (found[0][token_mask] - expected[0][token_mask]).abs().max() < 1e-5
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(found[1:], expected[1:], strict=True))
    assert found_trace.relaxed == trace.relaxed
    assert found_trace.rotated_tokens == trace.rotated_tokens
