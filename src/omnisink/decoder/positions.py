"""Find out how the keys of every layer carry their position, by asking the model itself.

Families rotate all channels or some, in halves or in neighbouring pairs, at all layers or at some, with one base or
two. The model runs one token at two positions. A token that sees nothing but itself leaves every layer as it would at
any position, so the two runs differ only in how the keys are rotated; the rotation that explains the difference is the
layer's, and a family whose difference no rotation explains is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.key_rotation import KeyRotation
from omnisink.errors import UnsupportedModelError

#: The position of the second run.
_AWAY = 11
#: How far a rotated key may be from the key that the model made, as a share of the key's length, by dtype.
_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
#: Kinds of rotary embedding whose frequencies change with the length of the prompt.
_CHANGING = ("dynamic", "longrope")
#: What was found, by text model.
_FOUND: WeakKeyDictionary[nn.Module, dict[int, KeyRotation | None]] = WeakKeyDictionary()


def read_rotations(anatomy: Anatomy, purpose: str) -> dict[int, KeyRotation | None]:
    """Return what turns the keys of every layer to other positions; a model is asked once.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder.
    purpose : str
        What asks, for the error.

    Returns
    -------
    dict of int to KeyRotation or None
        By layer; None where keys carry no position.

    Raises
    ------
    UnsupportedModelError
        If the keys of a layer are not rotated by position with fixed frequencies.
    """
    if anatomy.text_model not in _FOUND:
        _FOUND[anatomy.text_model] = _read(anatomy, purpose)
    return _FOUND[anatomy.text_model]


@torch.no_grad()
def _read(anatomy: Anatomy, purpose: str) -> dict[int, KeyRotation | None]:
    text_model, model = anatomy.text_model, type(anatomy.model).__name__
    if reason := _why_not(text_model.config):
        raise UnsupportedModelError(f"{purpose} is not defined on {model}: {reason}")
    try:
        here, there = _cached(text_model, 0), _cached(text_model, _AWAY)
    except Exception as error:
        raise UnsupportedModelError(
            f"{purpose} cannot find out how {model} rotates its keys: {type(error).__name__}: {error}"
        ) from error
    found: dict[int, KeyRotation | None] = {}
    for layer, site in anatomy.attention.items():
        place = getattr(site.module, "layer_idx", layer)
        if place not in here:
            continue  # It reads the keys of another layer.
        (start, value), (end, other) = here[place], there[place]
        if not torch.allclose(value.float(), other.float(), rtol=_CLOSE.get(value.dtype, 5e-2), atol=1e-5):
            raise UnsupportedModelError(
                f"{purpose} is not defined on {model}: layer {layer} caches keys in compressed form, apart from "
                "their positions"
            )
        slack = _CLOSE.get(start.dtype, 5e-2) * float(start.float().norm())
        if float((end - start).float().norm()) <= slack / 10:
            found[layer] = None
            continue
        gaps = {one: float((one(start, _AWAY) - end).float().norm()) for one in _candidates(text_model, start)}
        best = min(gaps, key=lambda one: gaps[one], default=None)
        if best is None or gaps[best] > slack:
            raise UnsupportedModelError(
                f"{purpose} is not defined on {model}: the keys of layer {layer} carry their position in another way "
                "than a rotation by frequencies of the model"
            )
        found[layer] = best
    return found


def _why_not(config: Any) -> str | None:
    """Why rotations of a token's key cannot stand for its place among the kept tokens."""
    given = getattr(config, "rope_parameters", None) or {}
    for one in (given, *(v for v in given.values() if isinstance(v, dict))):
        if one.get("mrope_section") is not None:
            return "its positions have three parts (M-RoPE), and differ from the places of tokens"
        if one.get("rope_type") in _CHANGING:
            return f"its rotary frequencies ({one['rope_type']}) change with the length of the prompt"
    return None


def _cached(text_model: Any, position: int) -> dict[int, tuple[Tensor, Tensor]]:
    """Keys and values (1, K, 1, D) of every layer that caches some, for one token at a position."""
    device = next(text_model.parameters()).device
    cache = DynamicCache(config=text_model.config)
    ids, place = (torch.full((1, 1), number, device=device) for number in (1, position))
    text_model(input_ids=ids, position_ids=place, past_key_values=cache, use_cache=True)
    held = {i: (getattr(one, "keys", None), getattr(one, "values", None)) for i, one in enumerate(cache.layers)}
    return {i: (k, v) for i, (k, v) in held.items() if isinstance(k, Tensor) and isinstance(v, Tensor)}


def _candidates(text_model: Any, key: Tensor) -> Iterator[KeyRotation]:
    """Every way in which the model's frequencies could rotate a key."""
    for name, buffer in text_model.named_buffers():
        if not name.endswith("inv_freq") or "original" in name or not 0 < 2 * buffer.numel() <= key.shape[-1]:
            continue
        for first in {0, key.shape[-1] - 2 * buffer.numel()}:
            for interleaved in (False, True):
                yield KeyRotation(buffer.detach(), interleaved, first)
