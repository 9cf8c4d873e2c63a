"""The gated rotation of head outputs in place: one read and one write, and nothing where there is nothing to turn."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.launch import launch
from omnisink.kernels.prepared import Arguments, PreparedLaunch, launch_again
from omnisink.kernels.sizes import pieces, power_of_two

_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


@triton.jit
def tanh(x):
    """Hyperbolic tangent, without overflow, and without the cancellation of the closed form near zero."""
    size = tl.abs(x)
    e = tl.exp(-2.0 * size)
    square = x * x
    small = size * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)))
    value = tl.where(size < 0.04, small, (1.0 - e) / (1.0 + e))
    return tl.where(x < 0, -value, value)


# fmt: off
@triton.jit(do_not_specialize=["frozen", "rows", "length", "stride_ob"])
def turn(
    output, direction, frozen, slots, gammas, gamma, tau, rows, heads, groups, length, stride_ob, stride_os,
    stride_oh, width, stride_n, HAS_SLOTS: tl.constexpr, HAS_FROZEN: tl.constexpr, HAS_GAMMAS: tl.constexpr,
    ALIGNED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    token = row // heads
    head = row % heads
    inside = row < rows
    slot = token // length
    if HAS_SLOTS:
        slot = tl.load(slots + token, mask=inside, other=-1)
        inside = inside & (slot >= 0)
    if HAS_FROZEN:
        inside = inside & (tl.load(frozen + token, mask=inside, other=1) == 0)
    strength = tl.zeros((ROWS,), tl.float32) + gamma
    if HAS_GAMMAS:
        strength = tl.load(gammas + slot, mask=inside, other=0.0)
        inside = inside & (strength != 0)
    wide = inside[:, None] & (column[None, :] < width)
    place = slot.to(tl.int64)[:, None] * stride_n + (head // groups)[:, None] * width + column[None, :]
    u = tl.load(direction + place, mask=wide, other=0.0)
    if tl.max(tl.max(tl.abs(u), axis=1), axis=0) > 0:
        batch_stride = stride_ob.to(tl.int64)
        if ALIGNED:
            batch_stride = tl.multiple_of(batch_stride, 16)
        at = (token // length).to(tl.int64) * batch_stride + (token % length).to(tl.int64) * stride_os
        at = (at + head * stride_oh)[:, None] + column[None, :]
        o = tl.load(output + at, mask=wide, other=0.0).to(tl.float32)
        projection = tl.sum(o * u, axis=1)
        size = tl.sqrt(tl.sum(o * o, axis=1))
        cosine = projection / tl.maximum(size, _TINY)
        cosine = tl.where(cosine < 0, 0.0, cosine)  # Not the maximum with zero, which would hide NaN.
        gate = tanh(cosine / tau) * strength
        turned = o + (gate * projection)[:, None] * u
        # The new length is measured, not computed from gate and cosine: turning away would cancel there.
        new_size = tl.sqrt(tl.sum(turned * turned, axis=1))
        turned = turned * (size / tl.where(new_size == 0, 1.0, new_size))[:, None]
        moves = wide & ((gate != 0) & (new_size != 0))[:, None]
        tl.store(output + at, turned.to(output.dtype.element_ty), mask=moves)
# fmt: on


def rotate_in_place(
    output: Tensor,
    direction: Tensor,
    *,
    gamma: float | Tensor,
    tau: float,
    slots: Tensor | None = None,
    frozen: Tensor | None = None,
    prepared: dict[Any, list[PreparedLaunch]] | None = None,
) -> None:
    """Rotate head outputs, as `omnisink.maths.rotation.rotate` does.

    Parameters
    ----------
    output : Tensor
        (B, S, H, D'), with any strides but that of the channels, which is one. Changed in place.
    direction : Tensor
        (slots, H or K, D') float32 unit vectors; a zero vector leaves its head as it is.
    gamma : float or Tensor
        Strength; a tensor, (slots,) float32, has one for each slot.
    tau : float
        Temperature of the gate.
    slots : Tensor, optional
        (B * S,) int32 or int64, the slot of each token; -1 leaves a token as it is. None: slot b for row b.
    frozen : Tensor, optional
        (B, S) bool, contiguous, True for tokens to leave as they are.
    prepared : dict, optional
        Launches of the layers before, of one prefill, whose `slots` and `gamma`, where they are tensors, were the
        same.
    """
    if prepared is None:
        kernel, grid, fixed, constants = _turning(output, direction, gamma, tau, slots, frozen is not None)
        launch(kernel, grid, output, direction, direction if frozen is None else frozen, *fixed, **constants)
        return
    launch_again(
        prepared,
        ("turn", None if isinstance(gamma, Tensor) else float(gamma), tau, frozen is not None),
        lambda: [_turning(output, direction, gamma, tau, slots, frozen is not None)],
        (output, direction, direction if frozen is None else frozen),
        checked=2,
    )


def prepare_rotation(output: Tensor, direction: Tensor, *, gamma: float, tau: float) -> PreparedLaunch:
    """Prepare `rotate_in_place` for head outputs laid out like `output`, by vectors that stay where they are."""
    kernel, grid, fixed, constants = _turning(output, direction, gamma, tau, None, False)
    return PreparedLaunch(kernel, grid, output, direction, direction, *fixed, **constants)


def _turning(
    output: Tensor, direction: Tensor, gamma: float | Tensor, tau: float, slots: Tensor | None, freezes: bool
) -> Arguments:
    batch, length, heads, width = output.shape
    rows = batch * length * heads
    per_program = 16 if rows >= 4096 else 4
    has_gammas = isinstance(gamma, Tensor)
    stride_b, stride_s, stride_h, _ = output.stride()
    fixed = (
        # A pointer that is not used still has to be one.
        direction if slots is None else slots, gamma if has_gammas else direction,
        0.0 if isinstance(gamma, Tensor) else float(gamma), float(tau),
        rows, heads, heads // direction.shape[1], length, stride_b, stride_s, stride_h, width, direction.stride(0),
    )  # fmt: skip
    constants = {
        "HAS_SLOTS": slots is not None,
        "HAS_FROZEN": freezes,
        "HAS_GAMMAS": has_gammas,
        "ALIGNED": stride_b % 16 == 0,
        "ROWS": per_program,
        "WIDTH": max(16, power_of_two(width)),
    }
    return turn, (pieces(rows, per_program), 1, 1), fixed, constants
