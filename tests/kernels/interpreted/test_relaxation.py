"""Relaxed rows by the kernel against the reference."""

from __future__ import annotations

import pytest
import torch

from omnisink.kernels.launch import count_launches
from omnisink.kernels.layout import Layout
from omnisink.kernels.relaxation import relax_in_place
from omnisink.maths.relaxation import attend_to_all
from tests.kernels.interpreted.reference import reference

SLACK = {torch.float32: 3e-6, torch.bfloat16: 2**-6, torch.float16: 2**-9}


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask(batch, length, *places):
    made = torch.zeros(batch, length, dtype=torch.bool)
    for place in places:
        made[place] = True
    return made


def agrees(query, key, value, sinks, token_mask=None, done=None, **options):
    """Compare with the reference's rows, and hold that nothing else changes. Return the stamps."""
    batch, heads, length, _ = query.shape
    output = draw(99, batch, length, heads, value.shape[3]).to(query.dtype)
    before = output.clone()
    stamps = torch.zeros(batch, length, dtype=torch.int32) if done is None else done.int() * 2
    layout = Layout.of_batch(batch, length, token_mask, query.device)
    relax_in_place(output, query, key, value, sinks, stamps, layout, stamp=5, **options)
    options.pop("window", None)
    with reference():
        rows = attend_to_all(query, key[:, :, :length], value[:, :, :length], token_mask, **options)
    fresh = stamps == 5
    assert torch.equal(output[~fresh], before[~fresh])
    if fresh.any():
        assert (output[fresh].float() - rows[fresh].float()).abs().max() <= SLACK[query.dtype]
    return stamps


@pytest.mark.parametrize("dtype", list(SLACK), ids=str)
@pytest.mark.parametrize(
    ("heads", "kv", "depth", "width"), [(4, 4, 64, 64), (6, 2, 80, 80), (2, 1, 192, 128), (2, 1, 256, 256)]
)
def test_rows(dtype, heads, kv, depth, width):
    query, key, value = (
        draw(i, 2, n, 9, d).to(dtype) for i, (n, d) in enumerate([(heads, depth), (kv, depth), (kv, width)])
    )
    sinks = mask(2, 9, (0, 0), (0, 6), (1, 8))
    assert torch.equal(agrees(query, key, value, sinks) == 5, sinks)


@pytest.mark.parametrize(
    "options",
    [
        {"scaling": 0.7},
        {"scaling": 0.0},
        {"softcap": 1.5},
        {"softcap": 50.0, "scaling": 2.0},
        {"learned_sink": torch.tensor([3.0, -1.0, 0.0, 40.0])},
        {"learned_sink": torch.tensor([3.0, -1.0, 0.0, -90.0]), "softcap": 2.0},
    ],
    ids=str,
)
def test_what_models_do_to_scores(options):
    query, key, value = draw(1, 1, 4, 70, 16), draw(2, 1, 2, 70, 16), draw(3, 1, 2, 70, 16)
    agrees(query, key, value, mask(1, 70, (0, 0), (0, 33), (0, 69)), **options)


def test_scores_of_any_size():
    query, key, value = draw(1, 1, 2, 40, 16) * 60, draw(2, 1, 2, 40, 16) * 60, draw(3, 1, 2, 40, 16)
    agrees(query, key, value, mask(1, 40, (0, 0), (0, 21)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_seen(side):
    query, key, value = draw(1, 2, 2, 600, 16), draw(2, 2, 2, 600, 16), draw(3, 2, 2, 600, 16)
    token_mask = torch.ones(2, 600, dtype=torch.bool)
    token_mask[1, slice(0, 550) if side == "left" else slice(50, 600)] = False
    key[~token_mask[:, None].expand(-1, 2, -1)] = torch.nan
    sinks = mask(2, 600, (0, 3), (1, 560 if side == "left" else 4))
    agrees(query, torch.nan_to_num(key, nan=9.0), value, sinks, token_mask)


def test_a_static_cache_has_an_empty_tail():
    query, key, value = draw(1, 2, 4, 10, 16), draw(2, 2, 2, 32, 16), draw(3, 2, 2, 32, 16)
    key[:, :, 10:] = value[:, :, 10:] = torch.nan
    agrees(query, key, value, mask(2, 10, (0, 0), (1, 9)))


def test_a_row_is_relaxed_once_and_windows_that_do_not_cover_the_prompt_leave_it():
    query, key, value = draw(1, 2, 2, 12, 16), draw(2, 2, 1, 12, 16), draw(3, 2, 1, 12, 16)
    sinks = mask(2, 12, (0, 2), (0, 5), (1, 6))
    stamps = agrees(query, key, value, sinks, done=mask(2, 12, (0, 2)))
    assert stamps.nonzero().tolist() == [[0, 2], [0, 5], [1, 6]]
    assert (stamps[0, 2], stamps[0, 5]) == (2, 5)
    token_mask = torch.ones(2, 12, dtype=torch.bool)
    token_mask[1, :4] = False
    stamps = agrees(query, key, value, sinks, token_mask, window=8)
    assert stamps.nonzero().tolist() == [[1, 6]]
    assert agrees(query, key, value, sinks, token_mask, window=12).count_nonzero() == 3


def test_every_row_may_be_a_sink():
    query, key, value = draw(1, 1, 2, 70, 16), draw(2, 1, 2, 70, 16), draw(3, 1, 2, 70, 16)
    with count_launches() as launches:
        agrees(query, key, value, torch.ones(1, 70, dtype=torch.bool))
    assert launches == {"relax": 1}


def test_strides():
    query, key, value = (draw(i, 2, 11, 3, 16).transpose(1, 2) for i in range(3))
    sinks = mask(2, 11, (0, 4), (1, 10))
    agrees(query, key, value, sinks)
    agrees(query[..., ::2], key[..., ::2], value, sinks)


def test_packed_prompts_see_their_own_keys():
    lengths, heads = [5, 7], 2
    query, key, value = (draw(i, 1, 14, heads, 16).transpose(1, 2) for i in range(3))
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    sequence = torch.tensor([0] * 5 + [1] * 7 + [-1] * 2, dtype=torch.int32)
    layout = Layout(14, 14, 7, sequence, bounds[:-1], bounds[1:], torch.tensor(lengths, dtype=torch.int32))
    sinks = mask(1, 14, (0, 0), (0, 6))
    output, stamps = torch.zeros(1, 14, heads, 16), torch.zeros(1, 14, dtype=torch.int32)
    relax_in_place(output, query, key, value, sinks, stamps, layout, stamp=1)
    with reference():
        for token, own in ((0, slice(0, 5)), (6, slice(5, 12))):
            row = attend_to_all(query[:, :, [token]], key[:, :, own], value[:, :, own])
            assert (output[:, token] - row[:, 0]).abs().max() < 3e-6
    output[:, [0, 6]] = 0
    assert not output.any()
