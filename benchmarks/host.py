"""What OutRo takes of the host where kernels run, without a GPU: `python -m benchmarks.host`.

At short prompts and in eager decoding a GPU waits for the host, so this is what the method costs there. The kernels'
launches end where Triton would hand them to CUDA; everything before that runs as on a GPU: hooks, layouts, masks,
arguments and the keys by which compiled kernels are found. The arithmetic of a tiny model runs on the CPU, with and
without the method in turns, and the difference in processor time is divided by the layers.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from transformers import DynamicCache, PreTrainedModel

from benchmarks.overhead import GENTLE, prompt, seven_billion
from omnisink.maths import choice

#: A decoder as deep as Qwen2.5-7B, and as narrow as it can be.
SIZES = {
    "vocab_size": 2000,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 28,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LENGTH, STEPS = 16, 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    model = seven_billion(torch.float32, torch.device("cpu"), **SIZES)
    layers = SIZES["num_hidden_layers"]
    with torch.inference_mode(), launches_that_end_at_cuda():
        for name, once, scale in (("prefill", prefilling(model), 1), ("decode step", decoding(model), STEPS)):
            plain, added = compare(model, once, pairs)
            print(
                f"{name:12} {added / scale * 1e6:7.0f} us more than {plain / scale * 1e6:.0f}, "
                f"{added / scale / layers * 1e6:.2f} us a layer (processor time, median of {pairs} pairs)"
            )


@contextmanager
def launches_that_end_at_cuda() -> Iterator[None]:
    """Take tensors of the CPU for those of a GPU, up to the call that CUDA would get."""
    from triton.runtime.jit import JITFunction

    from omnisink.kernels import launch as launching

    with ExitStack() as stack:
        for target, name, value in (
            (choice, "_CHOICE", "interpret"),  # Kernels for the CPU's tensors; Triton itself does not interpret.
            (torch.Tensor, "get_device", lambda tensor: 0),
            (launching, "current_device", lambda: 0),
            (launching, "_KERNELS", {}),
            (launching, "driver", SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda index: 0))),
            (JITFunction, "__getitem__", lambda kernel, grid: _compile),
        ):
            stack.enter_context(patch.object(target, name, value))
        for module in [m for name, m in sys.modules.items() if name.startswith("omnisink.")]:
            if hasattr(module, "is_eager_cpu"):
                stack.enter_context(patch.object(module, "is_eager_cpu", lambda tensor: False))
        yield


def _compile(*args: Any, **constants: Any) -> SimpleNamespace:
    return SimpleNamespace(run=_run, function=0, packed_metadata=())


def _run(*args: Any) -> None:
    """Stand for Triton's launcher, which hands its arguments on to C."""


def prefilling(model: PreTrainedModel) -> Callable[[], float]:
    """Time a pass over a prompt."""
    ids = prompt(model, LENGTH)
    return lambda: taken(lambda: model(input_ids=ids, past_key_values=DynamicCache(config=model.config)))


def decoding(model: PreTrainedModel) -> Callable[[], float]:
    """Time some steps; the first, in which launches are prepared, is not among them."""
    ids = prompt(model, LENGTH)
    token = ids[:, -1:].clone()

    def run() -> float:
        cache = DynamicCache(config=model.config)
        for given in (ids, token):
            model(input_ids=given, past_key_values=cache)
        return taken(lambda: [model(input_ids=token, past_key_values=cache) for _ in range(STEPS)])

    return run


def compare(model: PreTrainedModel, once: Callable[[], float], pairs: int) -> tuple[float, float]:
    """Return the seconds without the method, and how many more it takes with it."""
    plain, added = [], []
    with GENTLE(model):
        once()
    gc.collect()
    gc.disable()
    try:
        for _ in range(pairs):
            plain.append(once())
            with GENTLE(model):
                once()  # What the block before left is put away.
                added.append(once() - plain[-1])
    finally:
        gc.enable()
    return statistics.median(plain), statistics.median(added)


def taken(work: Callable[[], object]) -> float:
    """Return the processor time that some work takes, which another process on the machine does not change."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
