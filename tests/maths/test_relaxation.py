"""Relaxed rows against a softmax written out in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.maths.relaxation import attend_to_all, choose_rows, replace_rows

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}


def plain_attention(query, key, value, token_mask, scaling, softcap, learned_sink):
    """Attention of every head and row over the real keys, one by one."""
    batch, heads, rows, depth = query.shape
    groups = heads // key.shape[1]
    out = torch.zeros(batch, rows, heads, value.shape[-1], dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            keys = key[b, h // groups][token_mask[b]].double()
            values = value[b, h // groups][token_mask[b]].double()
            scores = query[b, h].double() @ keys.T * (depth**-0.5 if scaling is None else scaling)
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if learned_sink is not None:
                scores = torch.cat([scores, learned_sink[h].double().expand(rows, 1)], dim=1)
            out[b, :, h] = scores.softmax(dim=1)[:, : len(keys)] @ values
    return out


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    rows=st.integers(1, 4),
    length=st.integers(1, 11),
    depth=st.integers(1, 9),
    value_depth=st.integers(1, 9),
    dtype=st.sampled_from(list(TOLERANCE)),
    scaling=st.sampled_from([None, 0.3]),
    softcap=st.sampled_from([None, 2.0]),
    learned=st.booleans(),
    padded=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_attention_to_all_equals_its_definition(
    seed, batch, kv_heads, groups, rows, length, depth, value_depth, dtype, scaling, softcap, learned, padded
):
    generator = torch.Generator().manual_seed(seed)
    heads = kv_heads * groups
    query = torch.randn(batch, heads, rows, depth, generator=generator).to(dtype)
    key = torch.randn(batch, kv_heads, length, depth, generator=generator).to(dtype)
    value = torch.randn(batch, kv_heads, length, value_depth, generator=generator).to(dtype)
    learned_sink = torch.randn(heads, generator=generator).to(dtype) if learned else None
    token_mask = torch.rand(batch, length, generator=generator) > 0.4
    token_mask[:, -1] = True
    token_mask = token_mask if padded else torch.ones_like(token_mask)
    out = attend_to_all(
        query, key, value, token_mask if padded else None, scaling=scaling, softcap=softcap, learned_sink=learned_sink
    )
    expected = plain_attention(query, key, value, token_mask, scaling, softcap, learned_sink)
    assert out.shape == expected.shape
    assert out.dtype == dtype
    assert (out.double() - expected).abs().max() <= TOLERANCE[dtype] * max(1.0, float(value.abs().max()))


@given(seed=st.integers(0, 10_000), batch=st.integers(1, 3), length=st.integers(1, 9), data=st.data())
@settings(max_examples=80, deadline=None)
def test_chosen_rows_come_first_and_in_order(seed, batch, length, data):
    chosen = torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) > 0.6
    capacity = data.draw(st.integers(1, length))
    index, valid = choose_rows(chosen, capacity)
    for b in range(batch):
        expected = chosen[b].nonzero().flatten().tolist()[:capacity]
        assert index[b][valid[b]].tolist() == expected
        assert len(set(index[b].tolist())) == capacity  # distinct, so that a scatter writes each position once


def test_rows_that_were_not_chosen_keep_their_output():
    output = torch.randn(2, 5, 3, 4)
    before = output.clone()
    chosen = torch.tensor([[True, False, False, True, False], [False] * 5])
    index, valid = choose_rows(chosen, 3)
    rows = torch.full((2, 3, 3, 4), 7.0)
    after = replace_rows(output, rows, index, valid)
    assert (after[chosen] == 7.0).all()
    assert torch.equal(after[~chosen], before[~chosen])


def test_replacing_rows_lets_the_gradient_through():
    output = torch.randn(1, 3, 1, 2, requires_grad=True)
    index, valid = choose_rows(torch.tensor([[False, True, False]]), 1)
    replace_rows(output, torch.zeros(1, 1, 1, 2), index, valid).sum().backward()
    assert output.grad is not None
    assert output.grad[0, :, 0, 0].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("length", [1, 64])
def test_one_row_over_one_key_is_its_value(length):
    value = torch.arange(length, dtype=torch.float32).view(1, 1, length, 1)
    token_mask = torch.zeros(1, length, dtype=torch.bool)
    token_mask[0, -1] = True
    out = attend_to_all(torch.randn(1, 2, 1, 4), torch.randn(1, 1, length, 4), value, token_mask)
    assert out.flatten().tolist() == [length - 1.0] * 2
