"""Detection by kernels equals the reference to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.kernels import detection
from omnisink.kernels.detection import find_sinks
from omnisink.kernels.launch import count_launches
from omnisink.kernels.layout import Layout
from omnisink.kernels.workspace import Workspace
from omnisink.maths.sinks import massive_activation_sinks
from tests.kernels.interpreted.reference import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def found(hidden, token_mask=None, floor=100.0, ratio=1000.0, layer=1):
    layout = Layout.of_batch(*hidden.shape[:2], token_mask, hidden.device)
    workspace = Workspace.of(layout, 3)
    find_sinks(hidden, workspace, layer, min_activation=floor, median_ratio=ratio)
    assert not workspace.marks[[other for other in range(3) if other != layer]].any()
    return workspace.sinks[layer], workspace


def wanted(hidden, token_mask=None, floor=100.0, ratio=1000.0):
    with reference():
        return massive_activation_sinks(hidden, token_mask, min_activation=floor, median_ratio=ratio)


def agrees(hidden, token_mask=None, **thresholds):
    mask, _ = found(hidden, token_mask, **thresholds)
    expected = wanted(hidden, token_mask, **thresholds)
    assert torch.equal(mask, expected)
    return int(expected.sum())


def draw(seed, *shape, scale=0.05):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [48, 64, 100])
def test_one_sink_and_none(dtype, width):
    hidden = draw(0, 2, 9, width).to(dtype)
    assert agrees(hidden) == 0
    hidden[0, 3, 5] = -300.0
    assert agrees(hidden) == 1
    hidden[1] *= 100  # The median is so large that 300 is nothing.
    hidden[1, 2, 1] = 300.0
    assert agrees(hidden) == 1


@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 2), (torch.bfloat16, 9), (torch.float16, 18)], ids=str)
def test_the_threshold_in_the_midst_of_many_candidates(dtype, count):
    hidden = draw(count, 1, 20, 32, scale=0.3)
    hidden[0, :count, 7] = torch.linspace(110, 390, count)
    sinks = agrees(hidden.to(dtype))
    assert 0 < sinks < count


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_candidates_that_stand_as_close_as_the_dtype_lets_them(dtype):
    """The bisection of the last program: every candidate is a step from the next, on both sides of the threshold."""
    hidden = draw(1, 1, 20, 16).to(dtype)
    hidden[0, :, 3] = 30_000.0
    median = hidden.abs().flatten().sort().values[(hidden.numel() - 1) // 2].float()
    steps = [torch.tensor(float(median * 4096.0)).to(dtype)]
    for end, count in ((torch.inf, 10), (0.0, 8)):
        step = steps[0]
        for _ in range(count):
            step = torch.nextafter(step, torch.tensor(end, dtype=dtype))
            steps.append(step)
    hidden[0, 1:20, 3] = torch.stack(steps)
    assert agrees(hidden, ratio=4096.0) == 12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batches_in_which_few_and_many_and_no_candidates_stand_side_by_side(dtype):
    hidden = draw(7, 5, 24, 32, scale=0.3)
    hidden[0, :20, 7] = torch.linspace(110, 390, 20)  # The threshold lies in their midst,
    hidden[1, :20, 7] = torch.linspace(800, 3000, 20)  # below them all,
    hidden[2, :20, 7] = torch.linspace(101, 120, 20)  # and above.
    hidden[3, :5, 7] = torch.linspace(110, 390, 5)
    hidden[1, 21:, :16] = float("nan")
    token_mask = torch.ones(5, 24, dtype=torch.bool)
    token_mask[0, 3:6] = False
    hidden[0, 3:6] = 5e3
    for mask_given in (None, token_mask):
        mask, workspace = found(hidden.to(dtype), mask_given)
        assert torch.equal(mask, wanted(hidden.to(dtype), mask_given))
        assert not workspace.bins.any(), "the next layer counts from zero"
        assert [int(row.sum()) > 0 for row in mask] == [True, True, False, True, False]


def test_ties_and_equal_rows():
    assert agrees(torch.zeros(1, 5, 8)) == 0
    hidden = torch.full((2, 6, 8), 0.5)
    hidden[0, :, 0] = 500.0
    assert agrees(hidden) == 6
    hidden[0, 3, 0] = 499.99997
    assert agrees(hidden) == 5
    assert agrees(torch.zeros(1, 4, 8), floor=1e-30) == 0


@pytest.mark.parametrize("side", ["left", "right", "inside"])
def test_padding_is_neither_counted_nor_a_sink(side):
    hidden = draw(3, 3, 12, 20)
    hidden[:, 5, 2] = 400.0
    token_mask = torch.ones(3, 12, dtype=torch.bool)
    where = {"left": slice(0, 6), "right": slice(5, 12), "inside": slice(4, 7)}[side]
    token_mask[1, where] = False
    hidden[1, where] = 1e4
    assert agrees(hidden, token_mask) == 2
    token_mask[2] = False
    assert agrees(hidden, token_mask) == 1
    alone = hidden[1][token_mask[1]][None]
    assert found(hidden, token_mask)[0][1][token_mask[1]].tolist() == found(alone)[0][0].tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_is_treated_as_in_the_reference_and_reported(bad, dtype):
    for amount in (1, 30, 120):
        hidden = draw(4, 2, 6, 24).to(dtype)
        hidden[1, 2, 3] = 500.0
        hidden[1].view(-1)[40 : 40 + amount] = bad
        mask, workspace = found(hidden)
        assert torch.equal(mask, wanted(hidden))
        assert workspace.not_finite[1].tolist() == [False, True]
        assert not workspace.not_finite[0].any()


def test_strides():
    hidden = draw(5, 12, 2, 40)
    hidden[4, 1, 7] = 200.0
    assert agrees(hidden.transpose(0, 1)) == 1
    assert agrees(hidden.transpose(0, 1)[:, ::2]) == 1
    assert agrees(hidden.permute(1, 0, 2)[..., ::2][..., 1:]) == 0


def test_widths_over_one_block(monkeypatch):
    monkeypatch.setattr(detection.triton, "next_power_of_2", lambda _: 32)
    hidden = draw(6, 1, 8, 70)
    hidden[0, 6, 69] = 200.0
    assert agrees(hidden) == 1


def test_packed_sequences_are_those_alone():
    lengths = [5, 1, 17, 8]
    parts = [draw(10 + i, 1, n, 16) for i, n in enumerate(lengths)]
    parts[0][0, 0, 1], parts[2][0, 16, 2], parts[2][0, 3, 2] = 150.0, -4e3, 120.0
    parts[3] *= 50
    hidden = torch.cat([*parts, draw(1, 1, 3, 16) * 1e5], dim=1)  # Tokens of no prompt come last.
    bounds = torch.tensor([0, 5, 6, 23, 31], dtype=torch.int32)
    sequence = torch.full((34,), -1, dtype=torch.int32)
    for i in range(4):
        sequence[bounds[i] : bounds[i + 1]] = i
    layout = Layout(34, 34, 17, sequence, bounds[:-1], bounds[1:], bounds.diff())
    workspace = Workspace.of(layout, 1)
    find_sinks(hidden, workspace, 0, min_activation=100.0, median_ratio=1000.0)
    expected = torch.cat([wanted(part) for part in parts] + [torch.zeros(1, 3, dtype=torch.bool)], dim=1)
    assert torch.equal(workspace.sinks[0], expected)
    assert int(expected.sum()) == 3


def test_two_launches_whatever_there_is():
    hidden = draw(8, 1, 6, 16)
    hidden[0, :5, 3] = torch.linspace(90, 300, 5)
    with count_launches() as launches:
        found(hidden)
    assert launches == {"scan": 1, "count": 1}


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.floats(-4, 3),
    st.floats(0, 3),
    st.integers(1, 8),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_scale_any_ratio(seed, dtype, scale, ratio, length, batch, padded):
    generator = torch.Generator().manual_seed(seed)
    hidden = (torch.randn(batch, length, 12, generator=generator).exp() * 10**scale).to(dtype)
    token_mask = (torch.rand(batch, length, generator=generator) < 0.7) if padded else None
    agrees(hidden, token_mask, floor=float(10 ** (scale / 2)), ratio=10**ratio)


def close_candidates(seed, length=32, width=16, ratio=1000.0, spread=3e-5):
    """Float32 in which every token is a candidate, a few steps of the dtype from ratio times the median."""
    hidden = draw(seed, 1, length, width)
    hidden[..., 3] = 30_000.0
    median = hidden.abs().flatten().sort().values[(hidden.numel() - 1) // 2]
    near = 1 + spread * torch.linspace(-1, 1, length)
    hidden[0, :, 3] = (median.double() * ratio * near.double()).float()
    return hidden


@pytest.mark.parametrize("spread", [3e-7, 3e-5, 0.02, 3.0])
def test_float32_in_which_every_token_is_a_candidate_around_the_threshold(spread):
    hidden = close_candidates(3, spread=spread)
    assert 0 < agrees(hidden, floor=1e-3) < 32


def test_float32_whose_candidates_are_far_apart_and_one_is_next_to_the_threshold():
    """The bins are wide then, and the one that holds the median has to be sorted again, and once more."""
    hidden = close_candidates(4, spread=3e-7)
    hidden[0, 1, 3] = 3e38
    hidden[0, 2, 3] = float("inf")
    assert 0 < agrees(hidden, floor=1e-3) < 32
    hidden[0, 3:20] = hidden[0, 20]  # Ties, of whole rows.
    agrees(hidden, floor=1e-3)
    hidden[0, 5, 4:9] = float("nan")
    agrees(hidden, floor=1e-3)
    real = torch.ones(1, 32, dtype=torch.bool)
    real[0, ::3] = False
    agrees(hidden, real, floor=1e-3)


@pytest.mark.parametrize("value", [1e-44, 1e-38, 1.0, 3e35])
def test_float32_of_one_size_and_at_the_ends_of_what_it_holds(value):
    hidden = torch.full((1, 24, 16), value)
    for ratio in (0.5, 1.0, 1000.0):
        agrees(hidden, floor=value / 2, ratio=ratio)
        agrees(hidden * torch.linspace(0.5, 2, 24)[None, :, None], floor=value / 4, ratio=ratio)


@pytest.mark.parametrize(("far", "again"), [(False, 0), (True, 2)])
def test_float32_is_read_again_only_where_the_bins_are_wide_and_candidates_close(far, again, monkeypatch):
    calls = []
    own = detection.count_bins

    def counted(*args, **given):
        calls.append(args)
        return own(*args, **given)

    monkeypatch.setattr(detection, "count_bins", counted)
    hidden = close_candidates(6)
    if far:
        hidden[0, 1, 3] = 3e38
    agrees(hidden, floor=1e-3)
    assert len(calls) == 32 + again  # A program reads one row of the 32; the last one reads all of them again.
