"""A thousand mixed requests: nothing is left behind, and memory stays flat."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from omnisink.methods.outro import OutRo
from tests.serving.engine import ask, engine, greedy, state
from tests.serving.planted import GAMMA, assert_same, mixed_prompts, reference
from tests.skips import needs

pytestmark = [needs("vllm"), needs("/proc"), pytest.mark.slow]


def resident() -> int:
    """Bytes that the engine's processes hold."""
    import psutil

    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))


def serve_many(folder: Path, outro: Any, llama: Any) -> tuple[int, dict[str, int]]:
    """Answer a thousand requests; return by how many bytes the last 600 made the engine grow, and what is left."""
    draw, prompts = random.Random(0), mixed_prompts()
    said = [None, None, False, {"gamma": 0.0}, {"gamma": 0.4}, {"decode": False}]
    # A small cache: pages of a large one are taken as they are first written, which looks like a leak.
    options = {"num_gpu_blocks_override": 96, "block_size": 32}
    with engine(folder, outro, enable_prefix_caching=False, enable_chunked_prefill=False, **options) as llm:

        def some(count: int) -> None:
            params = [greedy(draw.randint(1, 12), draw.choice(said)) for _ in range(count)]
            ask(llm, [draw.choice(prompts) for _ in params], params)

        some(400)
        before = resident()
        some(600)
        grown = resident() - before
        if outro is None:
            return grown, {}
        counted = state(llm)
        wanted = [reference(llama, ids, 8, OutRo(gamma=GAMMA)) for ids in prompts[:4]]
        assert_same(ask(llm, prompts[:4], greedy(8)), wanted)
    return grown, counted


def test_a_thousand_requests_leave_nothing(llama_served: Path, llama: Any) -> None:
    grown, counted = serve_many(llama_served, {"gamma": GAMMA}, llama)
    assert counted["requests"] == 1000
    assert counted["alive"] <= 16  # A worker hears of the last ends with the next pass.
    assert counted["slots"] <= 16
    # vLLM's worker for CPUs grows by itself, with the shapes of its passes; OutRo must add nothing to that.
    alone, _ = serve_many(llama_served, None, llama)
    print(f"{counted}, grown by {grown / 1e6:.1f} MB, vLLM alone by {alone / 1e6:.1f} MB")
    assert grown - alone < 20e6
