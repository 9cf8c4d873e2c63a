"""How the video-SALMONN 2 models hear, restated from the released names of their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnisink.verification.ports.video_salmonn2 import WHISPER


def listen(weights: dict[str, Tensor], spectrograms: Tensor) -> Tensor:
    """Return the states of Whisper's encoder, (N, 1500, D), from weights with its own names."""
    encoder = WhisperEncoder(WhisperConfig(**WHISPER)).eval()
    encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
    states: Tensor = encoder(spectrograms).last_hidden_state
    return states


def read_windows(weights: dict[str, Tensor], query: Tensor, states: Tensor, heads: int) -> Tensor:
    """Return what the Q-Former makes of each half second, (N, 60, W), from weights with BERT's names."""
    count, _, width = states.shape
    # As the release cuts: windows of 25 states, one after another.
    cut = F.unfold(states.mT.unsqueeze(2), kernel_size=(1, 25), stride=(1, 25)).view(count, width, 25, -1)
    windows = cut.permute(0, 3, 2, 1).reshape(-1, 25, width)

    def line(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def attend(x: Tensor, seen: Tensor, name: str) -> Tensor:
        q, k, v = (
            line(source, f"{name}.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, source in (("query", x), ("key", seen), ("value", seen))
        )
        mixed = (q @ k.mT / k.shape[-1] ** 0.5).softmax(-1) @ v
        return norm(line(mixed.transpose(1, 2).flatten(2), f"{name}.output.dense") + x, f"{name}.output")

    x = norm(query.expand(len(windows), -1, -1), "embeddings")
    for layer in (f"encoder.layer.{i}" for i in range(2)):
        x = attend(x, x, f"{layer}.attention")
        x = attend(x, windows, f"{layer}.crossattention")
        inner = F.gelu(line(x, f"{layer}.intermediate_query.dense"))
        x = norm(line(inner, f"{layer}.output_query.dense") + x, f"{layer}.output_query")
    return x.view(count, -1, x.shape[-1])


def below(weights: dict[str, Tensor], start: str) -> dict[str, Any]:
    """Return the weights whose names begin so, without that beginning."""
    return {name.removeprefix(start): weight for name, weight in weights.items() if name.startswith(start)}


def check_heard(made: Tensor, wanted: Tensor) -> None:
    """Compare tokens of sound, and see that they differ from one another."""
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
    assert (made[:, 0] - made[:, 1]).abs().max() > 1e-3
