"""Tiny models with planted sinks, their answers under `OutRo` on transformers, and the comparison with vLLM's."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SINK = 7
VOCABULARY = 96
#: What a reference and a served answer may differ by in a log-probability.
TOLERANCE = 1e-4
#: A strength at which the planted model's answers move by far more than the tolerance.
GAMMA = 1.5


@dataclass
class Answer:
    """Greedy tokens, their log-probabilities, and what the method did."""

    tokens: list[int]
    logprobs: list[float]
    rotated: int = 0
    relaxed: int = 0
    sinks: bool = False


def plant(model: Any, seed: int = 0, std: float = 0.12) -> Any:
    """Give a tiny model random weights and one token whose embedding is massive in one channel."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(std=0.05, generator=generator)
        for name, parameter in model.named_parameters():
            if name.endswith("input_layernorm.weight"):
                parameter[5] = 0.02  # As in trained models, the norms damp the massive channel.
        table = model.get_input_embeddings().weight
        table *= 0.5
        table[SINK, 5] = 400.0
    return model.eval()


def tiny_llama(heads: int = 4, kv_heads: int = 2, std: float = 0.12, **settings: Any) -> Any:
    """Build a Llama of six layers whose heads are wide enough for vLLM's CPU attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": heads * 32,
            "intermediate_size": 192,
            "num_hidden_layers": 6,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "eos_token_id": None,
            "bos_token_id": None,
            **settings,
        }
    )
    return plant(LlamaForCausalLM(config), std=std)


def save(model: Any, folder: Path) -> Path:
    """Write a model where vLLM can find it."""
    model.save_pretrained(folder)
    return folder


def prompt(length: int, sinks: tuple[int, ...] = (0,), seed: int = 0) -> list[int]:
    """Make token ids with the planted token at the given positions."""
    ids = torch.randint(10, VOCABULARY, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))
    ids[list(sinks)] = SINK
    return ids.tolist()


def mixed_prompts() -> list[list[int]]:
    """Sixteen prompts: short and long, with no, one and several sinks, first, last and in the middle."""
    shapes: list[tuple[int, tuple[int, ...]]] = [
        (1, (0,)), (1, ()), (2, (1,)), (5, (0, 3)), (9, ()), (12, (0,)), (17, (4, 9, 16)), (23, (0, 1, 2)),
        (31, (30,)), (40, (0, 20)), (57, ()), (64, (0,)), (80, (10, 11, 40, 79)), (100, (0, 50)), (111, (5,)),
        (128, (0, 127)),
    ]  # fmt: skip
    return [prompt(length, sinks, seed=i) for i, (length, sinks) in enumerate(shapes)]


def reference(model: Any, ids: list[int], count: int, method: Any = None) -> Answer:
    """Answer greedily on transformers, under a method or alone."""
    with nullcontext() if method is None else method(model) as trace, torch.no_grad():
        made = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            eos_token_id=None,
            pad_token_id=0,
        )
    tokens = made.sequences[0, len(ids) :].tolist()
    logs = [logits[0].float().log_softmax(-1)[t].item() for logits, t in zip(made.logits, tokens, strict=True)]
    if trace is None:
        return Answer(tokens, logs)
    rotated = sum(trace.rotated_tokens.values())
    return Answer(tokens, logs, rotated, len(trace.relaxed), bool(trace.sinks.layers))


def scored(model: Any, ids: list[int], tokens: list[int], method: Any = None) -> Answer:
    """Give the log-probabilities that transformers has for an answer made elsewhere, one token at a time."""
    with nullcontext() if method is None else method(model), torch.no_grad():
        made = model(torch.tensor([ids]), use_cache=True)
        logs = []
        for token in tokens:
            logs.append(made.logits[0, -1].float().log_softmax(-1)[token].item())
            made = model(torch.tensor([[token]]), past_key_values=made.past_key_values, use_cache=True)
    return Answer(tokens, logs)


def served(output: Any) -> Answer:
    """Read what vLLM answered, of a `CompletionOutput`."""
    tokens = list(output.token_ids)
    return Answer(tokens, [at[token].logprob for at, token in zip(output.logprobs, tokens, strict=True)])


def difference(got: Answer, wanted: Answer) -> float:
    """Compare two answers; equal tokens are asserted, the largest difference of a log-probability is returned."""
    assert got.tokens == wanted.tokens
    return max(abs(a - b) for a, b in zip(got.logprobs, wanted.logprobs, strict=True))


def assert_same(got: list[Answer], wanted: list[Answer]) -> None:
    """Assert that answers are the same within the tolerance."""
    worst = max(difference(a, b) for a, b in zip(got, wanted, strict=True))
    print(f"largest difference of a log-probability: {worst:.1e}")
    assert worst < TOLERANCE
