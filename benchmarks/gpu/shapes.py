"""The models: random weights with a planted sink, made on the device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks.overhead import seven_billion

#: To try the command itself, on a CPU.
TINY: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def measured_model(shape: str, device: torch.device) -> PreTrainedModel:
    """Make the model that is measured: Qwen2.5-7B's shape in bfloat16, or a tiny one in float32."""
    if shape == "tiny":
        return seven_billion(torch.float32, device, **TINY)
    return seven_billion(torch.bfloat16, device)


def twin(model: PreTrainedModel, layers: int | None = None) -> PreTrainedModel:
    """Return a second model over the same weights, so that one can be attached to while the other is not.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model.
    layers : int, optional
        Number of decoder layers to keep, from the first on; None keeps all.

    Returns
    -------
    PreTrainedModel
        A model with modules and configuration of its own; parameters and buffers are those of `model`.
    """
    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)
    if layers is not None and layers < len(made.model.layers):
        made.model.layers = nn.ModuleList(list(made.model.layers)[:layers])
        made.config.num_hidden_layers = layers
        if getattr(made.config, "layer_types", None):
            made.config.layer_types = made.config.layer_types[:layers]
    return made


def weight_bytes(model: nn.Module) -> int:
    """Return what the weights take, in bytes."""
    return sum(p.numel() * p.element_size() for p in model.parameters())
