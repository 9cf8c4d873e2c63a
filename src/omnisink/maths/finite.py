"""Tell numbers from what overflowed or was never one: NaN and infinite activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from omnisink.maths.magnitude import nonfinite_tokens


def nonfinite_by_layer(magnitudes: Sequence[Tensor], token_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mark the layers with a real token that is NaN, and those with one that is infinite.

    Parameters
    ----------
    magnitudes : sequence of Tensor
        L times (B, S) float32, see `nonfinite_tokens`.
    token_mask : Tensor, optional
        (B, S) bool, False at padding.

    Returns
    -------
    tuple of Tensor
        (L,) bool, layers with NaN; (L,) bool, layers with infinite activations. On the device of the first, or on
        the CPU for no layers. Nothing waits for the accelerator.
    """
    if not magnitudes:
        return torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)
    device = magnitudes[0].device
    stacked = torch.stack([magnitude.to(device) for magnitude in magnitudes])
    bad = nonfinite_tokens(stacked, None if token_mask is None else token_mask.to(device))
    return (bad & stacked.isnan()).any(dim=(1, 2)), (bad & stacked.isinf()).any(dim=(1, 2))


def nonfinite_names(named: Iterable[tuple[str, Tensor]], limit: int = 3) -> list[str]:
    """Name the first tensors that hold NaN or infinite numbers. The host waits for each.

    Parameters
    ----------
    named : iterable of (str, Tensor)
        As a model's ``named_parameters()``. Tensors that are not here (on the meta device) and whole numbers pass.
    limit : int
        How many names are enough.

    Returns
    -------
    list of str
        At most `limit` names, in order.
    """
    found = []
    for name, tensor in named:
        if tensor.is_meta or not tensor.is_floating_point():
            continue
        wide = tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()  # 8 bits cannot be asked
        if not bool(wide.isfinite().all()):
            found.append(name)
            if len(found) == limit:
                break
    return found


def cause_of_nonfinite(named: Iterable[tuple[str, Tensor]]) -> str:
    """Say in one sentence where numbers that are not finite come from, and what to do.

    Parameters
    ----------
    named : iterable of (str, Tensor)
        A model's ``named_parameters()``.

    Returns
    -------
    str
        That the weights hold some, with names; that float16 overflowed; or what else to look at.
    """
    named = list(named)
    if names := nonfinite_names(named):
        return f"The weights are not finite: {', '.join(names)}. The checkpoint is damaged or was saved so"
    if any(tensor.dtype == torch.float16 for _, tensor in named):
        return "float16 ends at 65504: load the model with dtype bfloat16 or float32"
    looked_at = "weights in memory" if any(tensor.is_meta for _, tensor in named) else "weights"
    return f"The {looked_at} are finite: look at the inputs, and at the strength of the method"
