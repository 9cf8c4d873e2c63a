"""Interventions restated on a Llama, one sequence, one token and one head at a time, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, StaticCache

from tests.reference_outro import PlainOutRo


@dataclass
class PlainEdit(PlainOutRo):
    """The model under an intervention, and the attention maps it had.

    `value` is None, or ``value(layer)`` gives (K, D) for the sinks of a layer, or None. In each sink's key `zeroed`
    channels are set to zero. `heads` are (layer, head). ``hide(plain, layer, query)`` gives positions that no other
    token sees.
    """

    value: Callable[[int], Any] | None = None
    zeroed: int = 0
    heads: tuple = ()
    hide: Callable[..., Any] | None = None
    weights: dict = field(default_factory=dict)
    queries: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=dict)

    def _attend(self, query, number, start, is_prefill, depth, ever, done):
        heads, length, width = query.shape
        keys, values = self.keys[number].clone(), self.values[number].clone()
        for t in self.sinks.get(number, []):
            for k in range(len(keys)):
                keys[k, t, keys[k, t].abs().argsort(descending=True)[: self.zeroed]] = 0
                if self.value is not None and self.value(number) is not None:
                    values[k, t] = self.value(number)[k]
        hidden = set() if self.hide is None else set(self.hide(self, number, query))
        output = torch.zeros(length, heads, width, dtype=query.dtype)
        weights = torch.zeros(heads, length, keys.shape[1], dtype=query.dtype)
        for t in range(length):
            # A hidden token's own row is what it would be if nothing were hidden.
            seen = [k for k in range(start + t + 1) if start + t in hidden or k not in hidden]
            for h in range(heads):
                key, value = keys[h * len(keys) // heads][seen], values[h * len(keys) // heads][seen]
                row = (query[h, t] @ key.T / width**0.5).softmax(dim=0)
                weights[h, t, seen] = row
                output[t, h] = 0 if (number, h) in self.heads else row @ value
        if is_prefill:
            self.weights[number], self.queries[number] = weights, query
            self.outputs[number] = output.transpose(0, 1)
        return output


def run(model, ids, continuation=(), cache=None):
    """Logits of the prompt and of each token of `continuation`, fed one by one, (S + n, vocabulary)."""
    made = {None: lambda: None, "dynamic": lambda: DynamicCache(config=model.config)}.get(
        cache or ("dynamic" if continuation else None), lambda: StaticCache(config=model.config, max_cache_len=40)
    )()
    with torch.inference_mode():
        logits = [model(input_ids=ids, past_key_values=made, use_cache=made is not None).logits[0]]
        logits += [model(input_ids=torch.tensor([[t]]), past_key_values=made).logits[0] for t in continuation]
    return torch.cat(logits)


def plain_run(plain, ids, continuation=()):
    """As `run`, by the restatement."""
    with torch.inference_mode():
        return torch.cat([plain.prefill(ids), *[plain.step(t)[None] for t in continuation]])


def generated(model, inputs, **options):
    """Logits of a prefill and of three more greedy tokens, (B, 4, vocabulary), and the tokens."""
    made = model.generate(
        **inputs,
        min_new_tokens=4,
        max_new_tokens=4,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    return torch.stack(made.logits, dim=1), made.sequences[:, inputs["input_ids"].shape[1] :]


def padded(rows, side="left"):
    """Put prompts of (1, S) into one batch."""
    longest = max(r.shape[1] for r in rows)
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        start = longest - row.shape[1] if side == "left" else 0
        ids[b, start : start + row.shape[1]] = row
        mask[b, start : start + row.shape[1]] = 1
    return {"input_ids": ids, "attention_mask": mask}
