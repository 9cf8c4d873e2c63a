"""Tensor parallelism: each rank has some of the heads, all of them see the same sinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnisink.methods.outro import OutRo
from tests.serving import planted
from tests.serving.engine import ask, engine, greedy
from tests.serving.planted import GAMMA, assert_same, mixed_prompts, reference
from tests.skips import needs

pytestmark = [needs("vllm"), pytest.mark.slow]

COUNT = 12


@pytest.fixture(scope="module")
def model() -> Any:
    # vLLM divides the vocabulary too. Three times as wide as the other model, with weights that keep outputs as large.
    return planted.tiny_llama(heads=12, kv_heads=6, vocab_size=192, std=0.07)


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.save(model, tmp_path_factory.mktemp("parallel") / "llama")


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_with_one_process(model: Any, folder: Path, ranks: int) -> None:
    wanted = [reference(model, ids, COUNT, OutRo(gamma=GAMMA)) for ids in mixed_prompts()]
    with engine(folder, {"gamma": GAMMA}, tensor_parallel_size=ranks) as llm:
        assert_same(ask(llm, mixed_prompts(), greedy(COUNT)), wanted)
        counted = llm.collective_rpc("outro_state")
    assert len(counted) == ranks
    assert all(one == counted[0] for one in counted)
    assert counted[0]["tokens_rotated"] == sum(one.rotated for one in wanted)
