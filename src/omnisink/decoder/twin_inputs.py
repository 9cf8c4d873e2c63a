"""Arguments of the passes of twins: of a prompt that is not the first pass's, of its steps, and of several in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from omnisink.decoder import refusals
from omnisink.decoder.arguments import token_mask_of
from omnisink.decoder.caches import SequenceState
from omnisink.decoder.passes import Pass


def prompt_of(inputs: Mapping[str, Any]) -> Tensor:
    """Return what says how many tokens enter: ids (B, S), or embeddings (B, S, d)."""
    for name in ("input_ids", "inputs_embeds"):
        if isinstance(inputs.get(name), Tensor):
            found: Tensor = inputs[name]
            return found
    raise refusals.no_prompt(sorted(inputs))


def is_free_to_read(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be looked at without waiting, as on the CPU, where nothing is queued."""
    return tensor.device.type == "cpu"


def prompt_mask(inputs: Mapping[str, Any]) -> Tensor:
    """Return the token mask of a prompt, (B, S) long, also where its attention mask is prepared already."""
    prompt, given = prompt_of(inputs), inputs.get("attention_mask")
    batch, length = prompt.shape[:2]
    if not (isinstance(given, Tensor) and given.dim() == 2):
        given = token_mask_of(given, Pass(True, batch, length, prompt.device, None, SequenceState(batch)))
    return prompt.new_ones((batch, length), dtype=torch.long) if given is None else given.long()


def placed_anew(inputs: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Count the positions of a prompt that is not the first pass's, where its change does not say them."""
    given = inputs.get("position_ids")
    inputs.pop("cache_position", None)
    if "position_ids" not in changed and isinstance(given, Tensor):
        # With media, only the model can count: it does so where it is not given any.
        inputs["position_ids"] = (prompt_mask(inputs).cumsum(dim=-1) - 1).clamp(min=0) if given.dim() == 2 else None
    return inputs


def ahead_of(own: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
    """Return (B, 2): by how many positions a twin's next token is ahead of the first pass's, in text and in media."""
    before, after = own.get("position_ids"), inputs.get("position_ids")
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        moved = after[..., -1] - before[..., -1]
        return torch.stack([moved, moved], dim=-1) if moved.dim() == 1 else torch.stack([moved[0], moved[-1]], dim=-1)
    longer = prompt_mask(inputs).sum(dim=-1) - prompt_mask(own).sum(dim=-1)
    return torch.stack([longer, longer], dim=-1)


def step_inputs(inputs: dict[str, Any], mask: Tensor, grown: int, ahead: Tensor, prompt_length: int) -> dict[str, Any]:
    """Turn the arguments of the first pass's step into those of a twin whose prompt is another.

    Its prompt has the token mask `mask` (B, S'), and `grown` tokens have followed it.
    """
    given = inputs.get("attention_mask")
    if isinstance(given, Tensor):
        # Where it is prepared for a static cache already, nothing of what was generated is hidden.
        later = (
            given[:, prompt_length:]
            if given.dim() == 2
            else mask.new_ones(len(mask), grown + prompt_of(inputs).shape[1])
        )
        inputs["attention_mask"] = torch.cat([mask, later.to(mask)], dim=-1)
    places = inputs.get("position_ids")
    if isinstance(places, Tensor):
        text, media = ahead[:, :1], ahead[:, 1:]
        if places.dim() == 2:
            inputs["position_ids"] = places + text
        else:  # (4, B, n): text, time, height, width; (3, B, n), without text; (1, B, n), one for these three.
            rows = places.shape[0]
            shift = torch.stack([text] * (rows == 4) + [media] * min(rows, 3))
            inputs["position_ids"] = places + shift
    if isinstance(inputs.get("cache_position"), Tensor):
        inputs["cache_position"] = inputs["cache_position"] + (mask.shape[1] - prompt_length)
    return inputs


def side_by_side(each: Sequence[Mapping[str, Any]], batch: int) -> dict[str, Any]:
    """Return the arguments of one pass over the sequences of several, whose arguments have the same names and shapes.

    Parameters
    ----------
    each : sequence of mapping
        Arguments of passes over `batch` sequences each.
    batch : int
        B. What has no dimension of sequences is that of the first.

    Returns
    -------
    dict
        Arguments of a pass over ``len(each) * batch`` sequences, in the order of `each`.
    """
    return {name: _in_one([one[name] for one in each], batch) for name in each[0]}


def _in_one(values: Sequence[Any], batch: int) -> Any:
    first = values[0]
    if isinstance(first, Mapping):  # Masks by the kind of layer.
        return {name: _in_one([one[name] for one in values], batch) for name in first}
    if not isinstance(first, Tensor) or first.dim() < 2:  # Places in the cache, and how many logits to keep.
        return first
    # Positions (3, B, n) and (4, B, n) have the sequences in the middle.
    dim = 1 if first.dim() == 3 and first.shape[0] in (1, 3, 4) and first.dtype == torch.long else 0
    return torch.cat(list(values), dim=dim) if first.shape[dim] == batch else first
