"""Tiny releases of ImageBind-LLM, converted as released ones are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omnisink.verification.ports.checkpoints import tokenizer
from omnisink.verification.ports.row import PortedModel

if TYPE_CHECKING:
    from torch import Tensor


def imagebind_llm(folder: Path) -> Path:
    """Save a checkpoint that is converted from three tiny releases."""
    from omnisink.models.ports.convert_imagebind import convert

    with tempfile.TemporaryDirectory() as place:
        return convert(*write_releases(Path(place)), folder)


def write_releases(folder: Path) -> tuple[Path, Path, Path]:
    """Save the three pickles: LLaMA's folder, ImageBind-LLM, of which two layers of three are gated, and ImageBind."""
    import torch

    llama = folder / "llama" / "7B"
    llama.mkdir(parents=True)
    made = tokenizer({})
    made.bos_token = "<|im_start|>"
    made.save_pretrained(llama.parent)
    (llama / "params.json").write_text(json.dumps({"dim": 32, "n_heads": 4, "n_layers": 3, "norm_eps": 1e-5}))
    torch.save(_meta_llama(len(made)), llama / "consolidated.00.pth")
    torch.save({"model": _tuned()}, folder / "tuned.pth")
    torch.save(_imagebind(), folder / "imagebind.pth")
    return llama, folder / "tuned.pth", folder / "imagebind.pth"


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return random weights; norms are around 1."""
    import torch

    return {name: torch.randn(shape) * 0.2 + ("norm" in name and "bias" not in name) for name, shape in shapes.items()}


def _meta_llama(words: int) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (words, 32),
        "norm.weight": (32,),
        "output.weight": (words, 32),
        "rope.freqs": (4,),
    }
    for layer in (f"layers.{i}." for i in range(3)):
        shapes |= {f"{layer}attention.w{part}.weight": (32, 32) for part in "qkvo"}
        shapes |= {f"{layer}feed_forward.w{i}.weight": (32, 48) if i == 2 else (48, 32) for i in (1, 2, 3)}
        shapes |= {f"{layer}{part}_norm.weight": (32,) for part in ("attention", "ffn")}
    return _random(shapes)


def _tuned() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "prefix_query.weight": (2, 32),
        "image_bind_proj.weight": (32, 16),
        "image_bind_proj.bias": (32,),
        "llama.norm.weight": (32,),
    }
    for n in (1, 2, 3):
        shapes |= {f"image_bind_f{i}_{n}.weight": (32, 64) if i == 2 else (64, 32) for i in (1, 2, 3)}
        shapes[f"image_bind_norm_{n}.weight"] = (32,)
    for layer in (f"llama.layers.{i}." for i in range(3)):
        shapes |= {f"{layer}{part}_norm.weight": (32,) for part in ("attention", "ffn")}
        shapes[f"{layer}attention.gate"] = (1, 4, 1, 1)
        for room, parts in (("attention", "qkvo"), ("feed_forward", "123")):
            for part in parts:
                into, out = {"2": (48, 32), "1": (32, 48), "3": (32, 48)}.get(part, (32, 32))
                shapes[f"{layer}{room}.lora_w{part}_l1.weight"] = (2, into)
                shapes[f"{layer}{room}.lora_w{part}_l2.weight"] = (out, 2)
                if part not in "kv":
                    shapes[f"{layer}{room}.w{part}.bias"] = (out,)
    return _random(shapes)


def _imagebind() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"modality_preprocessors.text.pos_embed": (1, 77, 8)}
    for modality, width, positions in (("vision", 32, 5), ("audio", 24, 229)):
        before, trunk = f"modality_preprocessors.{modality}.", f"modality_trunks.{modality}."
        shapes |= {
            before + "cls_token": (1, 1, width),
            before + "pos_embedding_helper.pos_embed": (1, positions, width),
            f"modality_heads.{modality}.0.weight": (width,),
            f"modality_heads.{modality}.0.bias": (width,),
            f"modality_heads.{modality}.2.weight": (16, width),
        }
        if modality == "vision":
            shapes[before + "rgbt_stem.proj.1.weight"] = (width, 3, 2, 14, 14)
            norm = trunk + "pre_transformer_layer.0."
        else:
            shapes[before + "rgbt_stem.proj.weight"] = (width, 1, 16, 16)
            shapes["modality_postprocessors.audio.1.log_logit_scale"] = ()
            norm = before + "rgbt_stem.norm_layer."
        shapes |= {norm + "weight": (width,), norm + "bias": (width,)}
        for block in (f"{trunk}blocks.{i}." for i in range(2)):
            shapes |= {f"{block}norm_{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")}
            shapes |= {
                block + "attn.in_proj_weight": (3 * width, width),
                block + "attn.in_proj_bias": (3 * width,),
                block + "attn.out_proj.weight": (width, width),
                block + "attn.out_proj.bias": (width,),
                block + "mlp.fc1.weight": (4 * width, width),
                block + "mlp.fc1.bias": (4 * width,),
                block + "mlp.fc2.weight": (width, 4 * width),
                block + "mlp.fc2.bias": (width,),
            }
            if modality == "audio":
                shapes |= {f"{block}attn.bias_{part}": (1, 1, width) for part in "kv"}
    return _random(shapes)


ROWS = (
    PortedModel(
        "imagebind_llm",
        "ImageBind-LLM",
        "imagebind_llm",
        ("text", "image", "video", "audio"),
        "FOLDER",
        imagebind_llm,
        lacks="its cache of embeddings (knn=True), text and 3D shapes given to ImageBind, its first release "
        "(legacy_bridge)",
    ),
)
