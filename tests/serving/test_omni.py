"""SmolOmni on a server: a video with its sound through the chat endpoint, against what `omnisink ask` answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnisink.serving import demo
from omnisink.serving.process import serve
from tests.serving.make_omni import CLIP, OUT
from tests.serving.planted import TOLERANCE
from tests.skips import needs

pytestmark = [needs("vllm"), pytest.mark.real, pytest.mark.slow]

#: vLLM decodes and samples the clip itself: it rounds the frames' numbers down, and resamples sound otherwise.
MEDIA_TOLERANCE = 0.15


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from openai import OpenAI

    from omnisink.models.checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("omni")
    model = write_checkpoint("smolomni", folder / "smolomni")
    with serve(model, {"gamma": 0.3}, folder / "log", demo.OPTIONS) as server:
        yield OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def rows(kind: str) -> list[dict[str, Any]]:
    return [row for row in json.loads(Path(OUT).read_text("utf-8")) if kind in row]


def said(gamma: float | None) -> Any:
    return False if gamma is None else {"gamma": gamma}


@pytest.mark.parametrize("row", rows("text"), ids=lambda row: f"{row['text'][:8]}-{row['gamma']}")
def test_text(client: Any, row: dict[str, Any]) -> None:
    made = client.chat.completions.create(
        model=demo.NAME, messages=[{"role": "user", "content": row["text"]}], temperature=0, max_tokens=12,
        logprobs=True, extra_body={"outro": said(row["gamma"])},
    )  # fmt: skip
    assert made.usage.prompt_tokens == row["prompt_tokens"]
    assert made.choices[0].message.content.strip() == row["answer"]
    got = [one.logprob for one in made.choices[0].logprobs.content]
    assert max(abs(a - b) for a, b in zip(got, row["logprobs"], strict=True)) < TOLERANCE


@pytest.mark.parametrize("row", rows("question"), ids=lambda row: f"{row['question'][5:12]}-{row['gamma']}")
def test_a_video_with_its_sound(client: Any, row: dict[str, Any]) -> None:
    made = demo.ask(client, CLIP, row["question"], said(row["gamma"]), max_tokens=12, logprobs=True)
    assert made.usage.prompt_tokens == row["prompt_tokens"]
    assert made.choices[0].message.content.strip() == row["answer"]
    got = [one.logprob for one in made.choices[0].logprobs.content]
    assert max(abs(a - b) for a, b in zip(got, row["logprobs"], strict=True)) < MEDIA_TOLERANCE
