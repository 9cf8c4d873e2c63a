"""The cost of every registered method in its default settings, in pairs with the baseline.

A method that is registered has its lines here by itself. One that looks at modalities is measured on SmolOmni with a
clip, the others on SmolLM2-135M with random tokens after a sink. What a model does not admit is named with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import DynamicCache

from benchmarks.history import append, write_methods_table
from benchmarks.overhead import CONTEXT, STEPS, prompt
from benchmarks.pairs import Ratio, Timed, compare, rounded, seconds
from omnisink import load_model
from omnisink.cli.demo import CLIP
from omnisink.errors import OmnisinkError
from omnisink.media import Uniform
from omnisink.methods.base import Method
from omnisink.methods.registry import Registered, registered_methods
from omnisink.models.last_rows import last_rows

#: Tokens of the measured prefill.
LENGTH = 768
#: What stands after a method's name in the history where it changed no number in the measured passes.
IDLE = ", idle"


@dataclass(frozen=True)
class Bench:
    """A model, and the prompts that methods are measured on.

    Attributes
    ----------
    name : str
        What the model is called.
    model : PreTrainedModel
        The model.
    inputs : callable
        From a length to inputs of that many tokens, or of as few as the prompt's media allow.
    """

    name: str
    model: Any
    inputs: Callable[[int], Mapping[str, Any]]


def text_bench() -> Bench:
    """SmolLM2-135M, and random tokens of which the first is a sink."""
    model = load_model("smollm2-135m", dtype="float32", device="cpu").model
    return Bench("smollm2-135m", model, lambda length: {"input_ids": prompt(model, length)})


def omni_bench() -> Bench:
    """SmolOmni, and the clip of `omnisink demo` with its sound before a question that fills the prompt."""
    loaded = load_model("smolomni", dtype="float32", device="cpu")

    def inputs(length: int) -> Mapping[str, Any]:
        question = "What is seen and heard?"
        while True:
            made = loaded.inputs(question, video=CLIP, frames=Uniform(8))
            missing = length - made["input_ids"].shape[1]
            if missing <= 0:
                return made
            question += " and" * missing

    return Bench("smolomni", loaded.model, inputs)


def instance(one: Registered) -> Method:
    """Return a method in its default settings, with those of its example where it has none."""
    return one.kind(**one.kind.example)


def passes(bench: Bench, length: int, steps: int) -> tuple[Timed, Callable[[], Tensor]]:
    """Return what times a prefill, or steps after one, and what returns the logits of the same passes."""
    inputs = bench.inputs(length)
    token = inputs["input_ids"][:, -1:].clone()

    def run(cache: DynamicCache, count: int) -> Tensor:
        logits: Tensor = bench.model(input_ids=token, past_key_values=cache).logits
        for _ in range(count - 1):
            logits = bench.model(input_ids=token, past_key_values=cache).logits
        return logits

    def prefill(cache: DynamicCache) -> Tensor:
        logits: Tensor = bench.model(**inputs, past_key_values=cache).logits[:, -1:]
        return logits

    def timed() -> float:
        cache = DynamicCache(config=bench.model.config.get_text_config())
        if not steps:
            return seconds(lambda: prefill(cache), bench.model.device)
        prefill(cache)
        run(cache, 1)
        return seconds(lambda: run(cache, steps), bench.model.device)

    def logits() -> Tensor:
        cache = DynamicCache(config=bench.model.config.get_text_config())
        first = prefill(cache)
        return torch.cat([first, run(cache, 1)], dim=1) if steps else first

    return timed, logits


def measure(one: Registered, bench: Bench, length: int, steps: int, pairs: int) -> tuple[Ratio, bool]:
    """Compare passes with a method and without it.

    Returns
    -------
    Ratio
        Of the times; entering and leaving the block are not part of them.
    bool
        Whether the method changed nothing in these passes.

    Raises
    ------
    OmnisinkError
        If the method has settings without a value to try, or does not work on this model.
    """
    method = instance(one)
    plain, logits = passes(bench, length, steps)
    with torch.inference_mode(), last_rows(bench.model):
        expected = logits()
        with method(bench.model):
            idle = torch.equal(logits(), expected)

        def changed() -> float:
            with method(bench.model):
                return plain()

        return compare(plain, changed, pairs), idle


def cases(length: int = LENGTH, context: int = CONTEXT, steps: int = STEPS) -> dict[str, tuple[int, int]]:
    """Return the measured passes by name: the prompt's length, and steps after it."""
    return {f"prefill {length}": (length, 0), f"decode {steps}": (context, steps)}


def lines(
    methods: list[Registered],
    bench_for: Callable[[Registered], Bench],
    passes_by_name: Mapping[str, tuple[int, int]],
    pairs: int,
) -> Iterator[tuple[Registered, str, dict[str, object] | str]]:
    """Measure methods one after the other: each with its passes, and a line for the history or why there is none."""
    for one in methods:
        for case, (length, steps) in passes_by_name.items():
            try:
                bench = bench_for(one)
                ratio, idle = measure(one, bench, length, steps, pairs)
            except (OmnisinkError, TypeError, ValueError) as error:
                yield one, case, str(error)
                continue
            name = f"{one.name}{IDLE if idle else ''}: {case} ({bench.name})"
            yield one, case, {"model": "methods", "dtype": "float32", "case": name, **rounded(ratio)}


def main() -> None:
    """Measure, print, and append to the history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="some methods in place of all")
    parser.add_argument("--dry-run", action="store_true", help="measure and print, and record nothing")
    given = parser.parse_args()
    console = Console()
    known = registered_methods()
    if unknown := set(given.methods or ()) - {one.name for one in known}:
        parser.error(f"no method is registered as {', '.join(sorted(unknown))}")
    chosen = [one for one in known if given.methods is None or one.name in given.methods]
    benches: dict[bool, Bench] = {}

    def bench_for(one: Registered) -> Bench:
        wants = one.kind.needs_spans
        if wants not in benches:
            benches[wants] = omni_bench() if wants else text_bench()
        return benches[wants]

    for one, case, line in lines(chosen, bench_for, cases(), given.pairs):
        if isinstance(line, str):
            console.print(f"{one.name}, {case}: not measured: {line}", highlight=False, soft_wrap=True)
            continue
        if not given.dry_run:
            append([line])
        console.print(
            f"{line['case']:50} {line['p50']} times the baseline ({line['p20']} to {line['p80']}, {line['pairs']} "
            f"pairs of {line['plain_ms']} ms)",
            highlight=False,
            soft_wrap=True,
        )
    if not given.dry_run:
        write_methods_table()


if __name__ == "__main__":
    main()
