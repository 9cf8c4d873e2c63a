"""Cosines, channels and similarities, against loops in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from omnisink.maths.geometry import (
    linear_cka,
    masked_mean,
    mean_cosine,
    mean_pairwise_cosine,
    part_of_output,
    principal_components,
    top_channels,
)


@st.composite
def vectors(draw):
    """(B, H, S, D) with a zero vector here and there, and (B, S) tokens to keep, in which padding holds NaN."""
    shape = [draw(st.integers(1, n)) for n in (3, 3, 9, 6)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    made = (torch.randn(shape, generator=generator) * draw(st.sampled_from([1e-4, 1.0, 1e4]))).to(dtype)
    made[torch.rand(shape[:3], generator=generator) < 0.2] = 0
    include = torch.rand(shape[0], shape[2], generator=generator) < 0.7
    made.transpose(1, 2)[~include] = float("nan")
    return made, include


def same(found, expected):
    """Equal to float32's rounding, or both NaN."""
    assert found.dtype == torch.float32
    return torch.allclose(found.double(), torch.as_tensor(expected).double(), atol=2e-6, equal_nan=True)


def mean_of(values):
    """Mean of a list; NaN where it is empty."""
    return sum(values) / len(values) if values else math.nan


@given(case=vectors())
@settings(max_examples=100, deadline=None)
def test_means_over_tokens_equal_loops(case):
    made, include = case
    other = torch.randn(made.shape, generator=torch.Generator().manual_seed(5))
    average, with_one, with_own, pairs, shares = (torch.zeros(made.shape[:2], dtype=torch.float64) for _ in range(5))
    for b, h in itertools.product(*map(range, made.shape[:2])):
        kept = include[b].nonzero().flatten().tolist()
        rows, others = made[b, h].double(), other[b, h].double()
        average[b, h] = mean_of([float(rows[t, 0]) for t in kept])
        with_one[b, h] = mean_of([float(cosine_similarity(rows[t], others[0], dim=0)) for t in kept])
        with_own[b, h] = mean_of([float(cosine_similarity(rows[t], others[t], dim=0)) for t in kept])
        shares[b, h] = mean_of([float(rows[t] @ others[t] / (others[t] @ others[t])) for t in kept])
        there = [t for t in kept if rows[t].norm() > 0]
        pairs[b, h] = mean_of(
            [float(cosine_similarity(rows[s], rows[t], dim=0)) for s, t in itertools.combinations(there, 2)]
        )
    scale = made.float().nan_to_num().abs().max().clamp(min=1)
    assert same(masked_mean(made[..., 0], include) / scale, average / scale)
    assert same(mean_cosine(made, other[:, :, :1], include), with_one)
    assert same(mean_cosine(made, other, include), with_own)
    assert same(mean_pairwise_cosine(made, include), pairs)
    assert torch.allclose(part_of_output(made, other, include).double(), shares, rtol=1e-4, atol=1e-5, equal_nan=True)


@given(case=vectors())
@settings(max_examples=30, deadline=None)
def test_shares_of_parts_add_up_to_one(case):
    whole, include = case[0].float(), case[1]
    part = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1)) * 0.5 * whole
    shares = part_of_output(part, whole, include) + part_of_output(whole - part, whole, include)
    there = whole.nan_to_num().norm(dim=-1) > 0
    expected = masked_mean(there.float(), include)
    assert torch.allclose(shares, expected, atol=1e-5, equal_nan=True)


def test_parallel_vectors_have_pairwise_cosine_one_and_opposite_ones_minus_one():
    include = torch.ones(1, 2, dtype=torch.bool)
    assert mean_pairwise_cosine(torch.tensor([[[3.0, 4.0], [0.3, 0.4]]]), include).item() == pytest.approx(1.0)
    assert mean_pairwise_cosine(torch.tensor([[[3.0, 4.0], [-0.3, -0.4]]]), include).item() == pytest.approx(-1.0)
    assert math.isnan(mean_pairwise_cosine(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), include).item())


def test_pairwise_cosine_of_many_almost_orthogonal_vectors_does_not_drift():
    made = torch.randn(1, 5000, 64, generator=torch.Generator().manual_seed(0))
    found = mean_pairwise_cosine(made, torch.ones(1, 5000, dtype=torch.bool)).item()
    unit = torch.nn.functional.normalize(made[0].double(), dim=-1)
    gram = unit @ unit.T
    assert found == pytest.approx(float((gram.sum() - gram.trace()) / (5000 * 4999)), abs=1e-8)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_top_channels_are_the_largest_in_absolute_value(count):
    made = torch.tensor([[1.0, -9.0, 2.0, 4.0, -3.0], [0.1, 0.2, -0.3, 0.4, 0.5]])
    order = [[1, 3, 4, 2, 0], [4, 3, 2, 1, 0]]
    found = top_channels(made, count)
    assert found.dtype == torch.bool
    assert [set(row.nonzero().flatten().tolist()) for row in found] == [set(o[:count]) for o in order]


@pytest.mark.parametrize("length", [6, 40])  # more channels than tokens, and fewer
def test_cka_knows_rotations_and_scales_and_nothing_else(length):
    generator = torch.Generator().manual_seed(length)
    first = torch.randn(length, 12, generator=generator)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q
    assert linear_cka(first, 3 * first @ turn + 5).item() == pytest.approx(1.0, abs=1e-6)
    other = torch.randn(length, 9, generator=generator)
    x, y = (t.double().numpy() - t.double().numpy().mean(axis=0) for t in (first, other))
    expected = ((x.T @ y) ** 2).sum() / (((x.T @ x) ** 2).sum() * ((y.T @ y) ** 2).sum()) ** 0.5
    assert linear_cka(first, other).item() == pytest.approx(float(expected))
    assert linear_cka(first, other).item() < 0.9
    assert math.isnan(linear_cka(first, torch.ones(length, 3)).item())


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_principal_components_equal_those_of_a_singular_value_decomposition(shape, seed):
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * torch.linspace(1, 3, shape[1]) + 5
    places, explained, origin = principal_components(made, 2)
    wide = made.double()
    centred = wide - wide.mean(dim=0)
    left, size, right = torch.linalg.svd(centred, full_matrices=False)
    there = min(2, shape[0] - 1, shape[1])
    assert places.shape == (shape[0], 2)
    for i in range(there):
        expected = left[:, i] * size[i]
        sign = float((places[:, i] @ expected).sign())
        assert float(places[:, i].max()) == pytest.approx(float(places[:, i].abs().max()))
        assert torch.allclose(places[:, i], sign * expected, atol=1e-6)
        assert float(explained[i]) == pytest.approx(float(size[i] ** 2 / size.square().sum()))
        assert float(origin[i]) == pytest.approx(float(-sign * wide.mean(dim=0) @ right[i]), abs=1e-6)
    assert not places[:, there:].any()
    assert not explained[there:].any()


def test_equal_vectors_have_no_principal_component():
    places, explained, origin = principal_components(torch.full((5, 3), 2.5))
    assert not places.any()
    assert not explained.any()
    assert not origin.any()
