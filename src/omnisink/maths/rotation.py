"""Gated head-output rotation: turn head outputs toward the sink's value vector and keep their length.

With the unit vector ``u = v / |v|``, the projection ``p = o . u``, the length ``n = |o|`` and ``c = p / n``, the
method's ``o + gate * gamma * (|o . v| / |v|^2) * v`` is ``o + g p u`` for ``g = gamma * tanh(relu(c) / tau)``, because
the gate is shut wherever p is negative. The new squared length is ``n^2 (1 + c^2 g (2 + g))``: no second pass over o
is needed, and with g = 0 the factor is exactly one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnisink.maths.choice import kernels_run_on
from omnisink.maths.host import is_eager_cpu, token_blocks

_TINY = torch.finfo(torch.float32).tiny


def sink_value(value: Tensor, sinks: Tensor) -> Tensor:
    """Mean value vector of each sequence's sink tokens, (B, K, D) float32; zero for a sequence without a sink.

    It takes the values of the prompt before repetition for grouped queries, (B, K, S, D) of any floating dtype, and
    the sinks, (B, S) bool.
    """
    if is_eager_cpu(value):
        columns = sinks.any(dim=0).nonzero().flatten()
        value, sinks = value.index_select(2, columns), sinks.index_select(1, columns)
    picked = value.masked_fill(~sinks[:, None, :, None], 0.0)
    count = sinks.sum(dim=1).clamp(min=1)
    return picked.sum(dim=2, dtype=torch.float32) / count[:, None, None]


def sink_direction(value: Tensor, sinks: Tensor, heads: int) -> Tensor:
    """Return the unit vector of the mean sink value for each query head, (B, H, D) float32.

    `value` and `sinks` are those of `sink_value`. The number `heads` of query heads H is a multiple of K; query head j
    reads key/value head ``j // (H / K)``. The vector is zero without a sink, or where the mean value itself is zero.
    """
    mean = sink_value(value, sinks)
    length = torch.linalg.vector_norm(mean, dim=-1, keepdim=True)
    unit = mean / length.clamp(min=_TINY)
    return unit if heads == unit.shape[1] else unit.repeat_interleave(heads // unit.shape[1], dim=1)


def rotate(
    output: Tensor, direction: Tensor, *, gamma: float | Tensor, tau: float, frozen: Tensor | None = None
) -> Tensor:
    """Rotate head outputs toward a direction by a gated amount, keeping every length.

    Parameters
    ----------
    output : Tensor
        Head outputs before the output projection, (B, S, H, D), any floating dtype.
    direction : Tensor
        Unit vectors, (B, H, D), float32; a zero vector leaves its head as it is. See `sink_direction`.
    gamma : float or Tensor
        Strength. Negative turns away, with the same gate. A tensor, (B,) float32, has one for each sequence.
    tau : float
        Temperature of the gate ``tanh(relu(cos) / tau)``, positive.
    frozen : Tensor, optional
        (B, S) bool, True for tokens to leave exactly as they are (sinks, padding).

    Returns
    -------
    Tensor
        (B, S, H, D) in the dtype of `output`, computed in float32. Where no gradient is asked for and nothing is being
        compiled this is `output` itself, rotated in place a block of tokens at a time.
    """
    if output.stride(-1) == 1 and kernels_run_on(output, direction):
        from omnisink.kernels.rotation import rotate_in_place

        rotate_in_place(output, direction, gamma=gamma, tau=tau, frozen=frozen)
        return output
    direction = direction[:, None]
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and output.requires_grad):
        wide = output.float()
        along, rescale = turn(wide, direction, gamma, tau, frozen)
        return (torch.addcmul(wide, along, direction) * rescale).to(output.dtype)
    blocks = token_blocks(output)
    if len(blocks) == 1:
        _rotate_in_place(output, direction, gamma, tau, frozen)
    else:
        for block in blocks:
            _rotate_in_place(output[:, block], direction, gamma, tau, None if frozen is None else frozen[:, block])
    return output


class Rotation:
    """`rotate` by the same vectors, step after step: what the host looks up for the kernel, it looks up once.

    Parameters
    ----------
    direction, gamma, tau
        As for `rotate`; gamma is a number.
    """

    def __init__(self, direction: Tensor, *, gamma: float, tau: float) -> None:
        self._direction, self._gamma, self._tau = direction, gamma, tau
        self._prepared: Any = None

    def __call__(self, output: Tensor) -> Tensor:
        """Rotate head outputs (B, S, H, D), as `rotate` does, where no gradient is asked for."""
        prepared = self._prepared
        if prepared is None or not prepared.fits(output):
            if output.stride(-1) != 1 or not kernels_run_on(output, self._direction):
                return rotate(output, self._direction, gamma=self._gamma, tau=self._tau)
            from omnisink.kernels.rotation import prepare_rotation

            prepared = prepare_rotation(output, self._direction, gamma=self._gamma, tau=self._tau)
            self._prepared = prepared
        prepared(output)
        return output


def _rotate_in_place(
    output: Tensor, direction: Tensor, gamma: float | Tensor, tau: float, frozen: Tensor | None
) -> None:
    wide = output.float()
    along, rescale = turn(wide, direction, gamma, tau, frozen)
    wide.addcmul_(along, direction).mul_(rescale)
    if wide is not output:
        output.copy_(wide)


def turn(
    output: Tensor, direction: Tensor, gamma: float | Tensor, tau: float, frozen: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return how far to go along the direction and what to rescale by, each (B, S, H, 1); exactly 0 and 1 to stay."""
    turns_away = _may_turn_away(gamma)
    if isinstance(gamma, Tensor):
        gamma = gamma[:, None, None, None]
    projection = (output * direction).sum(dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(output, dim=-1, keepdim=True)
    # A zero output has a zero projection, so any positive divisor gives it a shut gate.
    cosine = (projection / length.clamp(min=_TINY)).clamp_(min=0)
    gate = torch.tanh(cosine * (1 / tau)) * gamma
    if frozen is not None:
        gate = gate.masked_fill(frozen[:, :, None, None], 0.0)
    along = gate * projection
    if not turns_away:
        return along, torch.rsqrt(1 + cosine * cosine * gate * (gate + 2))
    # Turning away shortens the output before it is rescaled, and 1 + c^2 g (2 + g) cancels: measure the new length.
    new_length = torch.linalg.vector_norm(torch.addcmul(output, along, direction), dim=-1, keepdim=True)
    stay = (gate == 0) | (new_length == 0)
    return along.masked_fill(stay, 0.0), (length / new_length).masked_fill(stay, 1.0)


def _may_turn_away(gamma: float | Tensor) -> bool:
    """Whether a strength is negative, or could be one where the host may not look."""
    if isinstance(gamma, Tensor):
        return not is_eager_cpu(gamma) or bool((gamma < 0).any())
    return gamma < 0
