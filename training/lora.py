"""A low-rank update of the decoder's linear layers, trained beside the frozen weights and merged when loaded."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LowRank(nn.Module):
    """A frozen linear layer plus ``up @ down``."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with the update."""
        return self.base(x) + F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


def attach(decoder: nn.Module, rank: int) -> dict[str, LowRank]:
    """Put an update on every linear layer of a decoder; returns them by the layer's name."""
    found = {}
    for name, module in list(decoder.named_modules()):
        if name.rsplit(".", 1)[-1] in TARGETS and isinstance(module, nn.Linear):
            parent = decoder.get_submodule(name.rsplit(".", 1)[0])
            found[name] = LowRank(module, rank)
            setattr(parent, name.rsplit(".", 1)[-1], found[name])
    return found
