"""Which tokens of a forward pass are real, and what each may see, read from whatever mask the model was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall
from omnisink.decoder.passes import Pass
from omnisink.errors import OmnisinkError, UnsupportedModelError

#: Floats up to this, added to a score, close a key: -1e4 is the weakest in use for it.
CLOSED = -5e3
#: A float from this on leaves it open: biases by distance and by position are larger.
_OPEN = -50.0
#: Parts of the names under which a text model may take a mask that is not called `attention_mask`.
_MASK_LIKE = ("mask", "pad")

#: Bool scalars that must turn out False, with what to raise where one does not; looked at when the host may wait.
Doubts = list[tuple[Tensor, OmnisinkError]]


@dataclass(frozen=True)
class UnnamedMask:
    """Stands for the mask of a text model that has no argument called ``attention_mask``.

    Attributes
    ----------
    text_model : str
        Its class.
    candidates : dict of str to Tensor
        What it was given that might be its mask, by the argument's name.
    """

    text_model: str
    candidates: dict[str, Tensor]

    @classmethod
    def finder(cls, text_model: str, names: list[str]) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
        """Return what finds it among the arguments of a call, the positional ones of which have these names."""

        def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if "attention_mask" in kwargs:
                return kwargs["attention_mask"]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            masks = {
                name: value
                for name, value in given.items()
                if isinstance(value, Tensor) and any(part in name for part in _MASK_LIKE)
            }
            return cls(text_model, masks)

        return find


def token_mask_of_prepared(mask: Any, now: Pass) -> Tensor | None:
    """Tell real tokens from padding by a mask that is not simply (B, T) of ones and zeros.

    Parameters
    ----------
    mask : object
        A prepared (B, 1, S, T) mask (bool, or float added to scores), flex attention's block mask, or an
        `UnnamedMask`.
    now : Pass
        The pass; its `deferred_checks` take what only the values of the mask can tell.

    Returns
    -------
    Tensor or None
        (B, S) bool, or None where every token is real.

    Raises
    ------
    UnsupportedModelError
        If the mask has a shape or type that does not say which tokens are padding.
    """
    batch, length, device = now.batch, now.length, now.device
    if isinstance(mask, UnnamedMask):
        _refuse_unnamed(mask, batch, now.deferred_checks)
        return None
    if not now.is_prefill:
        return None  # Prepared masks of later passes place padding among the cached keys, which are not touched.
    if isinstance(mask, Tensor) and mask.dim() == 4:
        return _real_of_prepared(mask, length, now.deferred_checks).to(device).expand(batch, -1)
    if hasattr(mask, "mask_mod"):
        position = torch.arange(length, device=mask.kv_num_blocks.device)[None, :]
        sequence = torch.arange(batch, device=position.device)[:, None]
        allowed: Tensor = mask.mask_mod(sequence, torch.zeros_like(position), position, position)
        return allowed.to(device).expand(batch, length)
    raise UnsupportedModelError(f"cannot tell padding from an attention mask of type {type(mask).__name__}")


def _real_of_prepared(mask: Tensor, length: int, deferred_checks: Doubts) -> Tensor:
    """Read (B or 1, S) bool off a prepared mask (B or 1, H or 1, S or 1, T): True at real tokens."""
    if (
        mask.shape[2] not in (1, length)
        or mask.shape[3] < length
        or not (mask.dtype == torch.bool or mask.is_floating_point())
    ):
        raise UnsupportedModelError(
            f"cannot tell padding from an attention mask of type {mask.dtype} and shape {tuple(mask.shape)} for "
            f"{length} tokens: use bool, or float that is added to the scores, of shape (B, 1, S, T)"
        )
    part = mask[:, 0, :, :length]
    if mask.shape[2] == 1:  # The same keys for every query: nothing but padding is closed.
        return _is_open(part[:, 0], deferred_checks)
    # A real token may attend to itself; a padding token is closed as a key, for itself too. Backends that have no
    # answer for a query that sees nothing let it see everything. Such rows, from the first on, are left padding,
    # unless every row sees everything, as in a prompt without padding under attention that is not causal.
    sees_all = part.all(dim=-1) if part.dtype == torch.bool else part.amin(dim=-1) > CLOSED
    opened = sees_all.int().cumprod(dim=1).bool() & ~sees_all.all(dim=1, keepdim=True)
    diagonal = part.diagonal(dim1=-2, dim2=-1)
    return _is_open(diagonal, deferred_checks) & ~opened


def _is_open(values: Tensor, deferred_checks: Doubts) -> Tensor:
    """Tell which entries of a mask let a token be seen; floats that neither open nor close it are doubted."""
    if values.dtype == torch.bool:
        return values
    unclear = ((values > CLOSED) & (values < _OPEN)).any()
    deferred_checks.append(
        (
            unclear,
            UnsupportedModelError(
                f"cannot tell padding from an attention mask of type {values.dtype} with numbers between {CLOSED:g} "
                f"and {_OPEN:g}: they neither open nor close a key. Close keys with torch.finfo(dtype).min"
            ),
        )
    )
    return values > CLOSED


def _refuse_unnamed(mask: UnnamedMask, batch: int, deferred_checks: Doubts) -> None:
    """Refuse a batch whose padding cannot be known; a sequence alone has none unless something says so."""
    error = UnsupportedModelError(
        f"{mask.text_model} takes no argument called attention_mask, so that padding cannot be told from the prompt. "
        "Run one prompt at a time, without padding"
    )
    if batch > 1:
        raise error
    for values in mask.candidates.values():
        if values.numel():
            deferred_checks.append(((values != values.flatten()[0]).any(), error))


def visible_keys(call: AttentionCall, token_mask: Tensor | None, length: int) -> Callable[[slice], Tensor]:
    """Tell what the queries of a prefill may see, a range of them at a time.

    Parameters
    ----------
    call : AttentionCall
        A call of a prefill.
    token_mask : Tensor or None
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
    rows_of = _visible_keys(call, token_mask, length)
    if token_mask is None:
        return rows_of

    def rows_of_real(rows: slice) -> Tensor:
        # Backends give padding what they like; right of a prompt it would see all of it.
        seen, blind = rows_of(rows), ~token_mask[:, None, rows, None]
        return seen & ~blind if seen.dtype == torch.bool else seen.masked_fill(blind, float("-inf"))

    return rows_of_real


def _visible_keys(call: AttentionCall, token_mask: Tensor | None, length: int) -> Callable[[slice], Tensor]:
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
    return causal_rows(length, token_mask, call.window, device)


def causal_rows(
    length: int, token_mask: Tensor | None, window: int | None, device: torch.device
) -> Callable[[slice], Tensor]:
    """Let every query see itself and what comes before it, as `visible_keys` says it.

    Parameters
    ----------
    length : int
        Tokens S.
    token_mask : Tensor or None
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
        return seen[None, None] if token_mask is None else seen & token_mask[:, None, None, :stop]

    return rows_of_triangle


def most_telling(masks: Mapping[str, Any]) -> Any:
    """Choose the full-attention mask where there is one: a window does not hide a token from itself either."""
    present = {kind: mask for kind, mask in masks.items() if mask is not None}
    return present.get("full_attention", next(iter(present.values()), None))
