"""The rotation against its definition in float64, written as the paper writes it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from omnisink.maths import host
from omnisink.maths import rotation as rotation_module
from omnisink.maths.rotation import rotate, sink_direction, sink_value
from omnisink.maths.same_angle import rotate_by_same_angle

PATHS = {"in place": False, "functional": True}
TOLERANCE = {torch.float32: 4e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def plain_rotation(output, value, gamma, tau):
    """Section 3 of the method on one token and head: o, v of shape (D,), float64."""
    o, v = output.double(), value.double()
    if o.norm() == 0 or v.norm() == 0:
        return o
    cosine = (o @ v) / (o.norm() * v.norm())
    gate = torch.tanh(torch.relu(cosine) / tau)
    turned = o + gate * gamma * ((o @ v).abs() / v.norm() ** 2) * v
    return turned * o.norm() / turned.norm()


@st.composite
def cases(draw):
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    kv_heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    depth = draw(st.integers(1, 9))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    scale = draw(st.sampled_from([1e-3, 1.0, 50.0]))
    output = (torch.randn(batch, length, kv_heads * groups, depth, generator=generator) * scale).to(dtype)
    value = torch.randn(batch, kv_heads, length, depth, generator=generator).to(dtype)
    sinks = torch.rand(batch, length, generator=generator) > 0.5
    frozen = torch.rand(batch, length, generator=generator) > 0.7
    output[:, 0, 0] = 0  # a zero output must stay zero
    return output, value, sinks, frozen


@pytest.mark.parametrize("path", PATHS)
@given(case=cases(), gamma=st.sampled_from([3.0, 0.3, 0.0, -0.5, -2.0]), tau=st.sampled_from([0.1, 1.0]))
@settings(max_examples=100, deadline=None)
def test_rotation_equals_its_definition(path, case, gamma, tau):
    output, value, sinks, frozen = case
    heads = output.shape[2]
    groups = heads // value.shape[1]
    expected = output.double().clone()
    for b, t, h in torch.cartesian_prod(*(torch.arange(n) for n in output.shape[:3])).view(-1, 3).tolist():
        if frozen[b, t] or not sinks[b].any():
            continue
        mean = value[b, h // groups][sinks[b]].double().mean(dim=0)
        expected[b, t, h] = plain_rotation(output[b, t, h], mean, gamma, tau)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: PATHS[path])
        patch.setattr(host, "_BLOCK", {"cpu": 2 * heads * output.shape[-1]})
        direction = sink_direction(value, sinks, heads)
        before = output.clone()
        rotated = rotate(output, direction, gamma=gamma, tau=tau, frozen=frozen)
    assert rotated.dtype == before.dtype
    size = before.double().norm(dim=-1, keepdim=True)
    # Turning almost all of a head output away cancels; what is left has the rounding error of what was there.
    slack = 50 if gamma < 0 else 1
    assert ((rotated.double() - expected).abs() <= slack * TOLERANCE[before.dtype] * size).all()
    assert torch.equal(rotated[frozen], before[frozen])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_a_sink_nothing_moves_by_a_bit(path, dtype, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: PATHS[path])
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, 700, 4, 8, generator=generator).to(dtype)
    value = torch.randn(3, 2, 700, 8, generator=generator).to(dtype)
    sinks = torch.zeros(3, 700, dtype=torch.bool)
    sinks[1, 0] = True
    before = output.clone()
    rotated = rotate(output, sink_direction(value, sinks, 4), gamma=3.0, tau=0.1)
    assert torch.equal(rotated[0], before[0])
    assert torch.equal(rotated[2], before[2])
    assert not torch.equal(rotated[1], before[1])


@pytest.mark.parametrize("gamma", [3.0, -0.7])
def test_heads_that_point_away_are_left_alone(gamma):
    direction = torch.nn.functional.normalize(torch.randn(1, 2, 16), dim=-1)
    output = -2.5 * direction[:, None].expand(1, 5, 2, 16).contiguous()
    assert torch.equal(rotate(output.clone(), direction, gamma=gamma, tau=0.1), output)


@pytest.mark.parametrize("gamma", [100.0, 3.0, 0.01, -0.4, -3.0])
def test_length_is_kept_and_the_direction_moves_the_right_way(gamma):
    generator = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(2, 4, 32, generator=generator), dim=-1)
    output = torch.randn(2, 50, 4, 32, generator=generator) + direction[:, None]
    before = output.clone()
    after = rotate(output, direction, gamma=gamma, tau=0.5)
    assert torch.allclose(after.norm(dim=-1), before.norm(dim=-1), rtol=1e-5)
    along_before, along_after = ((x * direction[:, None]).sum(-1) for x in (before, after))
    moved = along_before > 0
    assert ((along_after > along_before)[moved] == (gamma > 0)).all()
    assert torch.equal(after[~moved], before[~moved])


def test_the_gradient_flows_and_nothing_is_changed_in_place():
    output = torch.randn(1, 3, 2, 4, dtype=torch.float32, requires_grad=True)
    direction = torch.nn.functional.normalize(torch.randn(1, 2, 4), dim=-1)
    before = output.detach().clone()
    rotate(output * 1, direction, gamma=1.0, tau=0.3).sum().backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert torch.equal(output.detach(), before)


@pytest.mark.parametrize("may_look", [True, False])
def test_garbage_in_padding_does_not_reach_the_sink_value(may_look, monkeypatch):
    monkeypatch.setattr(rotation_module, "is_eager_cpu", lambda _: may_look)
    value = torch.ones(1, 1, 3, 2)
    value[0, 0, 0] = float("nan")
    sinks = torch.tensor([[False, True, True]])
    assert sink_value(value, sinks).tolist() == [[[1.0, 1.0]]]


def test_sink_value_is_summed_in_float32():
    value = torch.full((1, 1, 4096, 1), 1.0, dtype=torch.float16)
    value[0, 0, 0] = 2048.0
    sinks = torch.ones(1, 4096, dtype=torch.bool)
    expected = (2048.0 + 4095.0) / 4096
    assert sink_value(value, sinks).item() == pytest.approx(expected, rel=1e-6)


class LargestTemporary(TorchDispatchMode):
    """Remember the size of the largest new storage that an operation makes, in elements."""

    def __init__(self, owned):
        super().__init__()
        self.owned = {t.untyped_storage().data_ptr() for t in owned}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.owned:
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_stays_a_fraction_of_the_head_outputs(dtype):
    output = torch.randn(1, 4096, 4, 64).to(dtype)
    direction = torch.nn.functional.normalize(torch.randn(1, 4, 64), dim=-1)
    with LargestTemporary([output, direction]) as mode:
        rotate(output, direction, gamma=1.0, tau=0.1)
    assert 0 < mode.largest <= output.numel() // 8


def angle(first, second):
    """Angle between vectors in radians, float64, exact for small ones too (Kahan)."""
    a, b = (x.double() / x.double().norm(dim=-1, keepdim=True) for x in (first, second))
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


@given(case=cases(), gamma=st.sampled_from([3.0, 0.3, 1e-3]), tau=st.sampled_from([0.1, 1.0]))
@settings(max_examples=100, deadline=None)
def test_a_control_turns_every_output_as_far_in_the_plane_it_should(case, gamma, tau):
    output, value, sinks, frozen = case
    heads, depth = output.shape[2:]
    direction = sink_direction(value, sinks, heads)
    toward = torch.randn(len(output), heads, depth, generator=torch.Generator().manual_seed(depth))
    toward = torch.nn.functional.normalize(toward, dim=-1)
    before = output.clone()
    far = rotate(output.float().clone(), direction, gamma=gamma, tau=tau, frozen=frozen)
    turned = rotate_by_same_angle(output, direction, toward, gamma=gamma, tau=tau, frozen=frozen)
    assert torch.equal(output, before)  # a new tensor
    assert turned.dtype == before.dtype
    assert torch.equal(turned[frozen], before[frozen])
    there = (before.float().norm(dim=-1) > 0) & ~frozen[..., None]
    assert (turned[before.float().norm(dim=-1) == 0] == 0).all()
    aim = toward[:, None].expand_as(before)
    off = torch.minimum(angle(before, aim), angle(before, -aim))
    there &= (off > 1e-3) | (off.isnan())  # with what is parallel to it an output spans no plane
    size = before.double().norm(dim=-1)
    slack = 4 * TOLERANCE[before.dtype]
    assert ((turned.double().norm(dim=-1) - size).abs() <= slack * size)[there].all()
    expected = angle(before, far).nan_to_num()
    assert ((angle(before, turned) - expected).abs() <= slack)[there].all()
    # In the plane of the output and the direction, on the direction's side.
    across = torch.nn.functional.normalize(
        aim.double() - (before.double() * aim).sum(-1, keepdim=True) * before.double() / size[..., None] ** 2, dim=-1
    )
    plan = size[..., None] * (
        expected.cos()[..., None] * before.double() / size[..., None] + expected.sin()[..., None] * across
    )
    assert ((turned.double() - plan).abs() <= (20 * slack / off.clamp(max=1))[..., None] * size[..., None])[
        there
    ].all()


def test_a_control_that_aims_at_the_sink_is_the_rotation():
    generator = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(2, 4, 32, generator=generator), dim=-1)
    output = torch.randn(2, 50, 4, 32, generator=generator) + direction[:, None]
    control = rotate_by_same_angle(output, direction, direction, gamma=1.0, tau=0.1)
    assert torch.allclose(control, rotate(output.clone(), direction, gamma=1.0, tau=0.1), atol=1e-5)
    assert not torch.allclose(control, output, atol=1e-2)


def test_a_control_without_somewhere_to_turn_leaves_every_bit():
    direction = torch.nn.functional.normalize(torch.randn(1, 2, 16), dim=-1)
    output = torch.randn(1, 5, 2, 16) + direction[:, None]
    nowhere = torch.zeros_like(direction)
    assert torch.equal(rotate_by_same_angle(output, direction, nowhere, gamma=3.0, tau=0.1), output)
    assert torch.equal(rotate_by_same_angle(output, nowhere, direction, gamma=3.0, tau=0.1), output)
    assert torch.equal(rotate_by_same_angle(output, direction, -direction, gamma=0.0, tau=0.1), output)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("strengths", [(0.3, 0.0, 3.0), (0.3, -0.5, 0.0)])
def test_every_sequence_may_have_a_strength_of_its_own(path, strengths, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, 4, 2, 8, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(3, 2, 8, generator=generator), dim=-1)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: PATHS[path])
    together = rotate(output.clone(), direction, gamma=torch.tensor(strengths), tau=0.1)
    for b, gamma in enumerate(strengths):
        alone = rotate(output[b : b + 1].clone(), direction[b : b + 1], gamma=gamma, tau=0.1)
        assert torch.allclose(together[b : b + 1], alone, rtol=0, atol=2e-6)
        if gamma == 0:
            assert torch.equal(together[b], output[b])
