"""A continuous batch in vLLM against `OutRo` on transformers, one prompt at a time, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnisink.methods.outro import OutRo
from omnisink.serving.attach import NUMBA
from tests.serving import planted
from tests.serving.engine import ask, engine, greedy, state
from tests.serving.planted import GAMMA, TOLERANCE, assert_same, difference, mixed_prompts, reference, scored
from tests.skips import needs

pytestmark = needs("vllm")

COUNT = 24


@pytest.fixture(scope="module")
def wanted(llama: Any) -> list[planted.Answer]:
    return [reference(llama, ids, COUNT, OutRo(gamma=GAMMA)) for ids in mixed_prompts()]


@pytest.fixture(scope="module")
def plain(llama: Any) -> list[planted.Answer]:
    return [reference(llama, ids, COUNT) for ids in mixed_prompts()]


def test_the_method_moves_the_answers_that_the_tests_compare(
    wanted: list[planted.Answer], plain: list[planted.Answer]
) -> None:
    with_sinks = [i for i, one in enumerate(wanted) if one.sinks]
    assert len(with_sinks) == 13
    for i in with_sinks:
        moved = max(abs(a - b) for a, b in zip(wanted[i].logprobs, plain[i].logprobs, strict=True))
        assert moved > 20 * TOLERANCE


@pytest.fixture(scope="module", params=["numba", "torch"])
def llm(llama_served: Path, request: pytest.FixtureRequest) -> Any:
    """Serve with either kind of operators: those of PyTorch are the ones of accelerators and of half precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NUMBA, str(int(request.param == "numba")))
        with engine(llama_served, {"gamma": GAMMA}) as made:
            yield made


def test_sixteen_prompts_in_one_batch(llm: Any, wanted: list[planted.Answer]) -> None:
    before = state(llm)
    assert_same(ask(llm, mixed_prompts(), greedy(COUNT)), wanted)
    after = state(llm)
    counted = {name: after[name] - before[name] for name in after}
    # The last token of an answer is never put in again, on either side.
    assert counted["requests"] == 16
    assert counted["requests_with_sinks"] == 13
    assert counted["tokens_rotated"] == sum(one.rotated for one in wanted)
    assert counted["rows_relaxed"] == sum(one.relaxed for one in wanted)


def test_requests_with_settings_of_their_own_share_a_batch(
    llm: Any, llama: Any, wanted: list[planted.Answer], plain: list[planted.Answer]
) -> None:
    prompts = mixed_prompts()
    said: list[Any] = [
        None,
        {"gamma": 0.0},
        False,
        {"gamma": 0.4},
        {"gamma": -0.5},
        {"relax": False},
        {"decode": False},
    ]
    methods = [
        OutRo(gamma=GAMMA),
        None,
        None,
        OutRo(gamma=0.4),
        OutRo(gamma=-0.5),
        OutRo(gamma=GAMMA, relax=False),
        OutRo(gamma=GAMMA, decode=False),
    ]
    which = [i % len(said) for i in range(len(prompts))]
    got = ask(llm, prompts, [greedy(COUNT, said[w]) for w in which])
    assert_same(got, [reference(llama, ids, COUNT, methods[w]) for ids, w in zip(prompts, which, strict=True)])
    alone = {"gamma": 0.0, "relax": True}
    assert_same(
        ask(llm, prompts[-2:], greedy(COUNT, alone)),
        [reference(llama, ids, COUNT, OutRo(gamma=0.0)) for ids in prompts[-2:]],
    )


def test_requests_join_and_leave_and_are_aborted(llm: Any, wanted: list[planted.Answer]) -> None:
    inner, prompts = llm.llm_engine, mixed_prompts()
    done: dict[str, planted.Answer] = {}

    def step(times: int = 1) -> None:
        for _ in range(times):
            for one in inner.step():
                if one.finished and one.outputs[0].finish_reason != "abort":
                    done[one.request_id] = planted.served(one.outputs[0])

    lengths = {i: (5, 24, 11, 17)[i % 4] for i in range(len(prompts))}
    names = {}
    for i, ids in enumerate(prompts):
        names[i] = inner.add_request(f"join-{i}", {"prompt_token_ids": ids}, greedy(lengths[i]))
        step(1 + i % 3)
        if i % 5 == 4:  # In mid-generation, or while its prompt waits.
            inner.abort_request([names[i] if isinstance(names[i], str) else f"join-{i}"])
    while inner.has_unfinished_requests():
        step()
    for i, one in enumerate(wanted):
        if i % 5 != 4 or f"join-{i}" in done:
            short = planted.Answer(one.tokens[: lengths[i]], one.logprobs[: lengths[i]])
            assert difference(done[f"join-{i}"], short) < TOLERANCE
    assert len(done) >= 13


def test_several_samples_of_one_prompt(llm: Any, llama: Any) -> None:
    ids = mixed_prompts()[12]
    params = greedy(COUNT)
    params.n, params.temperature, params.seed = 3, 1.0, 5
    (made,) = llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)
    samples = [planted.served(one) for one in made.outputs]
    assert len({tuple(one.tokens) for one in samples}) == 3
    assert_same(samples, [scored(llama, ids, one.tokens, OutRo(gamma=GAMMA)) for one in samples])


def test_nothing_is_left_of_requests_that_have_ended(llm: Any) -> None:
    ask(llm, [prompt for prompt in mixed_prompts() for _ in range(3)], greedy(3))
    ask(llm, mixed_prompts()[:1], greedy(2))
    assert state(llm)["alive"] <= 1  # A worker hears of the last end with the next pass.
    assert state(llm)["slots"] <= 1


def test_prompt_logprobs_are_those_of_the_method(llm: Any, llama: Any) -> None:
    import torch

    ids = mixed_prompts()[9]
    (made,) = llm.generate([{"prompt_token_ids": ids}], greedy(1, prompt_logprobs=0), use_tqdm=False)
    with OutRo(gamma=GAMMA)(llama), torch.no_grad():
        logs = llama(torch.tensor([ids])).logits[0].log_softmax(-1)
    for t in range(1, len(ids)):
        assert abs(made.prompt_logprobs[t][ids[t]].logprob - logs[t - 1, ids[t]].item()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("numba", ["1", "0"])
def test_forced_preemption(llama_served: Path, llama: Any, numba: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NUMBA, numba)
    prompts = [planted.prompt(40 + i, (0, 7 * i % 40), seed=i) for i in range(8)]
    with engine(
        llama_served, {"gamma": GAMMA}, num_gpu_blocks_override=13, block_size=32, disable_log_stats=False
    ) as llm:
        got = ask(llm, prompts, greedy(60))
        preempted = [m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions"]
        assert sum(preempted) >= 2
        counted = state(llm)
    wanted = [reference(llama, ids, 60, OutRo(gamma=GAMMA)) for ids in prompts]
    assert_same(got, wanted)
    assert counted["tokens_rotated"] == sum(one.rotated for one in wanted)


@pytest.mark.slow
def test_compiled(llama_served: Path, wanted: list[planted.Answer], plain: list[planted.Answer]) -> None:
    with engine(llama_served, {"gamma": GAMMA}, enforce_eager=False) as llm:
        for _ in range(2):
            assert_same(ask(llm, mixed_prompts(), greedy(COUNT)), wanted)
        assert_same(ask(llm, mixed_prompts(), greedy(COUNT, False)), plain)


@pytest.mark.slow
def test_without_the_setting_vllm_is_untouched(llama_served: Path, plain: list[planted.Answer]) -> None:
    with engine(llama_served) as llm:
        first = ask(llm, mixed_prompts(), greedy(COUNT))
        assert llm.llm_engine.vllm_config.parallel_config.worker_cls == "vllm.v1.worker.cpu_worker.CPUWorker"
        assert llm.llm_engine.vllm_config.cache_config.enable_prefix_caching
    assert_same(first, plain)
