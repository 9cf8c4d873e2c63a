"""A decoding step of SinkRouter by the kernels, against the same in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omnisink.kernels.launch import count_launches
from omnisink.kernels.routing import routed_decode

#: Rounding relative to the largest output: of the weights and of the outputs, and of float32 sums.
SLACK = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(heads, kv, depth, width, length, dtype=torch.float32, batch=2):
    """Return queries, keys and values, and the keys of the first tokens."""
    query = draw(1, batch, heads, 1, depth).to(dtype)
    key, value = draw(2, batch, kv, length, depth).to(dtype), draw(3, batch, kv, length, width).to(dtype)
    return query, key, value, key[:, :, 0].float().clone()


def expected(query, key, value, anchor, threshold, *, scaling=None, softcap=None, surrogate=None, bias=None):
    """Score, decide and attend in float64, one group at a time; `bias` (B, T) is added to the scores."""
    batch, heads, _, depth = query.shape
    kv = key.shape[1]
    query, key, value, anchor = (t.double() for t in (query, key, value, anchor))
    limits = (
        threshold.double()
        if isinstance(threshold, torch.Tensor)
        else torch.full((batch,), threshold, dtype=torch.double)
    )
    output = torch.zeros(batch, heads, 1, value.shape[3]).double()
    scores = torch.zeros(batch, kv).double()
    for b in range(batch):
        for k in range(kv):
            own = slice(k * heads // kv, (k + 1) * heads // kv)
            q, a = query[b, own, 0], anchor[b, k]
            scores[b, k] = ((q @ a) / (q.norm(dim=-1) * a.norm()).clamp(min=1e-30)).mean()
            if scores[b, k] > limits[b] and limits[b] < 1:
                output[b, own, 0] = 0 if surrogate is None else surrogate[b, k].double()
                continue
            logits = q @ key[b, k].T * (depth**-0.5 if scaling is None else scaling)
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            if bias is not None:
                logits = logits + bias[b].double()
            seen = torch.isfinite(logits).any(dim=0)
            output[b, own, 0] = logits[:, seen].softmax(dim=-1) @ value[b, k, seen]
    return output, scores


def middle(scores):
    """Return a threshold over one half of the scores and under the other, and not close to any."""
    ordered = scores.flatten().sort().values
    return float(ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1].mean())


def agrees(query, key, value, anchor, threshold, *, bias=None, like=None, **options):
    """Compare with float64, where hidden keys and values are taken to be zero. Return which groups are routed."""
    given = {name: options[name] for name in ("scaling", "softcap", "surrogate") if name in options}
    clean = [t if like is None else like(t) for t in (key, value)]
    wanted, scores = expected(query, *clean, anchor, threshold, bias=bias, **given)
    output, score, routed = routed_decode(query, key, value, anchor, threshold, **options)
    assert (output.dtype, score.dtype, routed.dtype) == (value.dtype, torch.float32, torch.bool)
    assert output.shape == (*query.shape[:3], value.shape[3])
    assert (score.double() - scores).abs().max() <= 1e-6
    limits = threshold[:, None] if isinstance(threshold, torch.Tensor) else threshold
    assert torch.equal(routed, scores > limits)
    assert (output.double() - wanted).abs().max() <= SLACK[value.dtype] * value.nan_to_num().abs().max().double()
    return routed


@pytest.mark.parametrize(
    ("dtype", "heads", "kv", "depth", "width"),
    [
        *((torch.float32, *shape) for shape in ((2, 2, 64, 64), (8, 1, 80, 80), (14, 2, 192, 128), (4, 1, 96, 256))),
        *((torch.bfloat16, *shape) for shape in ((14, 2, 128, 128), (20, 1, 64, 64), (2, 2, 80, 256))),
        *((torch.float16, *shape) for shape in ((8, 2, 128, 128), (4, 1, 256, 96), (1, 1, 64, 64))),
    ],
)
def test_every_shape_with_some_groups_routed(dtype, heads, kv, depth, width):
    given = step(heads, kv, depth, width, 75, dtype)
    _, scores = expected(*given, 2.0)
    routed = agrees(*given, middle(scores), splits=2, surrogate=draw(4, 2, kv, width))
    assert 0 < routed.sum() < routed.numel()


@pytest.mark.parametrize("pattern", range(16))
def test_every_mixture_of_groups(pattern):
    given = step(14, 2, 32, 32, 20)
    _, scores = expected(*given, 2.0)
    wanted = torch.tensor([[bool(pattern >> (2 * b + k) & 1) for k in range(2)] for b in range(2)])
    # Turned around, a group's anchor gives minus its score.
    given[3].mul_(torch.where(wanted == (scores > 0), 1.0, -1.0)[..., None])
    assert torch.equal(agrees(*given, 0.0, splits=1 + pattern % 3), wanted)


@pytest.mark.parametrize(
    ("length", "splits"), [(1, 1), (1, 9), (15, 2), (16, 1), (16, 3), (17, 2), (129, 1), (129, 7)]
)
def test_any_length_in_any_number_of_parts(length, splits):
    agrees(*step(4, 2, 16, 16, length), 0.9, splits=splits)


def test_the_threshold_is_of_each_sequence_and_strict():
    given = step(6, 2, 32, 32, 10, batch=3)
    _, score, _ = routed_decode(*given, 2.0)
    for b in range(2):
        for k in range(2):
            limits = torch.full((3,), float(score[b, k]))
            assert not routed_decode(*given, limits)[2][b, k]
            assert not routed_decode(*given, float(score[b, k]))[2][b, k]
            limits[b] = torch.nextafter(limits[b], torch.tensor(-9.0))
            assert routed_decode(*given, limits)[2][b, k]
    limits = torch.tensor([-1.01, float(score[1].mean()), 2.0])
    routed = agrees(*given, limits)
    assert routed.sum(dim=1).tolist() == [2, 1, 0]


@pytest.mark.parametrize("threshold", [1.0, torch.tensor([1.0, 1.5])], ids=str)
def test_from_one_on_nothing_is_routed(threshold):
    query, key, value, _ = step(4, 2, 48, 16, 20)
    anchor = query[:, ::2, 0] * 3  # The cosine of the first query of each group is one, or a rounding above.
    query[:, 1::2] = query[:, ::2]
    _, score, routed = routed_decode(query, key, value, anchor, threshold)
    assert (score - 1).abs().max() < 1e-6
    assert not routed.any()
    assert routed_decode(query, key, value, anchor, 0.999)[2].all()


@pytest.mark.parametrize(
    "options", [{"scaling": 0.7}, {"scaling": 0.0}, {"softcap": 1.5}, {"softcap": 50.0, "scaling": 2.0}], ids=str
)
def test_what_models_do_to_scores(options):
    agrees(*step(4, 2, 32, 16, 50), 0.1, splits=2, **options)


def test_scores_of_any_size():
    query, key, value, anchor = step(4, 2, 32, 16, 90)
    agrees(query * 40, key * 40, value, anchor, 0.5, splits=2)


def ranges(starts, stops, length):
    """Return what is added to the scores outside of the ranges."""
    place = torch.arange(length)
    seen = (place >= starts[:, None]) & (place < stops[:, None])
    return torch.where(seen, 0.0, -math.inf), seen


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("splits", [1, 3])
def test_padding_and_the_empty_end_of_a_static_cache(dtype, splits):
    query, key, value, anchor = step(8, 2, 32, 32, 200, batch=4)
    starts, stops = torch.tensor([0, 70, 199, 13]), torch.tensor([200, 131, 200, 14])
    bias, seen = ranges(starts, stops, 200)
    key[~seen[:, None].expand(4, 2, 200)] = math.nan
    value[~seen[:, None].expand(4, 2, 200)] = math.nan
    anchor = torch.stack([key[b, :, start] for b, start in enumerate(starts)])
    agrees(
        *(query, key, value, anchor, 0.05), bias=bias, like=torch.nan_to_num, splits=splits,
        starts=starts.to(dtype), stops=stops.to(dtype),
    )  # fmt: skip


@pytest.mark.parametrize("splits", [1, 4])
def test_masks_with_gaps(splits):
    query, key, value, anchor = step(4, 2, 32, 32, 70)
    mask = draw(7, 2, 140)[:, ::2] > 0.3  # Not contiguous.
    mask[:, 60] = True
    hidden = ~mask[:, None].expand(2, 2, 70)
    key[hidden], value[hidden] = math.nan, math.nan
    bias = torch.where(mask, 0.0, -math.inf)
    agrees(query, key, value, anchor, 0.9, bias=bias, like=torch.nan_to_num, mask=mask, splits=splits)
    starts, stops = torch.tensor([3, 20]), torch.tensor([70, 64])
    both = bias + ranges(starts, stops, 70)[0]
    agrees(
        *(query, key, value, anchor, 0.9), bias=both, like=torch.nan_to_num, mask=mask, splits=splits,
        starts=starts, stops=stops,
    )  # fmt: skip


@pytest.mark.parametrize("closed", [-math.inf, torch.finfo(torch.float32).min, -1e4])
def test_floats_are_added_to_the_scores(closed):
    given = step(4, 2, 32, 32, 40)
    bias = draw(8, 2, 40)
    bias[:, 12:35] = closed
    agrees(*given, 0.9, bias=bias, mask=bias, splits=2)
    half = bias.to(torch.bfloat16)
    agrees(*given, 0.9, bias=half.float(), mask=half, splits=2)


def test_where_no_key_is_seen_the_output_is_zero():
    given = step(4, 2, 32, 32, 70)
    for splits in (1, 3):
        nothing, empty = torch.zeros(2, dtype=torch.int32), torch.zeros(2, 70, dtype=torch.bool)
        for options in ({"starts": nothing, "stops": nothing}, {"mask": empty}):
            output, _, routed = routed_decode(*given, 0.99, splits=splits, **options)
            assert not routed.any()
            assert torch.equal(output, torch.zeros_like(output))


def test_what_is_not_finite_is_not_routed_and_shows():
    query, key, value, anchor = step(4, 2, 32, 32, 70)
    query[0, 1] = math.nan
    for splits in (1, 3):
        output, score, routed = routed_decode(query, key, value, anchor, -2.0, splits=splits)
        assert score[0, 0].isnan()
        assert routed.tolist() == [[False, True], [True, True]]
        assert output[0, 1].isnan().all()
        assert torch.isfinite(output[0, 0]).all()
        assert not output[0, 2:].any()
    query[0, 1] = 0.0  # The cosine with a vector of length zero is zero.
    value[1, 1, 40, 3] = math.nan
    output, score, _ = routed_decode(query, key, value, anchor, 2.0, splits=3)
    _, scores = expected(query, key, value, anchor, 2.0)
    assert (score - scores).abs().max() < 1e-6
    assert output[1, 2:, 0, 3].isnan().all()
    assert int(output.isnan().sum()) == 2


def test_strides():
    query, key, value, anchor = step(6, 2, 32, 16, 50)
    query = torch.stack([query, query], dim=3)[:, :, :, 1]
    room_k, room_v = torch.full((3, 70, 2, 32), math.nan), torch.full((2, 2, 70, 16), math.nan)
    room_k[:2, :50], room_v[:, :, 11:61] = key.transpose(1, 2), value
    anchor = torch.stack([anchor, anchor])[1]
    surrogate = draw(5, 2, 2, 32)[..., :16]
    agrees(query, room_k[:2, :50].transpose(1, 2), room_v[:, :, 11:61], anchor, 0.0, splits=2, surrogate=surrogate)


def test_a_routed_group_reads_no_key_and_no_value(monkeypatch):
    from triton.runtime.interpreter import interpreter_builder

    given = step(14, 2, 32, 16, 100)
    _, scores = expected(*given, 2.0)
    read: list[np.ndarray] = []
    own = interpreter_builder.create_masked_load

    def noting(ptrs, mask, *rest):
        read.append(np.broadcast_to(ptrs.data, mask.data.shape)[mask.data].astype(np.int64))
        return own(ptrs, mask, *rest)

    monkeypatch.setattr(interpreter_builder, "create_masked_load", noting)
    threshold = middle(scores)
    _, _, routed = routed_decode(*given, threshold, splits=2)
    assert 0 < routed.sum() < 4
    places = np.concatenate([r.ravel() for r in read])
    for b in range(2):
        for k in range(2):
            for tensor in (given[1][b, k], given[2][b, k]):
                begin = tensor.data_ptr()
                inside = np.unique(places[(places >= begin) & (places < begin + tensor.numel() * 4)])
                assert len(inside) == (0 if routed[b, k] else tensor.numel())


def test_launches_and_the_same_bits_again():
    given = step(8, 2, 32, 32, 300, batch=1)
    with count_launches() as launches:
        first = routed_decode(*given, 0.05)
    assert launches == {"route": 1, "merge": 1}
    again = routed_decode(*given, 0.05)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with count_launches() as launches:
        routed_decode(*step(8, 2, 32, 32, 256, batch=1), 0.05)
    assert launches == {"route": 1}  # Too short to be cut.
