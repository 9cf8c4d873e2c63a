"""Every function of `maths` that has kernels of its own on an accelerator, against the CPU and against float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from omnisink.maths.relaxation import attend_to_all
from omnisink.maths.rotation import rotate, sink_direction
from omnisink.maths.sinks import massive_activation_sinks

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Rounding that a row may show, relative to its length: of float32 sums, and of one rounding to half precision.
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 0.75 * 2**-7, torch.float16: 0.75 * 2**-10}


def sinks(device: torch.device, dtype: torch.dtype) -> str:
    """Sinks are those that the CPU finds, to the bit."""
    count = marked = 0
    for name, hidden, token_mask, given in streams(dtype):
        expected = massive_activation_sinks(hidden, token_mask, **given)
        there = None if token_mask is None else token_mask.to(device)
        found = massive_activation_sinks(hidden.to(device), there, **given).cpu()
        wrong = int((found != expected).sum())
        assert not wrong, f"{name}: {wrong} of {expected.numel()} tokens are marked otherwise than on the CPU"
        count, marked = count + 1, marked + int(expected.sum())
    assert marked > 1000, "hardly any token is a sink: the comparison would be of nothing"
    return f"{count} streams, {marked:,} sinks"


def streams(dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor | None, dict[str, float]]]:
    """Yield residual streams: ordinary ones, ties, thousands of candidates, infinities, padding, odd widths."""
    make = torch.Generator().manual_seed(1)

    def noise(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=make) * scale

    for shape in ((1, 1, 8), (2, 5, 48), (3, 130, 896), (2, 17, 1000), (1, 700, 3584), (1, 3, 16_384)):
        hidden = noise(*shape)
        hidden[:, 0, 3] = 2000.0
        hidden[0, -1, 1] = -700.0
        yield f"{shape}", hidden.to(dtype), None, {}
        token_mask = torch.ones(shape[:2], dtype=torch.bool)
        for b in range(shape[0]):
            token_mask[b, : b * shape[1] // 4] = False
        yield f"{shape}, padded on the left", hidden.to(dtype), token_mask, {}
        yield f"{shape}, padded on the right", hidden.to(dtype), token_mask.flip(1), {}
    for ratio in (1.0, 2.0, 3.5, 5.0, 1000.0):
        # As in wide models: nearly every token reaches the smallest activation.
        wide = noise(2, 2048, 512, scale=60.0)
        yield f"thousands of candidates, ratio {ratio}", wide.to(dtype), None, {"median_ratio": ratio}
        token_mask = torch.rand(2, 2048, generator=make) > 0.3
        yield f"thousands of candidates with gaps, ratio {ratio}", wide.to(dtype), token_mask, {"median_ratio": ratio}
        # The median and the largest activations fall on a few values, many on the threshold itself.
        coarse = (wide / 50).round() * 50
        yield f"ties, ratio {ratio}", coarse.to(dtype), None, {"median_ratio": ratio}
    yield from edges(dtype)


def edges(dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor | None, dict[str, float]]]:
    """Yield streams with a token on the threshold and beside it, and with NaN and infinities."""
    for level, ratio in ((500.0, 1000.0), (500.0, 700.0), (600.0, 1200.0), (100.0, 3.0)):
        hidden = torch.full((1, 9, 64), 0.5 if ratio > 100 else 33.0, dtype=dtype)
        signed = torch.tensor(level, dtype=dtype)
        for token, other in enumerate(
            (signed, torch.nextafter(signed, signed * 0), torch.nextafter(signed, signed * 2))
        ):
            hidden[0, 2 * token, 5] = -other if token == 1 else other
        yield f"on the threshold {level} of {ratio}", hidden, None, {"median_ratio": ratio}
    for name, value in (("infinity", float("inf")), ("minus infinity", float("-inf")), ("no number", float("nan"))):
        for many in (1, 40):
            hidden = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(many)).to(dtype)
            hidden[0, :many, 7] = value
            hidden[:, 50, 9] = 5000.0
            yield f"{name} in {many} tokens", hidden, None, {}
    yield "zeros", torch.zeros(1, 5, 32, dtype=dtype), None, {}
    lonely = torch.zeros(2, 5, 32, dtype=dtype)
    lonely[:, 1, 3] = 101.0
    yield "one value among zeros", lonely, None, {}
    nothing = torch.ones(2, 5, dtype=torch.bool)
    nothing[1] = False
    yield "a sequence of nothing but padding", lonely, nothing, {}
    strided = torch.randn(2, 33, 512, generator=torch.Generator().manual_seed(3)).to(dtype)
    strided[0, 0, 4] = 3000.0
    yield "not contiguous", strided[..., ::2], None, {}
    yield "transposed", strided.transpose(0, 1).contiguous().transpose(0, 1), None, {}


def direction(device: torch.device, dtype: torch.dtype) -> str:
    """The direction is the unit vector of the mean of the sinks' values, and zero without a sink."""
    count = 0
    for width, (heads, kv_heads), chosen in itertools.product(
        (16, 64, 80, 96, 128, 192, 256), ((4, 4), (28, 4), (6, 2)), ((), (0,), (0, 7, 30, 63))
    ):
        make = torch.Generator().manual_seed(width)
        value = torch.randn(2, kv_heads, 64, width, generator=make).to(dtype)
        value[1, 0] = 0.0
        marks = torch.zeros(2, 64, dtype=torch.bool)
        marks[0, list(chosen)] = True
        marks[1, 5] = bool(chosen)
        mean = (value.double() * marks[:, None, :, None]).sum(2) / marks.sum(1).clamp(min=1)[:, None, None]
        unit = mean / mean.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        expected = unit.repeat_interleave(heads // kv_heads, dim=1)
        there = value.to(device)
        for name, given in (("", there), (" not contiguous", there.transpose(1, 2).contiguous().transpose(1, 2))):
            found = sink_direction(given, marks.to(device), heads).cpu()
            case = f"width {width}, {heads} heads of {kv_heads}, {len(chosen)} sinks{name}"
            assert found.shape == expected.shape, f"{case}: the shape is {tuple(found.shape)}"
            worst = float((found.double() - expected).abs().max())
            assert worst <= 5e-6, f"{case}: off by {worst:.1e}"
            count += 1
    return f"{count} cases"


def rotation(device: torch.device, dtype: torch.dtype) -> str:
    """Rotated outputs are those of the paper's formula in float64; what is to stay is the same to the bit."""
    count, worst = 0, 0.0
    strengths: list[Any] = [3.0, 0.3, -0.5, 0.0, torch.tensor([0.7, -0.4, 0.0])]
    for (batch, length, heads, width), gamma, keeping in itertools.product(
        ((3, 1, 28, 128), (3, 37, 4, 64), (3, 300, 6, 80), (3, 5, 2, 96), (3, 9, 8, 256)), strengths, (False, True)
    ):
        make = torch.Generator().manual_seed(length)
        unit = torch.randn(batch, heads, width, generator=make)
        unit = unit / unit.norm(dim=-1, keepdim=True)
        unit[1, 0] = 0.0
        output = (torch.randn(batch, length, heads, width, generator=make) * 0.5 + 2 * unit[:, None]).to(dtype)
        output[0, 0, 1] = 0.0
        frozen = torch.rand(batch, length, generator=make) > 0.5 if keeping else None
        expected = rotated(output, unit, gamma, 0.1, frozen)
        strength = gamma.to(device) if isinstance(gamma, Tensor) else gamma
        there = None if frozen is None else frozen.to(device)
        base = output.to(device)
        for name, given in (
            ("", base.clone()),
            (" not contiguous", base.transpose(1, 2).contiguous().transpose(1, 2)),
        ):
            found = rotate(given, unit.to(device), gamma=strength, tau=0.1, frozen=there).cpu()
            case = f"{(batch, length, heads, width)}, gamma {gamma}, keep {keeping}{name}"
            assert found.dtype == dtype, f"{case}: the dtype is {found.dtype}"
            still = (expected == output.double()).all(dim=-1)
            assert torch.equal(found[still], output[still]), f"{case}: what is to stay has changed"
            size = expected.norm(dim=-1).clamp(min=1e-30)
            error = float(((found.double() - expected).norm(dim=-1) / size)[~still].max()) if (~still).any() else 0.0
            assert error <= ROUNDING[dtype], f"{case}: off by {error:.1e} of the row's length"
            worst, count = max(worst, error), count + 1
    return f"{count} cases, off by {worst:.1e} of a row's length at most"


def rotated(output: Tensor, unit: Tensor, gamma: Any, tau: float, frozen: Tensor | None) -> Tensor:
    """Rotate by the paper's formula, in float64."""
    wide, aim = output.double(), unit.double()[:, None]
    strength = gamma.double()[:, None, None, None] if isinstance(gamma, Tensor) else gamma
    length = wide.norm(dim=-1, keepdim=True)
    along = (wide * aim).sum(dim=-1, keepdim=True)
    gate = torch.tanh((along / length.clamp(min=1e-300)).clamp(min=0) / tau) * strength
    if frozen is not None:
        gate = gate.masked_fill(frozen[:, :, None, None], 0.0)
    turned = wide + gate * along * aim
    turned = turned * length / turned.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return torch.where((gate == 0) | (along == 0), wide, turned)


def relaxed(device: torch.device, dtype: torch.dtype) -> str:
    """Relaxed rows attend to every real key, as plain attention in float64 does."""
    count, worst = 0, 0.0
    allowed = {torch.float32: 2e-5, torch.bfloat16: 3 * 2**-7, torch.float16: 3 * 2**-10}[dtype]
    shapes = ((28, 4, 128, 128), (4, 4, 64, 64), (6, 2, 80, 80), (8, 2, 96, 64), (2, 1, 256, 256))
    options: list[dict[str, Any]] = [{}, {"scaling": 0.05}, {"softcap": 20.0}, {"learned": True}]
    for (heads, kv_heads, depth, width), given, padded in itertools.product(shapes, options, (False, True)):
        make = torch.Generator().manual_seed(depth)
        query = torch.randn(2, heads, 3, depth, generator=make).to(dtype)
        key = torch.randn(2, kv_heads, 129, depth, generator=make).to(dtype)
        value = torch.randn(2, kv_heads, 129, width, generator=make).to(dtype)
        token_mask = torch.ones(2, 129, dtype=torch.bool)
        token_mask[1, :50] = not padded
        more = {name: number for name, number in given.items() if name != "learned"}
        learned = torch.randn(heads, generator=make) if "learned" in given else None
        wide_key, wide_value = (t.double().repeat_interleave(heads // kv_heads, dim=1) for t in (key, value))
        scores = query.double() @ wide_key.transpose(2, 3) * more.get("scaling", depth**-0.5)
        if "softcap" in more:
            scores = more["softcap"] * torch.tanh(scores / more["softcap"])
        scores = scores.masked_fill(~token_mask[:, None, None], float("-inf"))
        if learned is not None:
            scores = torch.cat([scores, learned.double()[None, :, None, None].expand(2, -1, 3, 1)], dim=-1)
        expected = (scores.softmax(dim=-1)[..., :129] @ wide_value).transpose(1, 2)
        found = attend_to_all(
            query.to(device),
            key.to(device),
            value.to(device),
            token_mask.to(device) if padded else None,
            learned_sink=None if learned is None else learned.to(device),
            **more,
        ).cpu()
        error = float(((found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
        assert error <= allowed, f"{(heads, kv_heads, depth, width)}, {given}, padded {padded}: off by {error:.1e}"
        worst, count = max(worst, error), count + 1
    return f"{count} cases, off by {worst:.1e} of a row's length at most"
