"""Decode steps under SinkRouter over long caches, in CUDA graphs, against the fastest attention that torch offers.

The cache is filled with random keys and values behind a short prompt: what they are makes no difference to the time,
and half a million tokens would take minutes to process. The threshold is set so that the share of heads is routed that
the paper aims at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel, StaticCache

from benchmarks.gpu.attention import attending, fastest
from benchmarks.gpu.lines import Skip
from benchmarks.gpu.shapes import weight_bytes
from benchmarks.gpu.steps import Captured, Rewind, positions
from benchmarks.overhead import prompt
from benchmarks.pairs import Ratio, compare, seconds
from omnisink.maths.choice import kernels_run_on
from omnisink.maths.routing import Routed
from omnisink.methods import SinkRouter, sink_router
from omnisink.methods.router_trace import SurrogateWarning

#: Tokens in the cache, and sequences: what matters most first.
SHAPES = ((131_072, 1), (524_288, 1), (131_072, 8), (32_768, 1), (32_768, 8), (524_288, 8))
QUICK = SHAPES[:1]
#: What stands for these in a trial on the CPU.
TRIAL = {32_768: 48, 131_072: 64, 524_288: 96}
#: Share of all key/value heads that is to be routed, how far from it a run may be, and how many thresholds are tried.
SHARE, OFF, TRIES = 0.6, 0.02, 8
#: Tokens of the prompt, decode steps in each timing, and seconds that the pairs of a case may take.
PROMPT, STEPS, LIMIT = 16, 8, 3.0
#: The first threshold: nothing is routed, and all scores are known.
NOTHING = 0.999_999
#: Bytes that are left free, for what the steps need beside the cache.
SPARE = 2_000_000_000


def case_name(tokens: int, batch: int) -> str:
    """Name a case in the table."""
    return f"router decode {tokens}, batch {batch}"


def measured(
    model: PreTrainedModel, tokens: int, batch: int, *, compiles: bool, threshold: float
) -> tuple[Ratio, dict[str, Any]]:
    """Compare decode steps without and with SinkRouter.

    Parameters
    ----------
    model : PreTrainedModel
        The model; attached to nothing.
    tokens, batch : int
        Tokens in the cache of each sequence, and sequences.
    compiles : bool
        Whether there is time to compile flex attention too.
    threshold : float
        The first that is tried; the one of another length is a good guess.

    Returns
    -------
    ratio : Ratio
        Of `STEPS` steps with the method to as many without.
    rest : dict
        Further parts of the line.

    Raises
    ------
    Skip
        If the cache does not fit the device's memory.
    """
    device = model.device
    size = cache_bytes(model, tokens, batch)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(device)[0]
        if size + SPARE > free:
            raise Skip(f"the cache takes {size / 1e9:.0f} GB, of {free / 1e9:.0f} GB that are free")
    ids = prompt(model, PROMPT).repeat(batch, 1)
    token = ids[:, -1:].clone()
    cache = StaticCache(config=model.config, max_cache_len=tokens)
    if device.type == "cuda" and not kernels_run_on(ids.new_empty(1, dtype=model.dtype)):
        raise RuntimeError("the kernels are switched off here: this would measure the path without them")
    with attending(model) as chosen:
        fill(model, cache, ids)
        chosen["step"], said = fastest(model, cache, compiles)
        plain = timed(model, cache, token)
        ratio, share = None, 0.0
        low, high = -1.0, 1.0
        for _ in range(TRIES):
            with watched() as found, SinkRouter(threshold)(model):
                fill(model, cache, ids)
                changed = timed(model, cache, token, found)
                share = routed_share(found, model)
                if is_enough(share, model, batch):
                    ratio = compare(plain, changed, 21, 1, LIMIT)
                    share = routed_share(found, model)
                    break
                low, high = (threshold, high) if share > SHARE else (low, threshold)
                guess = threshold_for(found, model)
            # Heads that are routed change the scores of later layers, so that a guess may lead back.
            threshold = guess if low < guess < high else (low + high) / 2
    if ratio is None:
        raise RuntimeError(f"no threshold routes {SHARE:.0%} of the heads: the last routed {share:.0%}")
    table = model.get_input_embeddings().weight  # Of which a step reads a row.
    weights = weight_bytes(model) - table.numel() * table.element_size()
    bound = (weights + size) / (weights + (1 - share) * size)
    detail = f"{share:.0%} routed, {1 / ratio.p50:.2f} times as fast ({bound:.2f} by the bytes that are read); {said}"
    return ratio, {"detail": detail, "data": {"share": share, "threshold": threshold, "bound": bound}}


def cache_bytes(model: PreTrainedModel, tokens: int, batch: int) -> int:
    """Return what the keys and values of all layers take, in bytes."""
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize
    return batch * tokens * per_token


def fill(model: PreTrainedModel, cache: StaticCache, ids: torch.Tensor) -> None:
    """Process a prompt, put random keys and values behind it, and count them as if they had been generated.

    They are the same each time, so that a threshold routes as many heads again.
    """
    if cache.layers[0].is_initialized:
        cache.reset()
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
    length = ids.shape[1]
    random = torch.Generator(ids.device).manual_seed(0)
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            tensor[:, :, length:].normal_(std=float(tensor[:, :, :length].std()), generator=random)
    for tensor in positions(cache):
        tensor.fill_(cache.layers[0].max_cache_len - STEPS - 2)


@contextmanager
def watched() -> Iterator[list[Routed]]:
    """Keep what the method finds at every layer of the last step, in the tensors that a graph writes to."""
    found: list[Routed] = []
    own = vars(sink_router)["routed_decode"]

    def noting(*args: Any, **options: Any) -> Routed:
        found.append(own(*args, **options))
        return found[-1]

    with patch.object(sink_router, "routed_decode", noting), warnings.catch_warnings():
        # The values of random weights are not small where the sink is, which is warned of at the end of a block.
        warnings.simplefilter("ignore", SurrogateWarning)
        yield found


def timed(
    model: PreTrainedModel, cache: StaticCache, token: torch.Tensor, found: list[Routed] | None = None
) -> Callable[[], float]:
    """Return what takes the time of some steps; in a CUDA graph, but for a trial on the CPU."""
    rewind = Rewind(cache)
    if token.device.type == "cuda":
        graph = Captured(model, cache, token)
        step: Callable[[], object] = graph.replay
    else:
        step = lambda: model(input_ids=token, past_key_values=cache)  # noqa: E731
    layers = sum(layer not in (0, 1) for layer in range(model.config.num_hidden_layers))

    def run() -> float:
        rewind()
        step()
        taken = seconds(lambda: [step() for _ in range(STEPS)], token.device)
        if found is not None:
            del found[:-layers]  # Of the last step, or of the one that was captured.
        return taken

    run()
    return run


def routed_share(found: list[Routed], model: PreTrainedModel) -> float:
    """Return the share of all key/value heads, of the layers that are never routed too, that a step has routed."""
    layers = model.config.num_hidden_layers
    return float(torch.stack([one.routed.float().mean() for one in found]).sum()) / layers


def is_enough(share: float, model: PreTrainedModel, batch: int) -> bool:
    """Tell whether a share of heads is as near as may be to the one that is wanted."""
    heads = batch * model.config.num_hidden_layers * model.config.num_key_value_heads
    return abs(share - SHARE) <= max(OFF, 0.51 / heads)


def threshold_for(found: list[Routed], model: PreTrainedModel) -> float:
    """Return the threshold above which the scores of a step lie as often as is wanted."""
    scores = torch.cat([one.scores.flatten() for one in found]).float().sort(descending=True).values
    wanted = round(SHARE * model.config.num_hidden_layers * len(scores) / len(found))
    return float(scores[wanted - 1 : wanted + 1].mean())
