"""Other prompts made of one: with tokens put in, or without pictures and sound. Prompts are padded on the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from omnisink.decoder.encoded_media import ENCODED
from omnisink.errors import OmnisinkError

#: Inputs that have one entry for each token of the prompt, and what padding and words have there.
_OF_TOKENS = ("input_ids", "mm_token_type_ids", "token_type_ids")
#: Tensors among the inputs that say nothing of pictures and sound.
_OF_TEXT = (
    *_OF_TOKENS,
    "attention_mask",
    "position_ids",
    "cache_position",
    "inputs_embeds",
    "logits_to_keep",
    "labels",
)


def insert_tokens(inputs: Mapping[str, Any], places: Tensor, tokens: Sequence[int]) -> dict[str, Tensor]:
    """Put the same tokens into every prompt of a batch.

    Parameters
    ----------
    inputs : mapping
        With ``input_ids`` (B, S), a token mask (B, S) as ``attention_mask``, and what else there is for each token.
    places : Tensor
        (B,) int64, before which token they go; S is after the last, and -1 leaves a prompt as it is.
    tokens : sequence of int
        Their ids; at least one.

    Returns
    -------
    dict of str to Tensor
        The inputs that changed, (B, S + n); a prompt that is left as it is has more padding.

    Raises
    ------
    OmnisinkError
        If a prompt is padded on the right, or the model was called with embeddings.
    """
    ids, mask = _left_padded(inputs)
    new = torch.tensor(tokens, dtype=ids.dtype, device=ids.device)
    length, more = ids.shape[1], len(tokens)
    # A prompt that gets none has them before its padding, hidden.
    start = places.to(ids.device).clamp(min=0)[:, None]
    column = torch.arange(length + more, device=ids.device)[None, :]
    inside = (column >= start) & (column < start + more)
    source = torch.where(column < start, column, column - more).clamp(0, length - 1)
    changed = {}
    for name in _OF_TOKENS:
        if isinstance(inputs.get(name), Tensor):
            fill = new[(column - start).clamp(0, more - 1)] if name == "input_ids" else torch.zeros_like(source)
            moved = inputs[name].gather(1, source.expand(len(ids), -1))
            changed[name] = torch.where(inside, fill.to(moved.dtype), moved)
    if isinstance(given := inputs.get("position_ids"), Tensor):
        # What goes in counts on from its place, and what follows comes that much later, in text and in media.
        following = torch.cat([given, given[..., -1:] + 1], dim=-1)
        at = torch.where(inside, start, source)
        later = (column - start).clamp(0, more) * (places.to(ids.device)[:, None] >= 0)
        changed["position_ids"] = following.gather(-1, at.expand(*given.shape[:-1], -1)) + later
    seen = torch.where(inside, places.to(ids.device)[:, None] >= 0, mask.gather(1, source.expand(len(ids), -1)) != 0)
    return {**changed, "attention_mask": seen.long()}


def without_tokens(inputs: Mapping[str, Any], left_out: Tensor) -> dict[str, Any]:
    """Take tokens, and all that is seen or heard, out of every prompt of a batch.

    Parameters
    ----------
    inputs : mapping
        As for `insert_tokens`.
    left_out : Tensor
        (B, S) bool, such as all tokens of pictures.

    Returns
    -------
    dict
        The inputs that changed; those of pictures and sound are None. As many columns as the longest prompt needs.

    Raises
    ------
    OmnisinkError
        As for `insert_tokens`.
    """
    ids, mask = _left_padded(inputs)
    kept = (mask != 0) & ~left_out.to(mask.device)
    longest = int(kept.sum(dim=1).max())
    # Stable, so that words keep their order behind what is left out.
    order = kept.int().argsort(dim=1, stable=True)[:, ids.shape[1] - longest :]
    changed: dict[str, Any] = {
        name: inputs[name].gather(1, order) for name in _OF_TOKENS if isinstance(inputs.get(name), Tensor)
    }
    if isinstance(given := inputs.get("position_ids"), Tensor):
        counted = (kept.gather(1, order).cumsum(dim=1) - 1).clamp(min=0)
        changed["position_ids"] = counted.expand(*given.shape[:-1], -1)
    gone = {
        name: None
        for name, value in inputs.items()
        if name == ENCODED or (isinstance(value, Tensor) and name not in _OF_TEXT)
    }
    return {**gone, **changed, "attention_mask": kept.gather(1, order).long()}


def _left_padded(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return ids and token mask of prompts that end where their last column is."""
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if not isinstance(ids, Tensor) or not isinstance(mask, Tensor):
        raise OmnisinkError("a second pass over another prompt needs the prompt's ids: call the model with input_ids")
    if not bool((mask[:, -1] != 0).all()):
        raise OmnisinkError(
            "a second pass over another prompt needs prompts that are padded on the left, as generate() does"
        )
    return ids, mask
