"""Shares of sets of keys, against maps in float64, and the identities that other weights have to obey."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.maths import decomposition, sets
from omnisink.maths.sets import complement, difference, give, reweigh, set_shares
from tests.maths.test_decomposition import cases


def marks_of(case, count, overlap, by_head, seed):
    """Random sets over all keys of a case, those that no query sees included."""
    batch, kv_heads, keys = case.key.shape[:3]
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, kv_heads, count, keys) if by_head else (batch, count, keys)
    if overlap:
        return torch.rand(shape, generator=generator) > 0.5
    owner = torch.randint(0, count + 1, (*shape[:-2], keys), generator=generator)
    return torch.stack([owner == x for x in range(count)], dim=-2)


def plain_shares(case, marks):
    """``O_X`` (B, H, S, X, D') and ``m_X`` (B, H, S, X) by whole maps."""
    length, heads = case.seen.shape[-1], case.query.shape[1]
    groups = heads // case.key.shape[1]
    weights = case.weights
    value = wide(case.columns, case).double()[:, :, :length].repeat_interleave(groups, dim=1)
    if marks.dim() == 3:
        marks = marks[:, None].expand(-1, case.key.shape[1], -1, -1)
    chosen = marks[..., :length].double().repeat_interleave(groups, dim=1)
    parts = torch.einsum("bhst,bhxt,bhtd->bhsxd", weights, chosen, value)
    return parts, torch.einsum("bhst,bhxt->bhsx", weights, chosen), weights, value


def wide(columns, case):
    """The columns of a case as values of every key/value head."""
    return columns.expand(-1, case.key.shape[1], -1, -1)


def found_shares(case, marks, few):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "_are_few", lambda *_: few)
        patch.setattr(decomposition, "_BLOCK", {"cpu": 40})
        return set_shares(case.query, case.key, wide(case.columns, case), marks, case.mask, **case.options)


@given(
    case=cases(), count=st.integers(1, 4), few=st.booleans(), by_head=st.booleans(), overlap=st.booleans(),
    seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_shares_equal_those_of_whole_maps(case, count, few, by_head, overlap, seed):
    marks = marks_of(case, count, overlap, by_head, seed)
    found = found_shares(case, marks, few)
    output, mass, weights, _ = plain_shares(case, marks)
    assert found.output.dtype == found.mass.dtype == torch.float32
    assert found.output.shape == output.shape
    assert (found.output - output).abs().max() < 1e-5
    assert (found.mass - mass).abs().max() < 1e-5
    assert (found.seen - weights.sum(dim=-1)).abs().max() < 1e-5


@given(case=cases(), count=st.integers(1, 3), few=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_factors_are_what_their_logarithms_do_to_the_scores(case, count, few, seed):
    """``sum w O / sum w m`` is attention with ``log w`` added to the scores, with caps and learned sinks too."""
    marks = complement(marks_of(case, count, False, False, seed))
    generator = torch.Generator().manual_seed(seed + 1)
    factors = torch.rand(len(case.query), case.query.shape[1], case.query.shape[2], count + 1, generator=generator) * 2
    factors[..., 0] += 0.1
    found = reweigh(found_shares(case, marks, few), factors)
    _, _, weights, value = plain_shares(case, marks)
    owner = marks[..., : case.seen.shape[-1]].double()
    scaled = weights * torch.einsum("bhsx,bxt->bhst", factors.double(), owner)
    learned = (1 - weights.sum(dim=-1)) * case.seen.any(dim=-1)[:, None]
    total = scaled.sum(dim=-1)
    expected = torch.einsum("bhst,bhtd->bhsd", scaled, value) / (total + learned).masked_fill(total == 0, 1)[..., None]
    assert (found - expected).abs().max() < 2e-5
    raw = reweigh(found_shares(case, marks, few), factors, renormalise=False)
    assert (raw - torch.einsum("bhst,bhtd->bhsd", scaled, value)).abs().max() < 1e-5


def test_a_factor_of_one_set_equals_a_score_that_is_higher_by_its_logarithm():
    """The identity once more with scores in place of weights, as a mask that is added would change them."""
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, n, 9, 4, generator=generator) for n in (4, 2, 2))
    marks = torch.zeros(1, 1, 9, dtype=torch.bool)
    marks[..., [1, 5]] = True
    triangle = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    added = torch.zeros(9, 9).masked_fill(~triangle[0, 0], float("-inf")) + marks[0].float() * 0.3**0.5
    factors = torch.tensor([0.3**0.5]).exp()
    shares = set_shares(query, key, value, complement(marks), lambda rows: triangle[:, :, rows])
    found = reweigh(shares, torch.stack([factors[0], torch.ones(())]))
    same = torch.nn.functional.scaled_dot_product_attention(query, key, value, added, enable_gqa=True)
    torch.testing.assert_close(found, same, atol=1e-5, rtol=1e-5)


@given(
    case=cases(), few=st.booleans(), share=st.floats(0, 1), seed=st.integers(0, 999), to=st.integers(0, 2)
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_what_is_taken_from_sets_is_given_to_another_in_proportion(case, few, share, seed, to):
    """``o' = o + (p - 1) O_sink + (1 - p) (m_sink / m_N) O_N``, and weights that sum to what they did."""
    marks = marks_of(case, 3, False, False, seed)
    shares = found_shares(case, marks, few)
    weights = give(shares, [share] * 3, to)
    assert torch.equal(weights, give(shares, torch.full((3,), share), to))
    output, mass, maps, value = plain_shares(case, marks)
    others = [x for x in range(3) if x != to]
    freed = (1 - share) * mass[..., others].sum(dim=-1)
    has = mass[..., to] > 0
    ratio = torch.where(has, freed / mass[..., to].masked_fill(~has, 1), 0.0)
    whole = torch.einsum("bhst,bhtd->bhsd", maps, value)
    moved = whole - (1 - share) * output[..., others, :].sum(dim=-2) + ratio[..., None] * output[..., to, :]
    expected = torch.where(has[..., None], moved, whole)
    # Where a set has next to no attention, what it is given is divided by next to nothing.
    sound = (mass[..., to] > 1e-3) | ~has
    assert ((whole + difference(shares, weights) - expected).abs().amax(dim=-1) * sound).max() < 1e-4
    total = (weights * shares.mass).sum(dim=-1)
    assert ((total - shares.mass.sum(dim=-1)).abs() * sound).max() < 1e-5


def test_nothing_is_taken_where_nobody_can_receive_it():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(3))
    marks = torch.zeros(1, 2, 5, dtype=torch.bool)
    marks[0, 0, 0] = marks[0, 1, 3] = True  # the receiver is seen from the fourth row on
    triangle = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    shares = set_shares(query, key, value, marks, lambda rows: triangle[:, :, rows])
    change = difference(shares, give(shares, torch.tensor([0.4, 1.0]), 1))
    assert torch.equal(change[:, :, :3], torch.zeros_like(change[:, :, :3]))
    assert (change[:, :, 3:].abs().amax(dim=-1) > 0).all()
    assert torch.equal(difference(shares, give(shares, torch.ones(2), 1)), torch.zeros_like(change))


def test_weights_of_rows_are_held_at_once_only_where_they_are_few():
    query, key = torch.zeros(1, 4, 2, 8), torch.zeros(1, 2, 1000, 8)
    assert sets._are_few(query, key, 8)
    assert not sets._are_few(torch.zeros(1, 4, 1000, 8), key, 8)
    assert not sets._are_few(query, torch.zeros(1, 2, (1 << 21) // 4, 8), 8)


def test_memory_grows_with_the_keys_and_not_with_their_square(monkeypatch):
    """No tensor of a whole map is made: the largest is a block of weights."""
    largest = []
    own = torch.Tensor.new_empty

    def noted(self, *size, **options):
        made = own(self, *size, **options)
        largest.append(made.numel())
        return made

    monkeypatch.setattr(decomposition, "_BLOCK", {"cpu": 1 << 12})
    monkeypatch.setattr(torch.Tensor, "new_empty", noted)
    query = key = torch.randn(1, 1, 600, 4)
    marks = torch.rand(1, 2, 600) > 0.5
    triangle = torch.ones(600, 600, dtype=torch.bool).tril()[None, None]
    set_shares(query, key, key, marks, lambda rows: triangle[:, :, rows])
    assert max(largest) < 600 * 20
