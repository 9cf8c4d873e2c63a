"""A sequence whose states are not finite ends with an error, and leaves nothing behind for others."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.serving.engine import ask, engine, greedy, state
from tests.serving.planted import GAMMA, Answer, mixed_prompts, prompt, save, tiny_llama
from tests.skips import needs

pytestmark = needs("vllm")

#: A token whose embedding is no number, as it would be after an overflow.
BROKEN = 9


@pytest.fixture(scope="module")
def broken_served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[BROKEN, 3] = float("nan")
    return save(model, tmp_path_factory.mktemp("served") / "broken")


def test_what_is_not_finite_ends_with_an_error_and_poisons_nobody(broken_served: Path) -> None:
    prompts = [ids for ids in mixed_prompts() if len(ids) < 120]
    broken = [prompt(60, (0,)), prompt(33, ()), [BROKEN]]
    for ids in broken:
        ids[len(ids) // 2] = BROKEN
    # So few blocks that those of the broken sequences are given out again and again.
    options = {"num_gpu_blocks_override": 24, "block_size": 32, "max_num_seqs": 4}
    with engine(broken_served, {"gamma": GAMMA}, **options) as llm:
        before = ask(llm, prompts, greedy(8))
        for outro in (None, False):
            mixed = [broken[0], *prompts[:3], broken[1], *prompts[3:], broken[2]]
            params = [greedy(8, outro if ids in broken else None) for ids in mixed]
            made = llm.generate([{"prompt_token_ids": ids} for ids in mixed], params, use_tqdm=False)
            for ids, one in zip(mixed, made, strict=True):
                output = one.outputs[0]
                assert (output.finish_reason == "error") == (ids in broken)
                assert (len(output.token_ids) == 0) == (ids in broken)
        one_token = greedy(1)
        assert llm.generate([{"prompt_token_ids": broken[0]}], one_token, use_tqdm=False)[0].outputs[0].token_ids == []
        logs = greedy(4, prompt_logprobs=1)
        assert llm.generate([{"prompt_token_ids": broken[0]}], logs, use_tqdm=False)[0].outputs[0].finish_reason == (
            "error"
        )
        after = ask(llm, prompts, greedy(8))
        held = state(llm)
    assert after == before
    assert all(isinstance(one, Answer) and len(one.tokens) == 8 for one in after)
    assert held["slots"] <= 4


def test_without_it_a_block_would_carry_the_poison_on(broken_served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the guard is for: vLLM alone gives the blocks out as they are."""
    monkeypatch.setenv("VLLM_COMPUTE_NANS_IN_LOGITS", "0")
    ids, broken = prompt(20, (0,)), [BROKEN] * 30
    options = {"num_gpu_blocks_override": 2, "block_size": 32, "max_num_seqs": 1, "max_model_len": 32}
    with engine(broken_served, enable_prefix_caching=False, **options) as llm:
        fine = llm.generate([{"prompt_token_ids": ids}], greedy(4), use_tqdm=False)
        llm.generate([{"prompt_token_ids": broken}], greedy(2), use_tqdm=False)
        spoilt = llm.generate([{"prompt_token_ids": ids}], greedy(4), use_tqdm=False)
    assert fine[0].outputs[0].token_ids != spoilt[0].outputs[0].token_ids


def test_nothing_of_a_spoiled_answer_is_left_in_a_step() -> None:
    from omnisink.serving.scheduler import spoiled

    output: Any = SimpleNamespace(
        num_nans_in_logits={"a": 0, "b": 3, "c": 0},
        sampled_token_ids=[[1], [2], [3]],
        req_id_to_index={"c": 0, "b": 1, "a": 2},
        prompt_logprobs_dict={"b": "logs", "c": "logs"},
        prompt_token_id_logprobs_dict={},
    )
    assert spoiled(output) == ["b"]
    assert output.sampled_token_ids == [[1], [], [3]]
    assert output.prompt_logprobs_dict == {"c": "logs"}
    assert spoiled(SimpleNamespace(num_nans_in_logits=None)) == []


def test_a_scheduler_of_somebody_elses_is_refused(broken_served: Path) -> None:
    from omnisink.errors import OmnisinkError
    from tests.serving.test_refusals import configured

    config = configured(broken_served)
    assert config.scheduler_config.scheduler_cls.startswith("omnisink.serving.scheduler.")
    assert os.environ["VLLM_COMPUTE_NANS_IN_LOGITS"] == "1"
    with pytest.raises(OmnisinkError, match="cannot be served by the scheduler"):
        configured(broken_served, scheduler_cls="tests.serving.test_nonfinite.Own")


class Own:
    """A scheduler that nobody knows."""
