"""Say of a model or a layer in which no attention was found why that is so, and what to pass in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from omnisink.errors import UnsupportedModelError


def inner(model: nn.Module, find_layers: Callable[[nn.Module, Any], object]) -> str:
    """Say which part of a model to pass in its place: the first that is a decoder by itself.

    `find_layers` takes a part and its text configuration, and raises an `UnsupportedModelError` if it is none.
    """
    for name, part in model.named_modules():
        config: Any = getattr(part, "config", None)
        if name and hasattr(config, "get_text_config") and getattr(config, "num_hidden_layers", None) is not None:
            try:
                find_layers(part, config.get_text_config(decoder=True))
            except UnsupportedModelError:
                continue
            return f"; pass the language model in it, model.{name}"
    return ""


def why_no_attention(layer: nn.Module, found: int) -> str:
    """Say why a layer with `found` attention modules, none or several, has no attention to act on."""
    if found > 1:
        return "more than one attention in the layer"
    kinds = {n for n, _ in layer.named_children()}
    if any("linear_attn" in n or "mamba" in n or "conv" in n or "mixer" in n or "recurrent" in n for n in kinds):
        return "linear-attention or state-space layer: it has no attention over tokens"
    return "its attention does not use the attention interface (ALL_ATTENTION_FUNCTIONS)"
