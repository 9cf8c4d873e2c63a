"""What a decode step costs with SinkRouter on the CPU: paired with the baseline, at several lengths of the cache.

`python -m benchmarks.routing` forces which heads are routed, so that a given share of all of them is, in layers from
the third on: the time depends on how many are routed, not on which. The scores and the decision are computed all the
same. The cache is filled with random keys and values behind a short prompt. With ``--threshold`` the method decides by
itself.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from unittest.mock import patch

import torch
from rich.console import Console
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from benchmarks.history import append, write_table
from benchmarks.overhead import MODELS, prompt
from benchmarks.pairs import Timed, compare, rounded, seconds
from omnisink.maths import routing
from omnisink.methods import SinkRouter

#: Tokens of the real prompt, decode steps that are timed together, and layers that are never routed.
PROMPT, STEPS, NEVER = 16, 2, 2


def filled(model: PreTrainedModel, length: int, method: SinkRouter | None) -> DynamicCache:
    """Make a cache of `length` tokens: a prompt that the model and the method have seen, then random ones."""
    cache = DynamicCache(config=model.config)
    ids = prompt(model, PROMPT)
    if method is None:
        model(input_ids=ids, past_key_values=cache)
    else:
        with method(model):
            model(input_ids=ids, past_key_values=cache)
    generator = torch.Generator().manual_seed(length)
    for layer in cache.layers:
        shape = (*layer.keys.shape[:2], length - PROMPT, layer.keys.shape[3])
        layer.keys, layer.values = (
            torch.cat([held, torch.randn(shape, generator=generator, dtype=held.dtype)], dim=2)
            for held in (layer.keys, layer.values)
        )
    return cache


def steps(model: PreTrainedModel, cache: DynamicCache, method: SinkRouter | None) -> Timed:
    """Time some decode steps; entering and leaving the method's block are not part of it."""
    token = prompt(model, PROMPT)[:, -1:].clone()

    def run() -> float:
        def work() -> None:
            for _ in range(STEPS):
                model(input_ids=token, past_key_values=cache)

        if method is None:
            return seconds(work, model.device)
        with method(model):
            return seconds(work, model.device)

    return run


@contextmanager
def forced(share: float, layers: int, kv_heads: int) -> Iterator[None]:
    """Route this share of the key/value heads of a model, spread over the layers that may be routed."""
    original: Callable[[Tensor, float | Tensor], Tensor] = routing.route
    calls = count()
    due = [round(share * layers * kv_heads * n / (layers - NEVER)) for n in range(layers - NEVER + 1)]
    numbers = [after - before for before, after in pairwise(due)]
    if max(numbers) > kv_heads:
        raise SystemExit(f"{share:g} of the heads are more than those of {layers - NEVER} layers")

    def route(scores: Tensor, threshold: float | Tensor) -> Tensor:
        routed = torch.zeros_like(original(scores, threshold))
        routed[:, : numbers[next(calls) % len(numbers)]] = True
        return routed

    with patch.object(routing, "route", route):
        yield


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m")
    parser.add_argument("--lengths", type=int, nargs="*", default=[1024, 8192, 32768])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--share", type=float, default=0.6, help="of the key/value heads, which is routed")
    parser.add_argument("--threshold", type=float, help="let the method decide")
    parser.add_argument("--threads", type=int, help="of PyTorch; all that it takes by itself where left out")
    parser.add_argument("--record", action="store_true", help="append to the history")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = MODELS[arguments.model](torch.float32, torch.device("cpu"))
    method = SinkRouter(0.55 if arguments.threshold is None else arguments.threshold, "value")
    console = Console()
    console.print(
        f"{arguments.model}, float32, torch {torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} cores "
        f"({platform.processor() or platform.machine()})"
    )
    with torch.inference_mode():
        for length in arguments.lengths:
            plain = steps(model, filled(model, length, None), None)
            cache = filled(model, length, method)
            changed = steps(model, cache, method)
            if arguments.threshold is None:
                with forced(arguments.share, model.config.num_hidden_layers, model.config.num_key_value_heads):
                    ratio = compare(plain, changed, arguments.pairs)
                case = f"decode at {length}, {arguments.share:.0%} routed"
            else:
                ratio = compare(plain, changed, arguments.pairs)
                case = f"decode at {length}, threshold {arguments.threshold:g}"
            console.print(
                f"{case:32} {ratio.p50:.3f} times the baseline ({ratio.p20:.3f} to {ratio.p80:.3f}, "
                f"{ratio.pairs} pairs of {ratio.plain_ms / STEPS:.1f} ms a step)"
            )
            if arguments.record:
                append([{"model": arguments.model, "dtype": "float32", "case": case, **rounded(ratio)}])
    if arguments.record:
        write_table()


if __name__ == "__main__":
    main()
