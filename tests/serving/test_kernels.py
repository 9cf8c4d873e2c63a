"""The operators for CPUs give what the plain ones of `omnisink.maths` give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from omnisink.maths.rotation import rotate as rotate_reference
from omnisink.maths.rotation import sink_direction
from omnisink.maths.sinks import massive_activation_sinks
from omnisink.serving.kernels import find_sinks_kernel, point_to_sinks, rotate

SEEDS = st.integers(0, 10_000)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    seed=SEEDS,
    length=st.integers(1, 17),
    width=st.integers(1, 13),
    peaks=st.lists(st.sampled_from([90.0, 100.0, 600.0, 700.0, 5_000.0, -30_000.0]), max_size=5),
    ties=st.booleans(),
    least=st.sampled_from([0.0, 1.0, 100.0]),
    ratio=st.sampled_from([1.0, 7.0, 300.0, 1000.0]),
)
@settings(max_examples=300, deadline=None)
def test_the_same_sinks_to_the_token(
    seed: int, length: int, width: int, peaks: list[float], ties: bool, least: float, ratio: float
) -> None:
    hidden = noise(seed, length, width)
    for number, peak in enumerate(peaks):
        hidden[(seed + 5 * number) % length, (seed * 3 + number) % width] = peak
    hidden = hidden.round() if ties else hidden
    expected = massive_activation_sinks(hidden[None], min_activation=least, median_ratio=ratio)[0]
    found = np.ones(length, bool)
    assert find_sinks_kernel(hidden.numpy(), np.float32(least), np.float32(ratio), found) == bool(expected.any())
    assert found.tolist() == expected.tolist()


@given(seed=SEEDS, count=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_the_same_direction(seed: int, count: int) -> None:
    sinks = torch.zeros(9, dtype=torch.bool)
    sinks[torch.randperm(9, generator=torch.Generator().manual_seed(seed))[:count]] = True
    value = noise(seed, 9, 12, 8)[:, 3:6]  # As queries, keys and values come from one product.
    value[:, 1] = 0
    direction = np.ones((3, 8), np.float32)
    point_to_sinks(value.numpy(), sinks.numpy(), direction)
    expected = sink_direction(value.transpose(0, 1)[None], sinks[None], 3)[0]
    torch.testing.assert_close(torch.from_numpy(direction), expected, rtol=0, atol=1e-6)
    assert not direction[1].any()


@given(seed=SEEDS, strength=st.sampled_from([0.3, 3.0, -0.5, -2.0]), tau=st.sampled_from([0.02, 0.1, 2.0]))
@settings(max_examples=100, deadline=None)
def test_the_same_rotation_and_exactly_none_where_there_is_none(seed: int, strength: float, tau: float) -> None:
    output = noise(seed, 12, 6, 8)
    directions = torch.nn.functional.normalize(noise(seed + 1, 5, 2, 8), dim=-1)
    directions[1] = 0
    gammas = torch.tensor([strength, strength, 0.0, 1.5, strength])
    slots = torch.arange(12) % 5
    output[0, 0] = 0
    output[5, 2] = -3 * directions[0, 0]  # As far from the sink as can be, and
    output[5, 3] = 2 * directions[0, 1]  # exactly at it.
    before = output.clone()
    expected = rotate_reference(
        output.clone()[:, None], directions[slots].repeat_interleave(3, dim=1), gamma=gammas[slots], tau=tau
    )[:, 0]
    rotate(output.numpy(), slots.numpy(), directions.numpy(), gammas.numpy(), np.float32(tau))
    torch.testing.assert_close(output, expected, rtol=0, atol=3e-6)
    torch.testing.assert_close(output.norm(dim=-1), before.norm(dim=-1), rtol=1e-5, atol=0)
    still = (slots == 1) | (slots == 2)
    assert torch.equal(output[still], before[still])
    assert torch.equal(output[0, 0], before[0, 0])
    assert torch.equal(output[5, 2], before[5, 2])
