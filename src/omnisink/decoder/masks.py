"""Which tokens of a forward pass are real, and what each may see, read from whatever mask the model was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from omnisink.decoder.interface import AttentionCall
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


def visible_keys(call: AttentionCall, real: Tensor | None, length: int) -> Callable[[slice], Tensor]:
    """Tell what the queries of a prefill may see, a range of them at a time.

    Parameters
    ----------
    call : AttentionCall
        A call of a prefill.
    real : Tensor or None
        (B, S) bool, False at padding; None where every token is real.
    length : int
        Tokens S of the prompt; a static cache holds more keys.

    Returns
    -------
    callable
        From a slice of queries to (B or 1, 1, n, T') bool, True where a key may be seen, or the float that is added
        to its score. Keys from T' on cannot be seen. A padding token sees nothing.

    Raises
    ------
    UnsupportedModelError
        If the mask is of a kind that cannot be read.
    """
    rows_of = _visible_keys(call, real, length)
    if real is None:
        return rows_of

    def rows_of_real(rows: slice) -> Tensor:
        # Backends give padding what they like; right of a prompt it would see all of it.
        seen, blind = rows_of(rows), ~real[:, None, rows, None]
        return seen & ~blind if seen.dtype == torch.bool else seen.masked_fill(blind, float("-inf"))

    return rows_of_real


def _visible_keys(call: AttentionCall, real: Tensor | None, length: int) -> Callable[[slice], Tensor]:
    mask, device = call.mask, call.query.device
    if isinstance(mask, Tensor) and mask.dim() == 4:
        return lambda rows: mask[:, :1, rows, :length]
    if hasattr(mask, "mask_mod"):
        batch = torch.arange(call.query.shape[0], device=device)[:, None, None, None]
        key = torch.arange(length, device=device)[None, None, None, :]

        def rows_of_block(rows: slice) -> Tensor:
            query = torch.arange(rows.start, min(rows.stop, length), device=device)[None, None, :, None]
            allowed: Tensor = mask.mask_mod(batch, torch.zeros_like(batch), query, key)
            return allowed.expand(len(batch), 1, query.shape[2], length)

        return rows_of_block
    if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
        raise UnsupportedModelError(f"cannot tell what a query sees from a mask of type {type(mask).__name__}")
    if not call.options.get("is_causal", True):
        raise UnsupportedModelError("the attention is not causal in this call, and no mask says what a query sees")
    return causal_rows(length, real, call.window, device)


def causal_rows(
    length: int, real: Tensor | None, window: int | None, device: torch.device
) -> Callable[[slice], Tensor]:
    """Let every query see itself and what comes before it, as `visible_keys` says it.

    Parameters
    ----------
    length : int
        Tokens S.
    real : Tensor or None
        (B, S) bool, False at padding, which nobody sees.
    window : int or None
        Keys a query reaches back over, itself included.
    device : torch.device
        Where the answer is wanted.
    """

    def rows_of_triangle(rows: slice) -> Tensor:
        stop = min(rows.stop, length)
        query = torch.arange(rows.start, stop, device=device)[:, None]
        key = torch.arange(stop, device=device)[None, :]
        seen = key <= query
        if window is not None:
            seen = seen & (key > query - window)
        return seen[None, None] if real is None else seen & real[:, None, None, :stop]

    return rows_of_triangle


def _most_telling(masks: Mapping[str, Any]) -> Any:
    """Choose the full-attention mask where there is one: a window does not hide a token from itself either."""
    present = {kind: mask for kind, mask in masks.items() if mask is not None}
    return present.get("full_attention", next(iter(present.values()), None))
