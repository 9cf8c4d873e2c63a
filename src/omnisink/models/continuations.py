"""The likelihood of given tokens after a prompt, as generation meets them: the prompt, then token after token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from omnisink.models.adapters.registry import adapter_of
from omnisink.models.finite import finite_logits
from omnisink.models.last_rows import last_rows
from omnisink.models.parts import ModelParts


class _Forced(LogitsProcessor):  # type: ignore[misc]
    """Leave one token to choose at every step, the given one."""

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens
        self._start: int | None = None  # A prompt that is given as embeddings has no ids here.

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._start = input_ids.shape[1] if self._start is None else self._start
        at = input_ids.shape[1] - self._start
        return torch.full_like(scores, float("-inf")).scatter_(1, self._tokens[:, at : at + 1], 0.0)


def continuation_log_likelihoods(
    parts: ModelParts, inputs: Mapping[str, Any], continuations: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Return the log-likelihoods of every next token while each prompt is continued with given tokens.

    The tokens go through `generate` one by one. So a method acts on the prompt as a prompt and on the continuation as
    on an answer, and no token of the continuation changes what the prompt's tokens see. In one pass over both, a
    method that lets sinks see later tokens would show them the continuation that is scored.

    Parameters
    ----------
    parts : ModelParts
        With a model that generates.
    inputs : mapping
        ``input_ids`` and ``attention_mask``, (B, S), padded on the left, and whatever else the prompts have.
    continuations : sequence of sequence of int
        At least one token for each of the B prompts.

    Returns
    -------
    list of Tensor
        One (N, V) float32 for each prompt, in nats: row n is of the token after the prompt and n tokens more.

    Raises
    ------
    OmnisinkError
        If logits are not finite.
    """
    ids = inputs["input_ids"]
    adapter = adapter_of(parts.model.config.model_type, with_processor=parts.processor is not None)
    longest = max(map(len, continuations))
    # A shorter one goes on with its last token; what follows cannot change what came before.
    tokens = torch.tensor([[*one, *[one[-1]] * (longest - len(one))] for one in continuations], device=ids.device)
    with last_rows(parts.model), finite_logits(parts.model):
        returned = adapter.generate(
            parts,
            inputs,
            max_new_tokens=longest,
            min_new_tokens=None,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,  # A token that ends an answer may be among the given ones.
            output_logits=True,
            return_dict_in_generate=True,
            logits_processor=[_Forced(tokens)],
        )
    rows = torch.stack(returned.logits, dim=1).float().log_softmax(dim=-1)
    return [row[: len(one)] for row, one in zip(rows, continuations, strict=True)]
