"""Decoding steps over a static cache: by hand in a CUDA graph, or compiled; and how to take such a cache back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache


def positions(cache: StaticCache) -> list[Tensor]:
    """Return the tensors in which a static cache counts its tokens, on the device."""
    found = [v for layer in cache.layers for v in vars(layer).values()]
    return [v for v in found if isinstance(v, Tensor) and v.dim() == 0 and v.dtype == torch.long]


class Rewind:
    """Takes a cache back to where it was, in place: a captured step can be replayed only while there is room."""

    def __init__(self, cache: StaticCache) -> None:
        self._kept = [(t, t.clone()) for t in positions(cache)]

    def __call__(self) -> None:
        """Take it back."""
        for tensor, value in self._kept:
            tensor.copy_(value)


def filled(model: PreTrainedModel, ids: Tensor, room: int) -> StaticCache:
    """Prefill a prompt (B, S) into a new static cache with room for `room` tokens."""
    cache = StaticCache(config=model.config, max_cache_len=room)
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
    return cache


class Captured:
    """One decoding step in a CUDA graph that was captured by hand.

    Parameters
    ----------
    model : PreTrainedModel
        Run as it is at this moment: with a method, inside its block.
    cache : StaticCache
        With the prompt in it.
    token : Tensor
        (B, 1) int64. Its values at the time of a replay are what is decoded.

    Attributes
    ----------
    logits : Tensor
        (B, 1, vocabulary), written by every replay.
    cache : StaticCache
        The cache.
    """

    def __init__(self, model: PreTrainedModel, cache: StaticCache, token: Tensor) -> None:
        if token.device.type != "cuda":
            raise NotImplementedError("CUDA graphs need a CUDA device")
        rewind = Rewind(cache)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                model(input_ids=token, past_key_values=cache)
                rewind()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.logits = model(input_ids=token, past_key_values=cache).logits
        rewind()
        self.cache = cache  # The graph writes into its memory, so it must not be given back.
        self.replay: Callable[[], None] = self._graph.replay


def graphs_skipped() -> int:
    """Return how often a compiled step has given up on CUDA graphs since the counters were cleared."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])
