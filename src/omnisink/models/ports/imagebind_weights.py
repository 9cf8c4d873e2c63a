"""The released weights of ImageBind-LLM under the names of transformers' Llama.

LoRA is added to the weights it belongs to. Meta's rotary pairs stand side by side, transformers' half a head apart, so
the rows of queries and keys are reordered. Biases that the release does not have are zero.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from omnisink.models.ports.imagebind import names_of

#: Linear layers of a decoder layer, and Llama's names for them.
_LINEAR = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
_NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
#: Blocks of the connector between ImageBind and the decoder.
BLOCKS = 3
_BEGINNINGS = {
    "llama.tok_embeddings.": "model.embed_tokens.",
    "llama.norm.": "model.norm.",
    "llama.output.": "lm_head.",
    "image_bind_proj.": "connector.proj.",
    **{f"image_bind_norm_{n + 1}.": f"connector.norms.{n}." for n in range(BLOCKS)},
    **{
        f"image_bind_f{i}_{n + 1}.": f"connector.mlps.{n}.{part}."
        for n in range(BLOCKS)
        for i, part in ((1, "gate_proj"), (2, "down_proj"), (3, "up_proj"))
    },
    **names_of("vision"),
    **names_of("audio"),
}
#: ImageBind's other modalities, the scale of sound, which is normalised away, and a buffer that LLaMA saved.
_UNUSED = re.compile(r"image_bind\.(?!modality_(?:preprocessors|trunks|heads)\.(?:vision|audio)\.)|.*\brope\.freqs$")


def is_unused(name: str) -> bool:
    """Whether the port has no use for a released weight of this name."""
    return _UNUSED.match(name) is not None


def read_sizes(weights: dict[str, Tensor], heads: dict[str, int]) -> dict[str, Any]:
    """Return what released weights say of a model's sizes, as ``config.json`` has it.

    Parameters
    ----------
    weights : dict of str to Tensor
        With the released names.
    heads : dict of str to int
        Attention heads of ``"vision"`` and ``"audio"``, which no shape says.

    Returns
    -------
    dict
        Settings of `LlamaConfig`, and ``visual_layers``, ``lora_rank``, ``connector_size`` and ``imagebind``.
    """
    first = "llama.layers.0."
    lora = weights.get(first + "attention.lora_wv_l1.weight")
    imagebind: dict[str, Any] = {"embedding": weights["image_bind_proj.weight"].shape[1]}
    for modality in ("vision", "audio"):
        start = f"image_bind.modality_preprocessors.{modality}."
        positions = weights[start + "pos_embedding_helper.pos_embed"]
        imagebind[modality] = {
            "width": positions.shape[2],
            "depth": _count(weights, f"image_bind.modality_trunks.{modality}.blocks."),
            "heads": heads[modality],
            "positions": positions.shape[1],
        }
    return {
        "vocab_size": weights["llama.tok_embeddings.weight"].shape[0],
        "hidden_size": weights["llama.tok_embeddings.weight"].shape[1],
        "intermediate_size": weights[first + "feed_forward.w1.weight"].shape[0],
        "num_hidden_layers": _count(weights, "llama.layers."),
        "visual_layers": len(weights["prefix_query.weight"]),
        "lora_rank": 0 if lora is None else len(lora),
        "connector_size": len(weights["image_bind_f1_1.weight"]),
        "imagebind": imagebind,
    }


def _count(weights: dict[str, Tensor], beginning: str) -> int:
    return len({name[len(beginning) :].split(".")[0] for name in weights if name.startswith(beginning)})


def to_llama(released: dict[str, Tensor], config: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Turn released weights into those of the port.

    Parameters
    ----------
    released : dict of str to Tensor
        With the released names. It is emptied on the way, so that two models need not be in memory.
    config : LlamaConfig
        Of the model.
    dtype : torch.dtype
        Of the result. LoRA is added in float32.

    Returns
    -------
    dict of str to Tensor
        What the port has no place for keeps its name; what is missing is missing.
    """
    made: dict[str, Tensor] = {}
    first = config.num_hidden_layers - config.visual_layers
    prefixes = released.pop("prefix_query.weight", None)
    for layer in range(config.num_hidden_layers):
        old, new = f"llama.layers.{layer}.", f"model.layers.{layer}."
        for theirs, ours in _LINEAR.items():
            heads = config.num_attention_heads if theirs in ("attention.wq", "attention.wk") else None
            keeps = theirs == "attention.wv" and layer >= first
            found = _linear(released, old, theirs, new + ours, heads, keep_lora=keeps)
            made |= {name: weight.to(dtype).contiguous() for name, weight in found.items()}
        for theirs, ours in _NORMS.items():
            if (norm := released.pop(f"{old}{theirs}.weight", None)) is not None:
                made[f"{new}{ours}.weight"] = norm.to(dtype)
        # Each layer has a gate; those of the first layers are not used.
        gate = released.pop(f"{old}attention.gate", None)
        if layer >= first and gate is not None:
            made[f"{new}self_attn.gate"] = gate.flatten().to(dtype)
        if layer >= first and prefixes is not None:
            made[f"{new}self_attn.prefix"] = prefixes[layer - first].to(dtype)
    for name in [name for name in released if not is_unused(name)]:
        old = next((old for old in _BEGINNINGS if name.startswith(old)), "")
        made[_BEGINNINGS.get(old, "") + name[len(old) :]] = released.pop(name).to(dtype).contiguous()
    return made


def _linear(
    released: dict[str, Tensor], old: str, theirs: str, new: str, heads: int | None, *, keep_lora: bool
) -> dict[str, Tensor]:
    """Return weight and bias of a linear layer, with LoRA added; that of the values is kept beside them."""
    weight, bias = (released.pop(f"{old}{theirs}.{part}", None) for part in ("weight", "bias"))
    if weight is None:
        return {}
    room, part = theirs.split(".")
    down, up = (released.pop(f"{old}{room}.lora_{part}_l{n}.weight", None) for n in (1, 2))
    weight = weight.float()
    made = {}
    if down is not None and up is not None:
        weight = weight + up.float() @ down.float()
        if keep_lora:
            beside = new.removesuffix("v_proj") + "lora_v"
            made = {f"{beside}.0.weight": down, f"{beside}.1.weight": up}
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    if heads is not None:
        weight, bias = _halves(weight, heads), _halves(bias, heads)
    return {f"{new}.weight": weight, f"{new}.bias": bias, **made}


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Reorder the rows of each head: the first of every rotary pair, then the second of every pair."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
