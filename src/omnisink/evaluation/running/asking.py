"""What a model says to a batch of questions under a method, and how likely it held every answer to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.answers import parse
from omnisink.evaluation.tasks.instance import Instance
from omnisink.methods.base import Method
from omnisink.methods.trace import Trace
from omnisink.models.adapters.asking import answer, attached
from omnisink.models.last_rows import last_log_likelihoods
from omnisink.models.loaded import Loaded
from omnisink.questions.likelihood import answer_log_likelihoods, answer_tokens
from omnisink.questions.prompt import Encoded

#: How answers are scored: by what is generated, or by which of them is likeliest.
SCORES = ("generate", "likelihood")
#: Nats that stand for the margin to an answer of probability zero, as contrastive methods give implausible tokens.
CUT_MARGIN = 100.0


@dataclass(frozen=True)
class Reply:
    """The answer to one question.

    Attributes
    ----------
    text : str or None
        What the model said; None where the likeliest answer was asked for.
    parsed : str or None
        The answer it is read as; None where it cannot be read.
    new_tokens : int
        Tokens that were generated.
    log_likelihoods : dict of str to float
        Log-likelihood in nats of every answer that is one token, as the first token of the reply; empty where there
        are none.
    sinks : int or None
        Layers at which the method found a sink in this prompt; None without a method.
    skip_ratio : float or None
        Share of the key/value heads of all layers that were not attended with, over the steps after the prompt; None
        where no step was made, or the method leaves none out.
    """

    text: str | None
    parsed: str | None
    new_tokens: int
    log_likelihoods: dict[str, float]
    sinks: int | None
    skip_ratio: float | None = None

    def loss(self, gold: str) -> float | None:
        """Return the nats of the right answer, where it has a likelihood."""
        return -self.log_likelihoods[gold] if gold in self.log_likelihoods else None

    def margin(self, gold: str) -> float | None:
        """Return how much likelier than the best wrong answer the right one is, in nats; negative where it is not.

        Where one of the two has probability zero it is `CUT_MARGIN`, and where both have, the right one is not given:
        ``-CUT_MARGIN``.
        """
        others = [chance for name, chance in self.log_likelihoods.items() if name != gold]
        if gold not in self.log_likelihoods or not others:
            return None
        right, wrong = self.log_likelihoods[gold], max(others)
        if right == -math.inf:
            return -CUT_MARGIN
        return CUT_MARGIN if wrong == -math.inf else right - wrong


def ask(
    loaded: Loaded, inputs: Encoded, instances: Sequence[Instance], method: Method | None, score: str
) -> list[Reply]:
    """Answer a batch.

    Parameters
    ----------
    loaded : Loaded
        The model.
    inputs : Encoded
        The questions, encoded.
    instances : sequence of Instance
        The same questions, with their answers.
    method : Method or None
        What is done to the model meanwhile.
    score : {"generate", "likelihood"}
        Whether to generate, or to take the likeliest of the answers, which takes one pass and no parser.

    Returns
    -------
    list of Reply
        One for each question.

    Raises
    ------
    OmnisinkError
        If likelihoods are asked for and an answer has no spelling in one token, or shares it with another, or if the
        logits or the residual stream are not finite.
    """
    tokens = [answer_tokens(loaded.tokenizer, instance.answers) for instance in instances]
    if score == "likelihood":
        for instance, found in zip(instances, tokens, strict=True):
            if len(found) != len(instance.answers) or not found:
                raise OmnisinkError(
                    f"{instance.id}: the answers {', '.join(instance.answers) or '(free)'} are not one token each, so "
                    "their likelihoods cannot be read off one pass; score by generation"
                )
        return _likeliest(loaded, inputs, tokens, method)
    first = _FirstScores()
    said = answer(
        loaded,
        inputs,
        max_new_tokens=max(instance.max_new_tokens for instance in instances),
        method=method,
        logits_processor=LogitsProcessorList([first]),
    )
    sinks = _sinks(said[0].trace, len(said))
    skipped = _skipped(said[0].trace, [got.new_tokens - 1 for got in said])
    return [
        Reply(got.text, parse(got.text, instance), got.new_tokens, answer_log_likelihoods(row, own), layers, share)
        for got, instance, row, own, layers, share in zip(
            said, instances, first.taken(), tokens, sinks, skipped, strict=True
        )
    ]


class _FirstScores(LogitsProcessor):  # type: ignore[misc]
    """Keep the logits of the first token of every reply, and change nothing."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._rows is None:
            self._rows = scores.float().log_softmax(dim=-1)
        return scores

    def taken(self) -> Tensor:
        assert self._rows is not None
        return self._rows


def _likeliest(
    loaded: Loaded, inputs: Encoded, tokens: Sequence[dict[str, list[int]]], method: Method | None
) -> list[Reply]:
    with torch.inference_mode(), attached(method, loaded, inputs) as trace:
        rows = last_log_likelihoods(loaded, inputs)[:, 0]
        found = _sinks(trace, len(rows))
    replies = []
    for row, own, sinks in zip(rows, tokens, found, strict=True):
        log_likelihoods = answer_log_likelihoods(row, own)
        likeliest = max(log_likelihoods, key=log_likelihoods.__getitem__)
        chosen = None if log_likelihoods[likeliest] == -math.inf else likeliest  # All may have been cut.
        replies.append(Reply(None, chosen, 0, log_likelihoods, sinks))
    return replies


def _sinks(trace: Trace | None, batch: int) -> Sequence[int | None]:
    """Count the layers with a sink, for every prompt of the batch."""
    if trace is None:
        return [None] * batch
    masks = [mask.any(dim=1) for mask in trace.record.sinks.values()]
    return [int(n) for n in torch.stack(masks).sum(dim=0)] if masks else [0] * batch


def _skipped(trace: Trace | None, steps: Sequence[int]) -> Sequence[float | None]:
    """Return the share of heads that was left out for every prompt, in the steps of its own answer."""
    return [None] * len(steps) if trace is None else trace.skip_ratios_of(steps)
