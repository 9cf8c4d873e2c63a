"""The massive-activation criterion with tensors only, for where the host may not look at values."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.maths.host import token_blocks


def by_bisection(
    hidden: Tensor, token_mask: Tensor | None, magnitude: Tensor, candidate: Tensor, median_ratio: float
) -> Tensor:
    """Decide with tensors only: bisect over the sorted candidates, one counting pass a step."""
    batch, length, width = hidden.shape
    if token_mask is None:
        needed = torch.full((batch,), (length * width + 1) // 2, device=hidden.device)
    else:
        needed = (token_mask.sum(dim=1) * width + 1) // 2
    levels = magnitude.masked_fill(~candidate, 0.0).sort(dim=1, descending=True).values
    limits = _largest_below(levels, median_ratio)
    size = hidden.abs()
    passing = torch.zeros(batch, dtype=torch.long, device=hidden.device)
    failing = candidate.sum(dim=1)
    for _ in range(length.bit_length()):
        open_ = passing < failing
        probe = (passing + failing) // 2
        limit = limits.gather(1, probe.clamp(max=length - 1)[:, None])[:, :, None]
        found = torch.zeros_like(needed)
        for block in token_blocks(hidden):
            below = size[:, block] <= limit
            if token_mask is not None:
                below = below & token_mask[:, block, None]
            found = found + below.sum(dim=(1, 2))
        enough = found >= needed
        passing = torch.where(open_ & enough, probe + 1, passing)
        failing = torch.where(open_ & ~enough, probe, failing)
    level = levels.gather(1, (passing - 1).clamp(min=0)[:, None])
    return candidate & (magnitude >= level) & (passing > 0)[:, None]


def _largest_below(levels: Tensor, ratio: float) -> Tensor:
    """Return the largest x with ``ratio * x <= level`` in float32; comparing with it saves a product of every element.

    A quotient rounds to within one step of it, so looking a step to either side finds it.
    """
    guess = levels / ratio
    lower = torch.nextafter(guess, torch.zeros_like(guess))
    upper = torch.nextafter(guess, torch.full_like(guess, float("inf")))
    found = torch.where(guess * ratio <= levels, guess, lower)
    return torch.where(upper * ratio <= levels, upper, found)
