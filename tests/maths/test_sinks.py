"""The sink criteria against plain medians and norms in float64, written independently of the package."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.maths import bisection, host
from omnisink.maths import sinks as sinks_module
from omnisink.maths.magnitude import token_magnitude
from omnisink.maths.sink_dimension import sink_dimension_sinks
from omnisink.maths.sinks import massive_activation_sinks

PATHS = {"by inspection": True, "by bisection": False}


def plain_massive(hidden, token_mask, min_activation, ratio):
    """The rule as the paper states it: one sorted median for each sequence, in float32 like the model."""
    marks = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    for b in range(hidden.shape[0]):
        rows = hidden[b][token_mask[b]].float().abs()
        if rows.numel() == 0:
            continue
        median = rows.flatten().median()
        for t in range(hidden.shape[1]):
            peak = hidden[b, t].float().abs().max()
            marks[b, t] = token_mask[b, t] and peak >= min_activation and peak >= ratio * median
    return marks


def run(path, hidden, token_mask, monkeypatch, **settings_):
    monkeypatch.setattr(sinks_module, "is_eager_cpu", lambda _: PATHS[path])
    monkeypatch.setattr(host, "_BLOCK", {"cpu": 16})
    return massive_activation_sinks(hidden, token_mask, **settings_)


@st.composite
def streams(draw):
    batch = draw(st.integers(1, 3))
    length = draw(st.integers(1, 17))
    width = draw(st.integers(1, 13))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    hidden = torch.randn(batch, length, width, generator=generator)
    peaks = draw(st.integers(0, 4))
    for _ in range(peaks):
        b, t, c = (draw(st.integers(0, n - 1)) for n in hidden.shape)
        hidden[b, t, c] = draw(st.sampled_from([90.0, 100.0, 600.0, 700.0, 5_000.0, -30_000.0]))
    if draw(st.booleans()):  # ties: the median and many activations fall on the same few values
        hidden = hidden.round()
    token_mask = torch.rand(batch, length, generator=generator) > 0.3
    token_mask[:, draw(st.integers(0, length - 1))] = True
    return hidden.to(dtype), token_mask


@pytest.mark.parametrize("path", PATHS)
@given(stream=streams(), ratio=st.sampled_from([1.0, 7.0, 300.0, 1000.0]))
@settings(max_examples=150, deadline=None)
def test_massive_activation_equals_the_sorted_median(path, stream, ratio):
    hidden, token_mask = stream
    expected = plain_massive(hidden, token_mask, 100.0, ratio)
    with pytest.MonkeyPatch.context() as patch:
        found = run(path, hidden, token_mask, patch, median_ratio=ratio)
        assert found.dtype == torch.bool
        assert torch.equal(found, expected)
        if bool(token_mask.all()):
            assert torch.equal(run(path, hidden, None, patch, median_ratio=ratio), expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_every_threshold_between_candidates_is_found(path, count, monkeypatch):
    # Candidates with peaks 1000, 2000, ..., and a median swept across all their thresholds.
    for passing in range(count + 1):
        hidden = torch.full((1, 64, 6), 0.0)
        hidden[0, :count, 0] = torch.arange(1, count + 1) * 1000.0
        hidden[0, :, 1:] = (count - passing) + 0.5
        found = run(path, hidden, None, monkeypatch)
        assert found[0].nonzero().flatten().tolist() == list(range(count - passing, count))


@pytest.mark.parametrize("path", PATHS)
def test_thresholds_are_inclusive(path, monkeypatch):
    hidden = torch.full((1, 3, 4), 0.25)
    hidden[0, 1, 2] = -250.0
    assert run(path, hidden, None, monkeypatch)[0].tolist() == [False, True, False]
    hidden[0, 1, 2] = torch.nextafter(torch.tensor(-250.0), torch.tensor(0.0))
    assert not run(path, hidden, None, monkeypatch).any()
    hidden = torch.zeros(1, 3, 4)
    hidden[0, 1, 2] = 100.0
    assert run(path, hidden, None, monkeypatch)[0].tolist() == [False, True, False]
    hidden[0, 1, 2] = 99.99
    assert not run(path, hidden, None, monkeypatch).any()


@pytest.mark.parametrize("path", PATHS)
def test_padding_neither_counts_nor_is_a_sink(path, monkeypatch):
    hidden = torch.ones(2, 8, 4)
    hidden[0, 0, 0] = hidden[1, 3, 0] = 1500.0
    hidden[1, :3] = 1e6  # garbage in padded positions: as large activations, and as most of the median
    token_mask = torch.ones(2, 8, dtype=torch.bool)
    token_mask[1, :3] = False
    found = run(path, hidden, token_mask, monkeypatch)
    assert found.nonzero().tolist() == [[0, 0], [1, 3]]


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_equals_its_sequences_alone(path, monkeypatch):
    hidden = torch.randn(4, 33, 16, generator=torch.Generator().manual_seed(1))
    for b in range(4):
        hidden[b, b * 5, 3] = 400.0 * (b + 1)
    together = run(path, hidden, None, monkeypatch)
    alone = torch.cat([run(path, hidden[b : b + 1], None, monkeypatch) for b in range(4)])
    assert torch.equal(together, alone)


def test_half_precision_overflow_does_not_hide_a_sink():
    # 1000 * 100 is beyond float16: the comparison must be made in float32.
    hidden = torch.full((1, 9, 4), 100.0, dtype=torch.float16)
    hidden[0, 2, 1] = 60_000.0
    assert not massive_activation_sinks(hidden).any()
    hidden[:, :, 1:] = 0.5
    hidden[0, 2, 1] = 60_000.0
    assert massive_activation_sinks(hidden).nonzero().tolist() == [[0, 2]]


def test_token_magnitude_is_the_largest_absolute_activation():
    hidden = torch.tensor([[[1.0, -5.0], [2.0, 0.0]]], dtype=torch.bfloat16)
    assert token_magnitude(hidden).tolist() == [[5.0, 2.0]]
    assert token_magnitude(hidden).dtype == torch.float32


@given(stream=streams(), threshold=st.sampled_from([1.0, 1.5, 3.0]))
@settings(max_examples=100, deadline=None)
def test_sink_dimension_equals_its_definition(stream, threshold):
    hidden, token_mask = stream
    channels = list(range(0, hidden.shape[-1], 3))
    wide = hidden.double()
    rms = wide.pow(2).mean(dim=-1).sqrt()
    score = wide[..., channels].abs().amax(dim=-1) / rms
    clear = (score - threshold).abs() > 1e-5 * threshold  # leave float32's own rounding at the threshold aside
    expected = (score >= threshold) & token_mask
    found = sink_dimension_sinks(hidden, token_mask, channels=channels, threshold=threshold)
    assert torch.equal(found[clear], expected[clear])


@pytest.mark.parametrize("channels", [[], [4], [-1]])
def test_sink_dimension_refuses_channels_outside_the_width(channels):
    with pytest.raises(ValueError, match=r"0\.\.3"):
        sink_dimension_sinks(torch.ones(1, 2, 4), channels=channels)


@given(level=st.floats(2.0**-10, 2.0**60, width=32), ratio=st.floats(2.0**-6, 2.0**14, width=32))
@settings(max_examples=300, deadline=None)
def test_the_limit_is_the_largest_value_whose_multiple_stays_below(level, ratio):
    levels = torch.tensor([level], dtype=torch.float32)
    limit = bisection._largest_below(levels, ratio)
    assert limit * ratio <= levels
    assert torch.nextafter(limit, torch.tensor([float("inf")])) * ratio > levels
