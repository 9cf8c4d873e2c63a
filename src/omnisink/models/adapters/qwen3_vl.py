"""Qwen3-VL: the time of a video's frames is written into the prompt, as ``<1.5 seconds>``."""

from __future__ import annotations

from omnisink.models.adapters.qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Qwen3-VL of any size, with or without experts."""

    model_types = ("qwen3_vl", "qwen3_vl_moe")
