"""Decode steps of SinkRouter as the device does them, against float64."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from omnisink.maths.routing import Visible, routed_decode

#: What an output may be off by, relative to the longest value: of float32 sums, and of the rounding of weights.
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def routed(device: torch.device, dtype: torch.dtype) -> str:
    """Routed heads give their surrogate, the others attend to every key that is seen, as in float64."""
    count, worst = 0, 0.0
    shapes = ((28, 4, 128, 128), (4, 4, 64, 64), (8, 1, 80, 80), (16, 2, 256, 256), (6, 2, 192, 128), (32, 1, 96, 64))
    kinds = ("all", "ranges", "bool", "float")
    for (heads, kv_heads, depth, width), length, kind in itertools.product(shapes, (1, 700, 3000), kinds):
        softcap = (None, 20.0)[count % 2]
        make = torch.Generator().manual_seed(depth + length)
        query = torch.randn(3, heads, 1, depth, generator=make).to(dtype)
        key = torch.randn(3, length, kv_heads, depth, generator=make).to(dtype).transpose(1, 2)
        value = torch.randn(3, kv_heads, length, width, generator=make).to(dtype)
        surrogate = torch.randn(3, kv_heads, width, generator=make) if softcap else None
        anchor = key[:, :, 0].float()
        visible, bias = seen(kind, length, make)
        expected, scores = attended(query, key, value, anchor, bias, softcap)
        # Between two scores, so that rounding does not decide.
        threshold = float(scores.flatten().sort().values[1:3].mean())
        given: dict[str, Any] = {"softcap": softcap}
        if surrogate is not None:
            given["surrogate_value"] = surrogate.to(device)
        found = routed_decode(
            *(t.to(device) for t in (query, key, value, anchor)), threshold, visible.to(device), **given
        )
        case = f"{(heads, kv_heads, depth, width)}, {length} keys, {kind}, soft cap {softcap}"
        assert float((found.scores.cpu().double() - scores).abs().max()) <= 1e-5, f"{case}: other scores"
        there = found.routed.cpu()
        assert torch.equal(there, scores > threshold), f"{case}: other heads are routed"
        assert found.output is not None, f"{case}: no output"
        instead = torch.zeros(3, kv_heads, width) if surrogate is None else surrogate
        expected = torch.where(there[..., None, None], instead.double()[:, :, None], expected)
        error = float((found.output.cpu().double() - expected.reshape(3, heads, 1, width)).abs().max())
        error /= float(value.double().abs().max())
        assert error <= ROUNDING[dtype], f"{case}: off by {error:.1e} of the largest value"
        worst, count = max(worst, error), count + 1
    return f"{count} cases, off by {worst:.1e} of the largest value at most"


def seen(kind: str, length: int, make: torch.Generator) -> tuple[Visible, Tensor]:
    """Make what the steps of three sequences see, and the same as what is added to their scores, (3, T)."""
    starts, stops = torch.zeros(3, dtype=torch.long), torch.full((3,), length)
    bias = torch.zeros(3, length)
    mask = None
    if kind != "all":
        starts[1], stops[2] = length // 3, length - length // 4
        place = torch.arange(length)
        bias.masked_fill_((place < starts[:, None]) | (place >= stops[:, None]), float("-inf"))
    if kind == "bool":
        mask = torch.rand(3, length, generator=make) > 0.3
        mask[:, length // 2] = True
        bias.masked_fill_(~mask, float("-inf"))
    elif kind == "float":
        bias = bias + torch.randn(3, length, generator=make)
        mask = bias
    return Visible(starts, stops, mask), bias


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    anchor: Tensor,
    bias: Tensor,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attend with every head in float64, (B, K, G, D'), and score every key/value head, (B, K)."""
    batch, kv_heads, _, depth = key.shape
    grouped = query.double().reshape(batch, kv_heads, -1, depth)
    scores = torch.nn.functional.cosine_similarity(grouped, anchor.double()[:, :, None], dim=-1).mean(dim=-1)
    logits = grouped @ key.double().mT * depth**-0.5
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    weights = (logits + bias.double()[:, None, None]).softmax(dim=-1)
    return weights @ value.double(), scores
