"""Qwen2.5-VL: the time of a video's frames is in the positions of its tokens."""

from __future__ import annotations

from omnisink.models.adapters.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Instruction-tuned Qwen2.5-VL of any size."""

    model_types = ("qwen2_5_vl",)
    default_system = "You are a helpful assistant."
