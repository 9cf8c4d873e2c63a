"""What the tiny checkpoints share: shapes, a tokenizer, a chat template, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from omnisink.verification.ports.checkpoints import TEXT, tokenizer

__all__ = ["MROPE", "QWEN_EYES", "TEXT", "VL_ROLES", "save", "template", "token_ids", "tokenizer"]

MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
QWEN_EYES: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
}
VL_ROLES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


def template(video: str, image: str, audio: str = "") -> str:
    """Write a chat template in the usual form, with a family's placeholders."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
        "{% if p.type == 'video' %}" + video + "{% elif p.type == 'image' %}" + image + "{% elif p.type == 'audio' %}"
        "" + audio + "{% else %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Write model and processor side by side, as a checkpoint of the Hub."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.5 / max(float(parameter.std()), 1e-3) * 0.2)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def token_ids(made: Any, **names: str) -> dict[str, int]:
    return {name: made.convert_tokens_to_ids(token) for name, token in names.items()}
