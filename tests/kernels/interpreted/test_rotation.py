"""Sink direction and rotation by kernels against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.kernels.direction import write_direction
from omnisink.kernels.launch import count_launches
from omnisink.kernels.layout import Layout
from omnisink.kernels.rotation import rotate_in_place
from omnisink.maths.rotation import rotate, sink_direction
from tests.kernels.interpreted.reference import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Steps of the dtype at the size of the values, which are about one.
SLACK = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def units(seed, *shape):
    return torch.nn.functional.normalize(draw(seed, *shape), dim=-1)


def agrees(output, direction, gamma, tau=0.1, frozen=None, slack=None):
    """Compare the kernel with the reference, and return what moved."""
    before = output.clone()
    groups = output.shape[2] // direction.shape[1]
    with reference():
        wanted = rotate(
            before.clone(), direction.repeat_interleave(groups, dim=1), gamma=gamma, tau=tau, frozen=frozen
        )
    rotate_in_place(output, direction, gamma=gamma, tau=tau, frozen=frozen)
    size = max(1.0, float(before.float().abs().max()))
    assert (output.float() - wanted.float()).abs().max() <= (slack or SLACK[output.dtype]) * size
    assert (output.float().norm(dim=-1) - before.float().norm(dim=-1)).abs().max() <= 8 * SLACK[output.dtype] * size
    return (output != before).any(dim=-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "kv", "width"), [(4, 4, 64), (6, 2, 80), (2, 1, 12), (2, 2, 256)])
@pytest.mark.parametrize("gamma", [3.0, 0.3, -0.5, -1.0])
def test_rotation(dtype, heads, kv, width, gamma):
    output = draw(0, 2, 5, heads, width).to(dtype)
    direction = units(1, 2, kv, width)
    assert agrees(output, direction, gamma).any()


@pytest.mark.parametrize("gamma", [-1.0, -2.0, -0.9999])
def test_turning_away_from_what_an_output_is_parallel_to(gamma):
    direction = units(2, 1, 2, 32)
    output = (direction[:, None] * 3).repeat(1, 4, 1, 1)
    output[0, 1] += 1e-3 * draw(1, 2, 32)
    output[0, 2] *= -1
    # What is left across the direction is all rounding where an output is parallel to it, so the length alone is held.
    before = output.clone()
    rotate_in_place(output, direction, gamma=gamma, tau=0.1)
    assert torch.allclose(output.norm(dim=-1), before.norm(dim=-1), rtol=1e-5)
    assert torch.equal(output[0, 2], before[0, 2])
    assert torch.isfinite(output).all()


def test_what_has_nothing_to_turn_is_left_to_the_bit():
    output = draw(3, 2, 6, 3, 16).to(torch.bfloat16)
    output[0, 2] = 0
    before = output.clone()
    direction = units(4, 2, 3, 16)
    agrees(output.clone(), direction, 0.0)
    rotate_in_place(output, direction, gamma=0.0, tau=0.1)
    assert torch.equal(output, before)
    rotate_in_place(output, torch.zeros_like(direction), gamma=3.0, tau=0.1)
    assert torch.equal(output, before)
    frozen = torch.zeros(2, 6, dtype=torch.bool)
    frozen[0, 1] = frozen[1, 4:] = True
    moved = agrees(output, direction, 3.0, frozen=frozen)
    assert not moved[frozen].any()
    assert not moved[0, 2].any()
    assert moved[~frozen].any()
    direction[1] = 0
    assert not agrees(before.clone(), direction, 3.0)[1].any()


def test_one_strength_for_each_sequence():
    gamma = torch.tensor([0.0, 2.0, -0.7])
    moved = agrees(draw(5, 3, 4, 2, 16), units(6, 3, 2, 16), gamma)
    assert not moved[0].any()
    assert moved[1].any()
    assert moved[2].any()


def test_packed_tokens_take_the_vector_and_strength_of_their_slot():
    output = draw(7, 1, 9, 4, 16)
    slots = torch.tensor([2, -1, 0, 0, 3, 2, 2, -1, 0])
    direction, gamma = units(8, 4, 2, 16), torch.tensor([1.0, 5.0, -0.5, 0.0])
    wanted = output.clone()
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            one = direction[slot].repeat_interleave(2, dim=0)[None]
            with reference():
                wanted[:, token] = rotate(wanted[:, [token]].clone(), one, gamma=float(gamma[slot]), tau=0.1)[:, 0]
    before = output.clone()
    rotate_in_place(output, direction, gamma=gamma, tau=0.1, slots=slots)
    assert (output - wanted).abs().max() < 4e-6
    assert torch.equal(output[0, slots == -1], before[0, slots == -1])
    assert torch.equal(output[0, slots == 3], before[0, slots == 3])


def test_strides_of_head_outputs():
    wide = draw(9, 2, 4, 5, 3 * 16)
    other = wide.clone()
    view = wide.transpose(1, 2)[..., 16:32]
    assert agrees(view, units(10, 2, 2, 16)[:, :1], 1.0).any()
    assert torch.equal(wide[..., :16], other[..., :16])
    assert torch.equal(wide[..., 32:], other[..., 32:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_seen(bad):
    output = draw(11, 1, 3, 2, 16)
    output[0, 1, 0, 4] = bad
    rotate_in_place(output, units(12, 1, 2, 16), gamma=3.0, tau=0.1)
    assert not torch.isfinite(output[0, 1, 0]).all()
    assert torch.isfinite(output[0, [0, 2]]).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(0.01, 5), st.floats(-4, 4), st.integers(1, 5))
def test_any_strength_any_size(seed, gamma, tau, size, length):
    output = draw(seed, 1, length, 2, 24) * 10**size
    # Turning away can leave next to nothing of an output, whose direction then is rounding: see its own test.
    agrees(output, units(seed + 1, 1, 2, 24), gamma, tau, slack=2e-6 if gamma >= 0 else 1e-3)


def direction_of(value, sinks, heads, frozen=None):
    layout = Layout.of_batch(*sinks.shape, None, value.device)
    out = torch.full((len(value), heads, value.shape[3]), 7.0)
    write_direction(value, sinks, layout, out, frozen=frozen)
    with reference():
        wanted = sink_direction(value[:, :, : sinks.shape[1]], sinks, heads)
    assert torch.allclose(out, wanted, atol=2e-6)
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "kv", "width"), [(4, 4, 64), (6, 2, 80), (2, 1, 12), (2, 1, 256)])
def test_direction(dtype, heads, kv, width):
    value = draw(13, 3, kv, 14, width).to(dtype)
    sinks = torch.zeros(3, 11, dtype=torch.bool)  # The rest of the keys is a static cache's empty tail.
    value[:, :, 11:] = torch.nan
    sinks[0, [0, 4, 10]] = sinks[2, 5] = True
    frozen = torch.zeros_like(sinks)
    frozen[1, 3] = True
    out = direction_of(value, sinks, heads, frozen)
    assert not out[1].any()
    expected = sinks.clone()
    expected[1, 3] = True
    assert torch.equal(frozen, expected)


def test_direction_of_many_sinks_and_of_values_without_any():
    value = draw(14, 1, 2, 300, 16)
    direction_of(value, torch.rand(1, 300, generator=torch.Generator().manual_seed(0)) < 0.4, 4)
    sinks = torch.zeros(1, 300, dtype=torch.bool)
    sinks[0, [2, 290]] = True
    direction_of(value.transpose(1, 2).contiguous().transpose(1, 2), sinks, 2)
    direction_of(value[..., ::2], sinks, 2)
    assert not direction_of(value * 0, sinks, 2).any()
    value[:, :, 290] = -value[:, :, 2]
    assert not direction_of(value, sinks, 2).any()


def test_directions_of_packed_prompts_go_to_their_slots():
    value = draw(15, 1, 2, 12, 16)
    sinks = torch.zeros(1, 12, dtype=torch.bool)
    sinks[0, [1, 7, 8]] = True
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    sequence = torch.tensor([0] * 5 + [1] * 7, dtype=torch.int32)
    out = torch.full((4, 2, 16), 7.0)
    layout = Layout(12, 12, 7, sequence, bounds[:-1], bounds[1:], bounds.diff())
    with count_launches() as launches:
        write_direction(value, sinks, layout, out, slots=torch.tensor([3, 0]))
    assert launches == {"direct": 1}
    with reference():
        assert torch.allclose(out[3], sink_direction(value[:, :, :5], sinks[:, :5], 2)[0], atol=2e-6)
        assert torch.allclose(out[0], sink_direction(value[:, :, 5:], sinks[:, 5:], 2)[0], atol=2e-6)
    assert (out[1:3] == 7).all()
