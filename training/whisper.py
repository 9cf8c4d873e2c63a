"""Read Whisper-tiny's encoder from a CTranslate2 file into the names of Qwen2.5-Omni's audio tower."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_FP16 = 4


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Read the half-precision variables of a CTranslate2 model, format 6, under its own names."""
    data = path.read_bytes()
    at = 0

    def take(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = take("<H")
        at += length
        return data[at - length : at].rstrip(b"\0").decode()

    version = take("<I")
    if version != 6:
        raise ValueError(f"{path} has CTranslate2 format {version}, expected 6")
    text(), take("<I")
    found = {}
    for _ in range(take("<I")):
        name = text()
        shape = [take("<I") for _ in range(take("<B"))]
        kind, size = take("<B"), take("<I")
        if kind == _FP16:
            found[name] = np.frombuffer(data, np.float16, size // 2, at).reshape(shape).astype(np.float32)
        at += size
    return found


def audio_tower(path: Path) -> dict[str, Tensor]:
    """Return the encoder's weights under the names of `Qwen2_5OmniAudioEncoder`, without the projection."""
    theirs = read_ctranslate2(path)
    ours: dict[str, np.ndarray] = {}
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            ours[f"{conv}.{part}"] = theirs[f"encoder/{conv}/{part}"]

    def norm(to: str, of: str) -> None:
        ours[f"{to}.weight"], ours[f"{to}.bias"] = theirs[f"{of}/gamma"], theirs[f"{of}/beta"]

    def linear(to: str, of: str) -> None:
        ours[f"{to}.weight"], ours[f"{to}.bias"] = theirs[f"{of}/weight"], theirs[f"{of}/bias"]

    layer = 0
    while (old := f"encoder/layer_{layer}") and f"{old}/ffn/linear_0/weight" in theirs:
        new = f"layers.{layer}"
        weights = np.split(theirs[f"{old}/self_attention/linear_0/weight"], 3)
        biases = np.split(theirs[f"{old}/self_attention/linear_0/bias"], 3)
        for part, weight, bias in zip("qkv", weights, biases, strict=True):
            ours[f"{new}.self_attn.{part}_proj.weight"] = weight
            if part == "k":  # Whisper's keys have no bias; the file holds zeros for it.
                assert not bias.any()
            else:
                ours[f"{new}.self_attn.{part}_proj.bias"] = bias
        linear(f"{new}.self_attn.out_proj", f"{old}/self_attention/linear_1")
        norm(f"{new}.self_attn_layer_norm", f"{old}/self_attention/layer_norm")
        linear(f"{new}.fc1", f"{old}/ffn/linear_0")
        linear(f"{new}.fc2", f"{old}/ffn/linear_1")
        norm(f"{new}.final_layer_norm", f"{old}/ffn/layer_norm")
        layer += 1
    norm("ln_post", "encoder/layer_norm")
    return {name: torch.from_numpy(np.array(w)) for name, w in ours.items()}
