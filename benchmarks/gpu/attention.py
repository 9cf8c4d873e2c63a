"""The attention of a decode step in every way that torch offers, on whole caches, and which of them is the fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel, StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.pairs import seconds

#: From queries (B, H, 1, D), keys (B, K, T, D) and values (B, K, T, D'), to (B, H, 1, D').
Step = Callable[[Tensor, Tensor, Tensor], Tensor]
NAME = "omnisink_bench"
#: How often each way is timed over all layers; the least counts.
_TIMES = 3


def with_backend(backend: SDPBackend, grouped: bool) -> Step:
    """Return a backend, with grouped heads as torch has them, or with the queries of a group as rows of one head."""

    def step(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            if not grouped:
                return scaled_dot_product_attention(query, key, value, enable_gqa=True)
            rows = query.reshape(len(key), key.shape[1], -1, query.shape[3])
            return scaled_dot_product_attention(rows, key, value).reshape(*query.shape[:3], value.shape[3])

    return step


def flex() -> Step:
    """Return flex attention, compiled: for a single query torch has a kernel that splits the keys."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Any = torch.compile(flex_attention, dynamic=False)
    return lambda query, key, value: compiled(query, key, value, enable_gqa=True)


def ways(device: torch.device, compiles: bool) -> dict[str, Step]:
    """List the ways; on the CPU, where only the command is tried, one of them."""
    if device.type != "cuda":
        return {"math": with_backend(SDPBackend.MATH, grouped=True)}
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    found = {name: with_backend(backend, grouped=False) for name, backend in backends.items()}
    backends["efficient"] = SDPBackend.EFFICIENT_ATTENTION  # It knows no grouped heads.
    found |= {f"{name}, groups as rows": with_backend(backend, grouped=True) for name, backend in backends.items()}
    return {**found, "flex": flex()} if compiles else found


def fastest(model: PreTrainedModel, cache: StaticCache, compiles: bool) -> tuple[Step, str]:
    """Time every way over the caches of all layers, and return the fastest, with the milliseconds of all of them."""
    config, device = model.config, model.device
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    batch, _, _, width = layers[0][0].shape
    query = torch.randn(batch, config.num_attention_heads, 1, width, device=device, dtype=layers[0][0].dtype)
    times: dict[str, float] = {}
    failed: list[str] = []
    steps = ways(device, compiles)
    for name, step in steps.items():
        taken = _least(step, query, layers)
        if isinstance(taken, float):
            times[name] = taken * 1e3
        else:
            failed.append(f"{name} ({type(taken).__name__})")
    if not times:
        raise RuntimeError(f"no attention of torch's takes this step: {', '.join(failed)}")
    best = min(times, key=times.__getitem__)
    said = ", ".join(f"{name} {taken:.2f}" for name, taken in sorted(times.items(), key=lambda pair: pair[1]))
    without = f"; not {', '.join(failed)}" if failed else ""
    return steps[best], f"baseline {best}; attention of all layers in ms: {said}{without}"


def _least(step: Step, query: Tensor, layers: list[tuple[Tensor, Tensor]]) -> float | Exception:
    """Return the least time of a way, in seconds, or why it cannot be: not every release has all, for every shape."""
    try:
        repeated = _repeated(step, query, layers)
        return min(seconds(repeated, query.device) for _ in range(_TIMES))
    except Exception as error:
        return error


def _repeated(step: Step, query: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Callable[[], object]:
    """Return the same step over all layers, in a CUDA graph where there are any."""

    def run() -> None:
        for key, value in layers:
            step(query, key, value)

    run()
    if query.device.type != "cuda":
        return run
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[dict[str, Step]]:
    """Let a model attend in its decode steps by what stands under "step" in the dictionary that is yielded."""
    chosen: dict[str, Step] = {}

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        length = query.shape[2]
        if length > 1:  # A prompt, from the start of the cache on.
            key, value = key[:, :, :length], value[:, :, :length]
            output = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        else:
            output = chosen["step"](query, key, value)
        return output.transpose(1, 2).contiguous(), None

    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    model.set_attn_implementation(NAME)
    try:
        yield chosen
    finally:
        model.set_attn_implementation(before)
