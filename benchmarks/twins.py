"""What it saves that the twins of a contrastive method share what is equal, in pairs (SmolOmni, the clip of the demo).

Processor time, which other work on the machine moves less than the clock.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from transformers import DynamicCache

from benchmarks.methods import omni_bench
from benchmarks.pairs import Ratio, compare
from omnisink.decoder import twin_state, twins
from omnisink.methods.base import Method
from omnisink.methods.registry import parse_method
from omnisink.models.last_rows import last_rows

#: Tokens of the prompt, and steps that are timed at a time.
LENGTH, STEPS = 192, 3


@contextmanager
def apart() -> Iterator[None]:
    """Let every twin make steps of its own."""
    with patch.object(twin_state, "in_one", lambda caches: None):
        yield


def decoding(model: Any, inputs: Mapping[str, Any], method: Method, pairs: int) -> Ratio:
    """Compare steps of twins in one batch with steps of each by itself, on two caches with the same prompt."""
    token = inputs["input_ids"][:, -1:].clone()

    def begun(way: AbstractContextManager[Any]) -> Callable[[], float]:
        cache = DynamicCache(config=model.config.get_text_config())
        model(**inputs, past_key_values=cache)
        with way:  # The first step decides.
            model(input_ids=token, past_key_values=cache)

        def steps() -> float:
            begin = time.process_time()
            for _ in range(STEPS):
                model(input_ids=token, past_key_values=cache)
            return time.process_time() - begin

        return steps

    with method(model):
        return compare(begun(apart()), begun(nullcontext()), pairs)


def prefill(model: Any, inputs: Mapping[str, Any], method: Method, pairs: int) -> Ratio:
    """Compare prompts whose twins share towers with prompts whose twins run all."""

    def timed() -> float:
        cache = DynamicCache(config=model.config.get_text_config())
        begin = time.process_time()
        model(**inputs, past_key_values=cache)
        return time.process_time() - begin

    def plain() -> float:
        with patch.object(twins, "share", lambda *_: nullcontext()):
            return timed()

    with method(model):
        return compare(plain, timed, pairs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--methods", nargs="+", default=["avcd"])
    given = parser.parse_args()
    bench = omni_bench()
    inputs = bench.inputs(LENGTH)
    for name in given.methods:
        for measure in (decoding, prefill):
            with torch.inference_mode(), last_rows(bench.model):
                found = measure(bench.model, inputs, parse_method(name), given.pairs)
            print(
                f"{name}, {measure.__name__}: {found.p50:.3f} of the time apart ({found.p20:.3f} to {found.p80:.3f}; "
                f"{found.pairs} pairs of {found.plain_ms:,.0f} ms; load {os.getloadavg()[0]:.1f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
