"""The sink-dimension criterion: tokens that stand out in known channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sink_dimension_sinks(
    hidden: Tensor, token_mask: Tensor | None = None, *, channels: Sequence[int], threshold: float = 20.0
) -> Tensor:
    """Mark the tokens that stand out in known sink channels (Kang et al. 2025).

    Token t is a sink iff ``max over channels of |h[t, c]| / RMS(h[t]) >= threshold``. Computed in float32.

    Parameters
    ----------
    hidden : Tensor
        Residual stream entering a layer, (B, S, d), any floating dtype.
    token_mask : Tensor, optional
        (B, S) bool, False at padding, which is never a sink. None: every token is real.
    channels : sequence of int
        Channels of the residual stream known to carry massive activations in this model.
    threshold : float
        Multiple of the token's root mean square.

    Returns
    -------
    Tensor
        (B, S) bool on the device of `hidden`.

    Raises
    ------
    ValueError
        If a channel lies outside the model width.
    """
    width = hidden.shape[-1]
    outside = [c for c in channels if not 0 <= c < width]
    if outside or not channels:
        raise ValueError(f"sink channels must be some of 0..{width - 1}, got {list(channels)}")
    rms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32) * width**-0.5
    peak = hidden[..., list(channels)].abs().amax(dim=-1).float()
    sinks = (peak >= threshold * rms) & (rms > 0)
    return sinks if token_mask is None else sinks & token_mask
