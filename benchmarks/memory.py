"""Memory that the recorder takes over the model, in a process of its own (`python -m benchmarks.memory`)."""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from benchmarks.overhead import prompt, smollm2
from omnisink.methods.measure import Recorder


def resident() -> float:
    """Return the process's resident memory now, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1024**2


def peak() -> float:
    """Return the process's peak resident memory so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Load the model, run one recorded prefill, and print what it added."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--plain", action="store_true", help="run the same prefill without the recorder")
    given = parser.parse_args()
    model = smollm2(torch.float32, torch.device("cpu"))
    ids = prompt(model, given.tokens)
    with torch.inference_mode():
        model(input_ids=ids[:, :8])
        before, start = resident(), time.perf_counter()
        if given.plain:
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
        else:
            with Recorder(received=False)(model):
                model(input_ids=ids, use_cache=False, logits_to_keep=1)
    seconds = time.perf_counter() - start
    grown = peak() - before
    print(f"{given.tokens} tokens: {seconds:,.0f} s, {grown:,.0f} MB over the loaded model's {before:,.0f} MB")


if __name__ == "__main__":
    main()
