"""Random weights of what VideoLLaMA 2.1-AV hears with, under the released names."""

from __future__ import annotations

from typing import Any


def beats(embed: int = 24, width: int = 32, heads: int = 4, layers: int = 2) -> dict[str, Any]:
    """Return random weights of BEATs with the released names; the biases that layers share are there for each."""
    import torch

    inner, kernel, groups, buckets = 48, 8, 4, 32
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (embed, 1, 16, 16),
        "layer_norm.weight": (embed,),
        "layer_norm.bias": (embed,),
        "post_extract_proj.weight": (width, embed),
        "post_extract_proj.bias": (width,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (width, width // groups, kernel),
        "encoder.pos_conv.0.bias": (width,),
        "encoder.layer_norm.weight": (width,),
        "encoder.layer_norm.bias": (width,),
        "predictor.weight": (5, width),
        "predictor.bias": (5,),
    }
    for layer in (f"encoder.layers.{i}" for i in range(layers)):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"):
            shapes |= {f"{layer}.{name}.weight": (width, width), f"{layer}.{name}.bias": (width,)}
        shapes |= {f"{layer}.fc1.weight": (inner, width), f"{layer}.fc1.bias": (inner,)}
        shapes |= {f"{layer}.fc2.weight": (width, inner), f"{layer}.fc2.bias": (width,)}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
        shapes[f"{layer}.self_attn.grep_linear.weight"] = (8, width // heads)
        shapes[f"{layer}.self_attn.grep_linear.bias"] = (8,)
        shapes[f"{layer}.self_attn.grep_a"] = (1, heads, 1, 1)
    made = {name: torch.randn(shape) * (0.3 if len(shape) > 1 else 0.1) for name, shape in shapes.items()}
    made |= {name: 1 + weight for name, weight in made.items() if name.endswith("norm.weight")}
    biases = torch.randn(buckets, heads)
    return made | {f"encoder.layers.{i}.self_attn.relative_attention_bias.weight": biases for i in range(layers)}


def ears(width: int) -> dict[str, Any]:
    """Return random weights of BEATs and of the MLP after it; one head, as 1,496 tokens are many for a test."""
    import torch

    made = {f"model.audio_tower.{name}": weight.clone() for name, weight in beats(heads=1).items()}
    for layer, into in ((0, 32), (2, width)):
        made[f"model.mm_projector_a.{layer}.weight"] = torch.randn(width, into) * 0.3
        made[f"model.mm_projector_a.{layer}.bias"] = torch.randn(width) * 0.1
    return made
