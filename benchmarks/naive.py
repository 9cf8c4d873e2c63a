"""OutRo written straight from the equations: what the package's own version is measured against, and equal to.

The median is sorted at every layer, sinks or not, and the rotation makes every intermediate tensor of the formula.
Everything else is shared, so that the comparison is about these two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnisink import OutRo
from omnisink.decoder.context import AttentionCall, Context


@dataclass(frozen=True)
class NaiveOutRo(OutRo):
    """The same method with a sorted median and an unfused rotation."""

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        if not (context.now.is_prefill and self._detects(layer, len(context.anatomy.layers))):
            return
        size = hidden.float().abs()
        token_mask = (
            torch.ones(hidden.shape[:2], dtype=torch.bool)
            if context.now.token_mask is None
            else context.now.token_mask
        )
        medians = [size[b][token_mask[b]].flatten().sort().values for b in range(len(size))]
        median = torch.stack([m[(len(m) - 1) // 2] for m in medians])
        peak = size.amax(dim=-1)
        threshold = (self.median_ratio * median).clamp(min=self.min_activation)
        context.record.sinks[layer] = (peak >= threshold[:, None]) & token_mask

    def _rotate(
        self, call: AttentionCall, output: Tensor, direction: Tensor, frozen: Tensor | None, context: Context
    ) -> Tensor:
        v = direction[:, None].expand_as(output)
        o = output.float()
        dot = (o * v).sum(dim=-1, keepdim=True)
        square = (v * v).sum(dim=-1, keepdim=True)
        cosine = dot / (o.norm(dim=-1, keepdim=True) * square.sqrt()).clamp(min=1e-30)
        gate = torch.tanh(torch.relu(cosine) / self.tau)
        turned = o + gate * self.gamma * (dot.abs() / square.clamp(min=1e-30)) * v
        turned = turned * o.norm(dim=-1, keepdim=True) / turned.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        left = (square == 0) if frozen is None else (square == 0) | frozen[:, :, None, None]
        return torch.where(left, o, turned).to(output.dtype)
