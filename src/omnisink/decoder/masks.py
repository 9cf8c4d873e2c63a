"""Which tokens of a forward pass are real, read from whatever mask the text model was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import UnsupportedModelError


def real_tokens(mask: Any, batch: int, length: int, device: torch.device, *, is_prefill: bool) -> Tensor | None:
    """Tell real tokens from padding.

    Parameters
    ----------
    mask : object
        The text model's ``attention_mask``: None, (B, T) of ones and zeros, a prepared (B, 1, S, T) mask (bool, or
        float added to scores), flex attention's block mask, or a mapping of such masks by layer kind.
    batch, length : int
        B and S of this pass.
    device : torch.device
        Where the answer is wanted.
    is_prefill : bool
        Whether the pass starts its sequences. In later passes a 2-D mask covers the cached tokens too, and only its
        end belongs to this pass.

    Returns
    -------
    Tensor or None
        (B, S) bool, or None where every token is real.

    Raises
    ------
    UnsupportedModelError
        If the mask has a shape or type that does not say which tokens are padding.
    """
    if isinstance(mask, Mapping):
        mask = _most_telling(mask)
    if mask is None:
        return None
    if isinstance(mask, Tensor) and mask.dim() == 2:
        part = mask[:, :length] if is_prefill else mask[:, -length:]
        if part.shape != (batch, length):
            raise UnsupportedModelError(
                f"the attention mask has shape {tuple(mask.shape)}, which does not cover {batch} x {length} tokens"
            )
        return part.to(device=device) != 0
    if not is_prefill:
        return None  # Prepared masks of later passes place padding among the cached keys, which are not touched.
    if isinstance(mask, Tensor) and mask.dim() == 4:
        # A real token may attend to itself; a padding token is masked as a key, for itself too.
        diagonal = mask[:, 0].diagonal(dim1=-2, dim2=-1)
        allowed = diagonal if mask.dtype == torch.bool else diagonal > torch.finfo(mask.dtype).min / 2
        return allowed.to(device).expand(batch, -1)[:, :length]
    if hasattr(mask, "mask_mod"):
        position = torch.arange(length, device=mask.kv_num_blocks.device)[None, :]
        sequence = torch.arange(batch, device=position.device)[:, None]
        allowed = mask.mask_mod(sequence, torch.zeros_like(position), position, position)
        return allowed.to(device).expand(batch, length)
    raise UnsupportedModelError(f"cannot tell padding from an attention mask of type {type(mask).__name__}")


def _most_telling(masks: Mapping[str, Any]) -> Any:
    """Choose the full-attention mask where there is one: a window does not hide a token from itself either."""
    present = {kind: mask for kind, mask in masks.items() if mask is not None}
    return present.get("full_attention", next(iter(present.values()), None))
