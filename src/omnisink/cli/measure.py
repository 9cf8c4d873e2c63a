"""Measurements of the demo: answers, the distance between two distributions, and paired timings."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from omnisink.methods.base import Method
    from omnisink.models.loaded import Loaded
    from omnisink.questions.prompt import Encoded


def compare_answers(
    loaded: Loaded, inputs: Encoded, methods: Sequence[Method | None], right: str, new_tokens: int
) -> list[dict[str, Any]]:
    """Answer a question greedily under several methods, and say how far each moves the next token.

    Parameters
    ----------
    loaded : Loaded
        Model and tokenizer.
    inputs : Encoded
        One prompt.
    methods : sequence of Method or None
        Methods of the answers; None is the baseline, which comes first.
    right : str
        The right answer, whose first token's probability is told.
    new_tokens : int
        Longest answer, in tokens.

    Returns
    -------
    list of dict
        For each method: ``answer``, ``probability`` (of the right answer's first token, from 0 to 1), ``kl_nats`` and
        ``total_variation`` to the baseline (see `distance`), ``rotated_tokens`` by layer, ``relaxed`` rows and
        ``skipped_layers``.
    """
    import torch

    from omnisink.models.adapters.asking import answer, attached

    first = loaded.tokenizer.encode(right, add_special_tokens=False)[0]
    made: list[dict[str, Any]] = []
    baseline: Tensor | None = None
    for method in methods:
        (said,) = answer(loaded, inputs, max_new_tokens=new_tokens, method=method)
        with torch.inference_mode(), attached(method, loaded, inputs):
            logits = loaded.model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1]
        baseline = logits if baseline is None else baseline
        trace = said.trace
        made.append(
            {
                "answer": said.text,
                "probability": float(logits.double().softmax(-1)[first]),
                **distance(baseline, logits),
                "rotated_tokens": {} if trace is None else trace.rotated_tokens,
                "relaxed": [] if trace is None else trace.relaxed,
                "skipped_layers": {} if trace is None else trace.skipped_layers,
            }
        )
    return made


def distance(without: Tensor, changed: Tensor) -> dict[str, float]:
    """Measure how far two next-token distributions are apart.

    Parameters
    ----------
    without, changed : Tensor
        (V,) logits.

    Returns
    -------
    dict
        ``kl_nats``, the Kullback-Leibler divergence of `changed` from `without` in nats, and ``total_variation``,
        half the summed absolute difference, from 0 to 1.
    """
    p, q = without.double().log_softmax(-1), changed.double().log_softmax(-1)
    return {
        "kl_nats": float((p.exp() * (p - q)).sum()),
        "total_variation": float((p.exp() - q.exp()).abs().sum() / 2),
    }


def compare_cost(
    model: Any, inputs: dict[str, Tensor], method: Method, *, pairs: int, decoded: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Time a prefill and the tokens after it, without and with a method, in turns.

    The order alternates, so that a slow moment of the machine falls on both. Entering and leaving the block
    is not timed.

    Parameters
    ----------
    model : PreTrainedModel
        The model.
    inputs : dict of str to Tensor
        One prompt.
    method : Method
        Method that is measured.
    pairs : int
        Number of pairs; one more is run first and not counted.
    decoded : int
        Tokens after the prefill.
    seconds : float
        After this time no further pair is begun, if there are three.

    Returns
    -------
    dict
        For ``prefill`` and ``decode``: ``ratio`` (median of with to without), ``ratio_p20``, ``ratio_p80``,
        ``without_ms`` and ``with_ms`` (medians), and ``pairs``.
    """

    def run(block: AbstractContextManager[Any]) -> tuple[float, float]:
        with block:
            return _time(model, inputs, decoded)

    def plain() -> tuple[float, float]:
        return run(nullcontext())

    def changed() -> tuple[float, float]:
        return run(method(model))

    taken: list[tuple[tuple[float, float], tuple[float, float]]] = []
    plain()
    changed()
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    try:
        for turn in range(pairs):
            if turn >= 3 and time.perf_counter() - begin > seconds:
                break
            if turn % 2:
                after = changed()
                taken.append((plain(), after))
            else:
                taken.append((plain(), changed()))
    finally:
        gc.enable()
    return {
        name: _percentiles([before[part] for before, _ in taken], [after[part] for _, after in taken])
        for part, name in enumerate(("prefill", "decode"))
    }


def _time(model: Any, inputs: dict[str, Tensor], decoded: int) -> tuple[float, float]:
    """Return the seconds of a prefill and of `decoded` greedy tokens after it."""
    import torch

    with torch.inference_mode():
        start = time.perf_counter()
        made = model(**inputs, use_cache=True, logits_to_keep=1)
        prefilled = time.perf_counter()
        cache = made.past_key_values
        for _ in range(decoded):
            # One prompt has no padding to mask; with a mask, thinkers compute positions for the whole of it.
            token = made.logits[:, -1:].argmax(-1)
            made = model(input_ids=token, past_key_values=cache, use_cache=True)
        return prefilled - start, time.perf_counter() - prefilled


def _percentiles(without: list[float], changed: list[float]) -> dict[str, float]:
    ratios = [after / before for before, after in zip(without, changed, strict=True)]
    cuts = statistics.quantiles(ratios, n=10, method="inclusive")
    return {
        "ratio": statistics.median(ratios),
        "ratio_p20": cuts[1],
        "ratio_p80": cuts[7],
        "without_ms": statistics.median(without) * 1e3,
        "with_ms": statistics.median(changed) * 1e3,
        "pairs": len(ratios),
    }
