"""The cost of OutRo and of the recorder: paired runs with and without them (`make bench`).

Measured in one process, the same weights and inputs, taking turns. Each line printed is also a line of history.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn
from transformers import DynamicCache, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, StaticCache

from benchmarks.history import HISTORY, PAGE, append, write_table
from benchmarks.naive import NaiveOutRo
from benchmarks.pairs import Ratio, Timed, compare, rounded, seconds
from omnisink import OutRo, load_model
from omnisink.methods.base import Method
from omnisink.methods.measure import Recorder

#: Tokens in the cache before the measured decoding steps, and the number of those steps.
CONTEXT, STEPS = 256, 24

GENTLE = OutRo(gamma=0.3)


def smollm2(dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load the real SmolLM2-135M."""
    return load_model("smollm2-135m", device=str(device), dtype=str(dtype).removeprefix("torch.")).model


#: Sizes of Qwen2.5-7B.
SEVEN_BILLION = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
}


def seven_billion(dtype: torch.dtype, device: torch.device, **sizes: int) -> PreTrainedModel:
    """Make random weights of Qwen2.5-7B's shape, or of other `sizes`, with a sink planted at the first token."""
    config = Qwen2Config(**{**SEVEN_BILLION, **sizes})
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[1, 7] = 30_000.0
    return model


MODELS: dict[str, Callable[[torch.dtype, torch.device], PreTrainedModel]] = {
    "smollm2-135m": smollm2,
    "qwen2.5-7b-shape": seven_billion,
}


def prompt(model: PreTrainedModel, length: int) -> torch.Tensor:
    """Make (1, length) token ids: random, but for the first, which becomes a sink."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(100, model.config.vocab_size - 1000, (1, length), generator=generator)
    ids[0, 0] = 1
    return ids.to(model.device)


def attached(method: Method, model: nn.Module, timed: Timed) -> Timed:
    """Time inside the method's block; entering and leaving are not part of the time."""

    def run() -> float:
        with method(model) as trace:
            taken = timed()
        if not trace.rotated_tokens and not trace.record.measured:
            raise RuntimeError("no token was rotated or measured: the measurement would be of an idle method")
        return taken

    return run


def prefill(model: PreTrainedModel, length: int) -> Timed:
    """Time one pass over a prompt."""
    ids = prompt(model, length)
    return lambda: seconds(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1), model.device)


def decode(model: PreTrainedModel, forward: Callable[..., object], static: bool) -> Timed:
    """Time some generated tokens after a prefill that is not timed."""
    ids = prompt(model, CONTEXT)
    token = ids[:, -1:].clone()

    def run() -> float:
        room = CONTEXT + STEPS + 1
        cache = StaticCache(config=model.config, max_cache_len=room) if static else DynamicCache(config=model.config)
        model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
        forward(input_ids=token, past_key_values=cache)

        def steps() -> None:
            for _ in range(STEPS):
                forward(input_ids=token, past_key_values=cache)

        return seconds(steps, model.device)

    return run


def cases(model: PreTrainedModel, lengths: list[int], pairs: int) -> dict[str, Callable[[], Ratio]]:
    """List what is measured, by name."""

    def against(method: Method, timed: Timed, count: int = pairs) -> Ratio:
        return compare(timed, attached(method, model, timed), count)

    found: dict[str, Callable[[], Ratio]] = {
        "prefill 768": lambda: against(GENTLE, prefill(model, 768)),
        f"decode {STEPS}": lambda: against(GENTLE, decode(model, model, static=False)),
        "prefill 768, naive": lambda: against(NaiveOutRo(gamma=0.3), prefill(model, 768)),
        f"decode {STEPS}, naive": lambda: against(NaiveOutRo(gamma=0.3), decode(model, model, static=False)),
    }
    if model.device.type == "cuda":
        # CUDA graphs: torch.compile records one for the decoding step. Plain and attached steps are compiled apart.
        for name in ("default", "reduce-overhead"):
            found[f"decode {STEPS}, compiled ({name})"] = lambda mode=name: compiled(model, mode, pairs)
    for length in (1024, 4096, 16384):
        for name, recorder in (("", Recorder(received=False)), (" with what is received", Recorder())):
            found[f"record {length}{name}"] = lambda n=length, r=recorder: against(
                r, prefill(model, n), max(2, pairs * 256 // n)
            )
    for length in lengths:
        # A long prompt takes minutes on a CPU; its ratio also varies less.
        found[f"prefill {length}"] = lambda n=length: against(GENTLE, prefill(model, n), max(3, pairs * 768 // n))
    return found


def compiled(model: PreTrainedModel, mode: str, pairs: int) -> Ratio:
    """Compare compiled decoding steps over a static cache."""
    steps = decode(model, torch.compile(model.forward, mode=mode, fullgraph=True), static=True)
    inside = attached(GENTLE, model, steps)
    return compare(steps, inside, pairs, warm_up=3)


def main() -> None:
    """Measure, print, and append to the history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--lengths", type=int, nargs="*", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--only", help="run the cases whose name contains this")
    arguments = parser.parse_args()
    model = MODELS[arguments.model](getattr(torch, arguments.dtype), torch.device(arguments.device))
    console = Console()
    with torch.inference_mode(), Progress(console=Console(stderr=True), transient=True) as progress:
        chosen = {
            name: case
            for name, case in cases(model, arguments.lengths, arguments.pairs).items()
            if arguments.only is None or arguments.only in name
        }
        for name, case in progress.track(chosen.items(), description="pairs"):
            ratio = case()
            append([{"model": arguments.model, "dtype": arguments.dtype, "case": name, **rounded(ratio)}])
            console.print(
                f"{name:28} {ratio.p50:.4f} times the baseline "
                f"({ratio.p20:.4f} to {ratio.p80:.4f}, {ratio.pairs} pairs of {ratio.plain_ms:.1f} ms)"
            )
    write_table()
    console.print(f"appended to {HISTORY.name}; the newest of every case are in {PAGE.name}")


if __name__ == "__main__":
    main()
