"""Timings: pairs of runs without and with OutRo, in one process, on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from benchmarks.gpu import routing
from benchmarks.gpu.lines import Case, run_cases
from benchmarks.gpu.options import Options
from benchmarks.gpu.shapes import measured_model, twin, weight_bytes
from benchmarks.gpu.steps import Captured, Rewind, filled, graphs_skipped
from benchmarks.overhead import CONTEXT, GENTLE, STEPS, attached, prefill, prompt
from benchmarks.pairs import Ratio, Timed, compare, rounded, seconds

#: Prompt lengths, and how many pairs of each; the long ones vary less.
LENGTHS = {256: 21, 768: 21, 4096: 11, 16384: 5}
QUICK = {768: 9, 4096: 5}
#: Lengths that stand for these in a trial on the CPU.
TRIAL = {256: 32, 768: 48, 4096: 96, 16384: 128}
#: The same for the context of a decoding step.
TRIAL_CONTEXT = 16
#: Seconds that the pairs of one case may take.
LIMIT = 8.0
#: Seconds that are left where flex attention is compiled to be a baseline too, for each length anew.
FLEX_LEFT = 75.0
#: Layers that are compiled where the time left does not do for all of them.
FEW_LAYERS = 7


class Measured:
    """The measured cases over one model."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.model = measured_model(options.shape, self.device)
        self.trial = options.shape == "tiny"
        self.context = TRIAL_CONTEXT if self.trial else CONTEXT
        self.threshold = routing.NOTHING
        self.compiling = 50.0  # seconds that a compiled case is thought to take, until one has been seen

    def cases(self) -> Iterator[Case]:
        """List what is measured, what matters most first."""
        quick = self.options.quick
        for length, pairs in (QUICK if quick else LENGTHS).items():
            yield Case("prefill", f"prefill {length}", lambda n=length, p=pairs: self.prefill(n, p), 2)
        if not quick:
            yield Case("prefill", "memory 16384", self.memory, 5)
        yield Case("decode", "decode eager, batch 1", lambda: self.decode(1), 3)
        if not quick:
            yield Case("decode", "decode eager, 16 left-padded", lambda: self.decode(16), 4)
        yield Case("graph", "decode, CUDA graph captured by hand", self.graph, 4)
        for tokens, batch in routing.QUICK if quick else routing.SHAPES:
            name = routing.case_name(tokens, batch)
            yield Case("routing", name, lambda t=tokens, b=batch: self.routing(t, b), 8)
        for mode in ("reduce-overhead", "default"):
            yield Case("compiled", f"decode, compiled ({mode})", lambda m=mode: self.compiled(m), 15)

    def prefill(self, length: int, pairs: int) -> dict[str, Any]:
        """Compare passes over a prompt."""
        timed = prefill(self.model, TRIAL[length] if self.trial else length)
        return said(compare(timed, attached(GENTLE, self.model, timed), pairs, 2, LIMIT))

    def memory(self) -> dict[str, Any]:
        """Compare the peaks of memory over a long prompt; the ratio is to the weights."""
        timed = prefill(self.model, TRIAL[16384] if self.trial else 16384)
        peaks = []
        for run in (timed, attached(GENTLE, self.model, timed)):
            run()
            if self.device.type != "cuda":
                raise NotImplementedError("peaks of memory are read from a CUDA device")
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            run()
            peaks.append(torch.cuda.max_memory_allocated())
        weights = weight_bytes(self.model)
        share = (peaks[1] - peaks[0]) / weights
        over, peak, weigh = (n / 1e6 for n in (peaks[1] - peaks[0], peaks[0], weights))
        detail = f"{over:,.1f} MB over a peak of {peak:,.0f} MB, weights {weigh:,.0f} MB"
        return {"p20": share, "p50": share, "p80": share, "pairs": 1, "detail": detail}

    def decode(self, batch: int) -> dict[str, Any]:
        """Compare eager steps over a dynamic cache; of several sequences, all but the first are padded on the left."""
        ids = prompt(self.model, self.context).repeat(batch, 1)
        mask = torch.ones(batch, self.context + STEPS + 1, dtype=torch.long, device=self.device)
        for b in range(1, batch):
            start = b * self.context // (2 * batch)
            mask[b, :start] = 0
            ids[b, start] = ids[0, 0]
        place = (mask.cumsum(dim=1) - 1).clamp(min=0)

        def more(start: int, stop: int) -> dict[str, Any]:
            return {} if batch == 1 else {"attention_mask": mask[:, :stop], "position_ids": place[:, start:stop]}

        first, *rest = [more(self.context + i, self.context + i + 1) for i in range(STEPS + 1)]
        token = ids[:, -1:].clone()

        def run() -> float:
            cache = DynamicCache(config=self.model.config)
            self.model(input_ids=ids, past_key_values=cache, logits_to_keep=1, **more(0, self.context))
            self.model(input_ids=token, past_key_values=cache, **first)

            def steps() -> None:
                for given in rest:
                    self.model(input_ids=token, past_key_values=cache, **given)

            return seconds(steps, self.device)

        return said(compare(run, attached(GENTLE, self.model, run), 11, 1, LIMIT), STEPS)

    def graph(self) -> dict[str, Any]:
        """Compare replays of a step that was captured by hand."""
        ids = prompt(self.model, self.context)
        token = ids[:, -1:].clone()

        def captured() -> tuple[Timed, Captured]:
            cache = filled(self.model, ids, self.context + STEPS + 2)
            rewind, graph = Rewind(cache), Captured(self.model, cache, token)
            return self._timed(rewind, graph.replay), graph

        plain, before = captured()
        with GENTLE(self.model) as trace:
            changed, after = captured()
            if not trace.rotated_tokens:
                raise RuntimeError("no token was rotated: the measurement would be of an idle method")
        plain(), changed()
        if torch.equal(before.logits, after.logits):
            raise RuntimeError("both graphs give the same logits: the measurement would be of an idle method")
        return said(compare(plain, changed, 21, 1, LIMIT), STEPS)

    def routing(self, tokens: int, batch: int) -> dict[str, Any]:
        """Compare steps over a long cache under SinkRouter, of which some heads look at the sink only."""
        compiles = not self.options.quick and self.options.left() > FLEX_LEFT
        tokens = routing.TRIAL[tokens] if self.trial else tokens
        ratio, rest = routing.measured(self.model, tokens, batch, compiles=compiles, threshold=self.threshold)
        self.threshold = rest["data"]["threshold"]
        return {**said(ratio, routing.STEPS), **rest}

    def compiled(self, mode: str) -> dict[str, Any]:
        """Compare compiled steps over a static cache, of as many layers as there is time to compile."""
        depth = len(self.model.model.layers)
        enough = self.options.left() > 1.3 * self.compiling + LIMIT
        layers = min(depth, self.options.layers or (depth if enough else FEW_LAYERS))
        plain_model, model = twin(self.model, layers), twin(self.model, layers)
        ids = prompt(plain_model, self.context)
        token = ids[:, -1:].clone()
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        how: dict[str, Any] = {"mode": mode} if self.device.type == "cuda" else {"backend": "aot_eager"}

        def stepping(one: PreTrainedModel) -> Timed:
            cache = filled(one, ids, self.context + STEPS + 2)
            forward = torch.compile(one.forward, fullgraph=True, **how)
            return self._timed(Rewind(cache), lambda: forward(input_ids=token, past_key_values=cache))

        with ExitStack() as stack:
            trace = stack.enter_context(GENTLE(model))
            plain, changed = stepping(plain_model), stepping(model)
            taken = seconds(lambda: (plain(), changed()), self.device)
            self.compiling = taken if layers == depth else taken * depth / layers
            skipped = graphs_skipped()
            ratio = compare(plain, changed, 21, 1, LIMIT)
            if not trace.rotated_tokens:
                raise RuntimeError("no token was rotated: the measurement would be of an idle method")
        detail = f"{layers} of {depth} layers, compiled in {taken:.0f} s"
        if mode == "reduce-overhead" and self.device.type == "cuda":
            detail += f", CUDA graphs skipped {skipped} times" if skipped else ", CUDA graphs used"
        torch._dynamo.reset()
        return {**said(ratio, STEPS), "detail": detail}

    def _timed(self, rewind: Rewind, step: Callable[[], object]) -> Timed:
        """Time some steps from where the cache was rewound to; the first of them is not part of the time."""

        def run() -> float:
            rewind()
            step()

            def steps() -> None:
                for _ in range(STEPS):
                    step()

            return seconds(steps, self.device)

        return run


def said(ratio: Ratio, steps: int = 1) -> dict[str, Any]:
    """Turn a ratio into the parts of a line; the baseline's time is that of one step."""
    found = rounded(ratio)
    return {**found, "plain_ms": round(ratio.plain_ms / steps, 4)}


def measure(options: Options, healthy: Callable[[], bool]) -> None:
    """Measure what is asked for."""
    with torch.inference_mode():
        wanted = Measured(options)
        run_cases([case for case in wanted.cases() if case.part in options.parts], options, healthy)
