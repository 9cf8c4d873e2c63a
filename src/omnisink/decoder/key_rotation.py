"""Turn keys to other positions. Rotary positions add up, so that the key before its rotation is not needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeyRotation:
    """How a layer's keys carry their position.

    Parameters
    ----------
    inverse_frequencies : Tensor
        (R / 2,) float, the angle of a position in each pair of channels.
    interleaved : bool
        Whether a pair is two neighbouring channels; otherwise it is channel i and channel i + R / 2.
    first : int
        Where the R channels that are rotated begin.
    """

    inverse_frequencies: Tensor
    interleaved: bool = False
    first: int = 0

    def __call__(self, keys: Tensor, shift: Tensor | int) -> Tensor:
        """Move keys by some positions.

        Parameters
        ----------
        keys : Tensor
            (B, K, n, D), after rotation.
        shift : Tensor or int
            Positions, (B,) or one for all.

        Returns
        -------
        Tensor
            Of the same shape and dtype; computed in float32 at least.
        """
        wide = torch.promote_types(keys.dtype, torch.float32)
        angle = torch.as_tensor(shift, device=keys.device).to(wide).reshape(-1, 1, 1, 1)
        angle = angle * self.inverse_frequencies.to(keys.device, wide)
        width = 2 * angle.shape[-1]
        before, turned, after = keys.split([self.first, width, keys.shape[-1] - self.first - width], dim=-1)
        pairs = (
            turned.to(wide).unflatten(-1, (-1, 2)) if self.interleaved else turned.to(wide).unflatten(-1, (2, -1)).mT
        )
        one, other = pairs.unbind(-1)
        cos, sin = angle.cos(), angle.sin()
        pairs = torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1)
        turned = (pairs if self.interleaved else pairs.mT).flatten(-2).to(keys.dtype)
        return torch.cat([before, turned, after], dim=-1)
