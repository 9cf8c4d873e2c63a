"""SmolLM2 with its trained weights and sinks: sixteen prompts in one batch against `OutRo` on transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnisink.methods.outro import OutRo
from tests.serving.engine import ask, engine, greedy, state
from tests.serving.planted import TOLERANCE, Answer, assert_same, reference
from tests.skips import needs

pytestmark = [needs("vllm"), pytest.mark.real, pytest.mark.slow]

COUNT = 12
GAMMA = 0.3
TEXTS = [
    "Hello", "The capital of France is", "1, 2, 3, 4, 5,", "def fibonacci(n):\n", "List three colours:\n\n1.",
    "<|im_start|>user\nWhat is an attention sink?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time there was a small robot who lived by the sea.\n\nEvery morning it",
    "Photosynthesis is the process by which plants turn light into chemical energy. " * 8,
    "\n\n\n\n", "A", "The the the the the the", "To be, or not to be, that is the", "x = [1, 2, 3]\nprint(",
    "The river runs to the sea and the sea takes what the river brings. " * 5, "Question: What is 2 + 2?\nAnswer:",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from omnisink.models.checkpoint import write_checkpoint

    return write_checkpoint("smollm2-135m", tmp_path_factory.mktemp("real") / "smollm2")


@pytest.fixture(scope="module")
def prompts(smollm2: Any) -> list[list[int]]:
    return [smollm2.tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def wanted(smollm2: Any, prompts: list[list[int]]) -> list[Answer]:
    made = [reference(smollm2.model, ids, COUNT, OutRo(gamma=GAMMA)) for ids in prompts]
    plain = [reference(smollm2.model, ids, COUNT) for ids in prompts[:4]]
    moved = max(
        abs(a - b) for x, y in zip(made, plain, strict=False) for a, b in zip(x.logprobs, y.logprobs, strict=True)
    )
    assert moved > 20 * TOLERANCE
    return made


@pytest.mark.parametrize("ranks", [1, 3])
def test_sixteen_prompts(folder: Path, prompts: list[list[int]], wanted: list[Answer], ranks: int) -> None:
    with engine(folder, {"gamma": GAMMA}, tensor_parallel_size=ranks) as llm:
        assert_same(ask(llm, prompts, greedy(COUNT)), wanted)
        counted = state(llm)
    assert counted["requests_with_sinks"] == sum(one.sinks for one in wanted) >= 12
    assert counted["tokens_rotated"] == sum(one.rotated for one in wanted)
    assert counted["rows_relaxed"] == sum(one.relaxed for one in wanted)
