"""Reading columns out of attention, against a plain softmax in float64 that holds the whole map."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.maths import decomposition
from omnisink.maths.decomposition import attend, attention_from
from omnisink.maths.sink_part import split_columns, split_sink_part

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def plain_weights(query, key, seen, scaling=None, softcap=None, learned=None):
    """Whole maps (B, H, S, T) in float64; `seen` is (B, S, T) bool. A query that sees nothing has no weight."""
    groups = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query.double() @ key.double().repeat_interleave(groups, dim=1).transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    raised = scores.exp() * seen[:, None]
    total = raised.sum(dim=-1, keepdim=True)
    if learned is not None:
        total = total + learned.double().exp()[None, :, None, None]
    return raised / total.masked_fill(total == 0, 1.0)


@dataclass
class Case:
    """One layer's attention, and which tokens of it are real."""

    query: torch.Tensor
    key: torch.Tensor
    columns: torch.Tensor
    token_mask: torch.Tensor
    seen: torch.Tensor
    options: dict
    kind: str

    def mask(self, rows):
        """What a range of queries sees, in the form the case is about."""
        seen = self.seen[:, None, rows]
        if self.kind == "bool":
            return seen
        hidden = torch.finfo(torch.float32).min if self.kind == "float" else float("-inf")
        return torch.zeros(seen.shape).masked_fill(~seen, hidden)

    @property
    def weights(self):
        """The maps by the plain computation."""
        key = self.key[:, :, : self.seen.shape[-1]]
        return plain_weights(self.query, key, self.seen, *self.options.values())


@st.composite
def cases(draw):
    batch, length, spare = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(0, 3))
    kv_heads, groups, depth = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    wide, dtype = draw(st.integers(1, 5)), draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))

    def noise(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    padding = torch.tensor(draw(st.lists(st.integers(0, length - 1), min_size=batch, max_size=batch)))
    place = torch.arange(length)
    left = draw(st.booleans())
    token_mask = place >= padding[:, None] if left else place < length - padding[:, None]
    window = draw(st.sampled_from([None, 1, 3]))
    seen = (place[None] <= place[:, None]) & (place[None] > place[:, None] - (window or length))
    seen = seen & token_mask[:, None] & token_mask[:, :, None]
    options = {
        "scaling": draw(st.sampled_from([None, 0.3])),
        "softcap": draw(st.sampled_from([None, 1.5])),
        "learned_sink": draw(st.sampled_from([None, noise(kv_heads * groups)])),
    }
    # A static cache holds keys that no query sees; what stands there must not matter.
    key = torch.cat([noise(batch, kv_heads, length, depth), torch.full((batch, kv_heads, spare, depth), 7.0)], 2)
    columns = noise(batch, draw(st.sampled_from([1, kv_heads])), length + spare, wide)
    query = noise(batch, kv_heads * groups, length, depth)
    kind = draw(st.sampled_from(["bool", "float", "-inf"]))
    return Case(query, key.to(dtype), columns, token_mask, seen, options, kind)


@given(case=cases(), block=st.sampled_from([1, 40, 1 << 20]))
@settings(max_examples=200, deadline=None)
def test_read_out_equals_the_whole_map_times_the_columns(case, block):
    heads, length = case.query.shape[1:3]
    received = torch.full((len(case.query), heads, case.key.shape[2]), 0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decomposition, "_BLOCK", {"cpu": block})
        found = attend(case.query, case.key, case.columns, case.mask, received=received, **case.options)
    weights = case.weights
    columns = case.columns.double()[:, :, :length]
    expected = weights @ columns.repeat_interleave(heads // columns.shape[1], dim=1)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5
    assert (received[..., :length] - 0.25 - weights.sum(dim=2)).abs().max() < 1e-5
    assert (received[..., length:] == 0.25).all()
    assert (found.transpose(1, 2)[~case.token_mask] == 0).all()  # padding sees nothing, alone in its batch or not


@given(case=cases())
@settings(max_examples=50, deadline=None)
def test_masses_over_a_partition_sum_to_one_where_something_is_seen(case):
    keys = case.key.shape[2]
    part = torch.randint(0, 3, (len(case.query), 1, keys), generator=torch.Generator().manual_seed(keys))
    marks = torch.nn.functional.one_hot(part, 3).float()
    mass = attend(case.query, case.key, marks, case.mask, **{**case.options, "learned_sink": None}).sum(dim=-1)
    expected = case.seen.any(dim=-1).float()[:, None].expand_as(mass)
    assert torch.allclose(mass, expected, atol=1e-5)
    assert (mass >= 0).all()


@given(case=cases(), factor=st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_read_out_is_linear_in_the_columns(case, factor):
    other = torch.randn(case.columns.shape, generator=torch.Generator().manual_seed(1))
    both = case.columns.float() + factor * other
    found, first, second = (
        attend(case.query, case.key, columns, case.mask, **case.options)
        for columns in (both, case.columns.float(), other)
    )
    assert torch.allclose(found, first + factor * second, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_two_halves_of_the_values_add_up_to_sdpa(dtype):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, 40, 8, generator=generator).to(dtype) for n in (4, 2, 2))
    value = torch.cat([value, value[..., :3]], dim=-1)  # values may be wider than keys
    sinks = torch.zeros(2, 40, dtype=torch.bool)
    sinks[0, [0, 11]] = True
    triangle = torch.ones(40, 40).tril().bool()
    halves = attend(query, key, split_columns(value, sinks), lambda rows: triangle[None, None, rows])
    whole = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    slack = torch.finfo(dtype).eps * 4
    assert (halves[..., :11] + halves[..., 11:] - whole.float()).abs().max() < slack * float(whole.abs().max())
    sink_alone = plain_weights(query, key, triangle[None].expand(2, -1, -1)) * sinks[:, None, None]
    expected = sink_alone @ value.double().repeat_interleave(2, dim=1)
    assert (halves[..., :11] - expected).abs().max() < 1e-5
    assert (halves[1, ..., :11] == 0).all()


def test_no_block_is_larger_than_it_may_be(monkeypatch):
    widths = []
    monkeypatch.setattr(decomposition, "_BLOCK", {"cpu": 64})
    query, key = torch.randn(1, 2, 30, 4), torch.randn(1, 1, 30, 4)

    def mask(rows):
        widths.append(rows.stop - rows.start)
        return torch.ones(1, 1, rows.stop - rows.start, 30, dtype=torch.bool)

    attend(query, key, key, mask)
    assert set(widths) == {1}
    monkeypatch.setattr(decomposition, "_BLOCK", {"cpu": 2 * 30 * 7})
    widths.clear()
    attend(query, key, key, mask)
    assert widths == [7, 7, 7, 7, 2]


@pytest.mark.parametrize("scaling", [None, 0.2])
def test_one_query_looks_at_all_real_keys(scaling):
    generator = torch.Generator().manual_seed(2)
    query, key = torch.randn(2, 6, 9, 4, generator=generator), torch.randn(2, 3, 9, 4, generator=generator)
    token_mask = torch.ones(2, 9, dtype=torch.bool)
    token_mask[1, :4] = False
    position = torch.tensor([3, 5])
    found = attention_from(query, key, position, token_mask, scaling=scaling)
    expected = plain_weights(query, key, token_mask[:, None].expand(-1, 9, -1), scaling)
    for b in range(2):
        assert torch.allclose(found[b].double(), expected[b, :, position[b]], atol=1e-6)
    assert torch.allclose(found.sum(dim=-1), torch.ones(2, 6))
    whole = plain_weights(query, key, torch.ones(2, 9, 9, dtype=torch.bool), scaling)
    assert torch.allclose(attention_from(query, key, position, scaling=scaling)[1].double(), whole[1, :, 5], atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3, 12])
def test_the_sinks_part_is_the_same_whether_few_weights_or_all_values_are_read_out(count):
    generator = torch.Generator().manual_seed(count)
    query = torch.randn(2, 6, 17, 8, generator=generator)
    key, value = (torch.randn(2, 3, 17, 8, generator=generator) for _ in range(2))
    sinks = torch.zeros(2, 17, dtype=torch.bool)
    sinks[0, torch.randperm(17, generator=generator)[:count]] = True
    sinks[1, : count // 2] = True
    sets = torch.rand(2, 2, 17, generator=generator) > 0.5
    triangle = torch.ones(17, 17, dtype=torch.bool).tril()[None, None]
    from_sinks, mass = split_sink_part(query, key, value, sinks, sets, lambda rows: triangle[:, :, rows])
    whole = attend(query, key, split_columns(value, sinks), lambda rows: triangle[:, :, rows])
    torch.testing.assert_close(from_sinks, whole[..., :8])
    marks = sets.transpose(1, 2)[:, None].float()
    torch.testing.assert_close(mass, attend(query, key, marks, lambda rows: triangle[:, :, rows]))
