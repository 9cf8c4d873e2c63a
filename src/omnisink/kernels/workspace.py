"""What detection keeps of a prefill beside the residual stream: made once, and used by all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnisink.kernels.layout import Layout

#: Candidates whose magnitudes are kept by name.
FEW = 8
#: Bins for ``|h|``: as many as half precision has sizes of numbers.
BINS = 1 << 15
#: Integers kept for a sequence at a layer: five of the first eight, the bits of the first candidates, the counts.
WORDS = 8 + 2 * FEW
#: Which of the integers says that something is not finite.
NOT_FINITE = 4


@dataclass(frozen=True)
class Workspace:
    """What detection needs beside the residual stream; made once for a prefill, and used by all of its layers.

    Attributes
    ----------
    layout : Layout
        The sequences.
    numbers : Tensor
        (layers, n, WORDS) int64, zero at first.
    bins : Tensor
        (n, BINS) int32, zero between layers: how often ``|h|`` falls into each bin.
    magnitude : Tensor
        (layers, tokens) float32, the largest activation of each token; zero at padding.
    marks : Tensor
        (layers, tokens) int8, zero at first, one at sinks.
    sinks : tuple of Tensor
        The marks of each layer, as (B, S) bool.
    magnitudes : tuple of Tensor
        The magnitudes of each layer, as (B, S).
    """

    layout: Layout
    numbers: Tensor
    bins: Tensor
    magnitude: Tensor
    marks: Tensor
    sinks: tuple[Tensor, ...]
    magnitudes: tuple[Tensor, ...]

    @classmethod
    def of(cls, layout: Layout, layers: int) -> Workspace:
        """Make room for this number of layers."""
        device = layout.sequence.device
        marks = torch.zeros(layers, layout.tokens, dtype=torch.int8, device=device)
        magnitude = torch.zeros(layers, layout.tokens, dtype=torch.float32, device=device)
        return cls(
            layout,
            torch.zeros(layers, layout.sequences, WORDS, dtype=torch.int64, device=device),
            torch.zeros(layout.sequences, BINS, dtype=torch.int32, device=device),
            magnitude,
            marks,
            marks.view(torch.bool).view(layers, -1, layout.length).unbind(0),
            magnitude.view(layers, -1, layout.length).unbind(0),
        )

    @property
    def not_finite(self) -> Tensor:
        """(layers, n) bool, where a token's residual stream has held NaN or infinity."""
        return self.numbers[:, :, NOT_FINITE] > 0
