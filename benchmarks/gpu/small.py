"""A small decoder with planted sinks, and its answers: what the checks of whole passes compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel, StaticCache

from omnisink import OutRo
from omnisink.verification.tiny import SINK_TOKEN, TEXT_SETTINGS, make, text_inputs, words

METHOD = OutRo(gamma=0.5)
#: What may differ, relative to the size of the method's effect. Measured on an H200: 2e-6 at most.
CLOSE = 2e-4
STEPS = 8


def small_decoder(device: torch.device, attention: str = "sdpa") -> PreTrainedModel:
    """Build a Llama of six layers with heads of 64, float32; the weights are the same wherever it is built."""
    settings = {**TEXT_SETTINGS, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6}
    settings |= {"num_attention_heads": 8, "num_key_value_heads": 2, "attn_implementation": attention}
    return make(lambda: LlamaForCausalLM(LlamaConfig(**settings)), plant=True).to(device)


def padded(model: PreTrainedModel, side: str = "left") -> tuple[Tensor, Tensor]:
    """Make a padded batch of two prompts and its mask."""
    given = text_inputs(model, (40, 23), side)
    return given["input_ids"], given["attention_mask"]


def single(model: PreTrainedModel, length: int, seed: int, sinks: tuple[int, ...] = (0,)) -> Tensor:
    """Make one prompt, (1, S), with sink tokens at some positions."""
    tokens = words(length, seed=seed)
    for position in sinks:
        tokens[position] = SINK_TOKEN
    return torch.tensor([tokens], device=model.device)


@dataclass
class Answer:
    """The logits of the prompt's last token and of every step, each (B, vocabulary) on the CPU; the tokens (B, n)."""

    logits: list[Tensor]
    tokens: Tensor

    def row(self, b: int) -> Answer:
        """Return one sequence's."""
        return Answer([step[b : b + 1] for step in self.logits], self.tokens[b : b + 1])


def answer(
    model: PreTrainedModel,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    cache: Any = None,
    tokens: Tensor | None = None,
    forward: Callable[..., Any] | None = None,
) -> Answer:
    """Prefill a prompt and decode some tokens, the likeliest or those given.

    Parameters
    ----------
    model : PreTrainedModel
        The model, with a method inside its block.
    ids : Tensor
        (B, S) int64; padding only on the left.
    mask : Tensor, optional
        (B, S), 0 at padding.
    cache : Cache, optional
        An empty one. None: a dynamic one.
    tokens : Tensor, optional
        (B, n) to decode, so that two runs whose rounding differs are asked the same.
    forward : callable, optional
        What runs the steps; the prefill is the model's.
    """
    cache = DynamicCache(config=model.config) if cache is None else cache

    def more(start: int, stop: int) -> dict[str, Tensor]:
        if mask is None:
            return {}
        seen = torch.cat([mask, torch.ones_like(mask[:, :1]).expand(-1, stop - mask.shape[1])], dim=1)
        return {"attention_mask": seen, "position_ids": (seen.cumsum(dim=1) - 1).clamp(min=0)[:, start:stop]}

    length = ids.shape[1]
    with torch.inference_mode():
        logits = [model(input_ids=ids, past_key_values=cache, **more(0, length)).logits[:, -1].float().cpu()]
        chosen = []
        for i in range(STEPS):
            token = logits[-1].argmax(dim=-1, keepdim=True) if tokens is None else tokens[:, i : i + 1]
            chosen.append(token)
            made = (forward or model)(
                input_ids=token.to(ids.device), past_key_values=cache, **more(length + i, length + i + 1)
            )
            logits.append(made.logits[:, -1].float().cpu())
    return Answer(logits, torch.cat(chosen, dim=1))


def static(model: PreTrainedModel, room: int = 64) -> StaticCache:
    """Make an empty static cache."""
    return StaticCache(config=model.config, max_cache_len=room)


def effect(changed: Answer, plain: Answer) -> float:
    """Return how much the method changes, and make sure that it does."""
    size = max(float((a - b).abs().max()) for a, b in zip(changed.logits, plain.logits, strict=True))
    assert size > 1e-3 * max(float(step.abs().max()) for step in plain.logits), "the method changed nothing"
    return size


def same(found: Answer, expected: Answer, size: float, what: str) -> float:
    """Check that two answers agree to a small part of the method's effect, and return that part."""
    worst = 0.0
    for step, (a, b) in enumerate(zip(found.logits, expected.logits, strict=True)):
        off = float((a - b).abs().max()) / size
        # NaN is not close to anything.
        assert off <= CLOSE, f"{what}: {'prefill' if step == 0 else f'step {step}'} is off by {off:.1e} of the effect"
        worst = max(worst, off)
    return worst
