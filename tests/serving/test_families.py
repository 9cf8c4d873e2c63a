"""Every family that is served, on a tiny model of it: text, and for those that see, a picture in the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from omnisink.methods.outro import OutRo
from tests.serving import families, planted
from tests.serving.engine import ask, engine, greedy, state
from tests.serving.planted import GAMMA, SINK, assert_same, mixed_prompts, reference
from tests.skips import needs

pytestmark = [needs("vllm"), pytest.mark.slow]

COUNT = 12


@pytest.mark.parametrize("name", families.TEXT)
def test_text(name: str, tmp_path: Path) -> None:
    tiny, prompts = families.build(name, tmp_path / "tiny"), mixed_prompts()[3:]
    wanted = [reference(tiny.model, ids, COUNT, OutRo(gamma=GAMMA)) for ids in prompts]
    assert any(one.sinks for one in wanted)
    with engine(tiny.folder, {"gamma": GAMMA}) as llm:
        assert_same(ask(llm, prompts, greedy(COUNT)), wanted)


@pytest.mark.parametrize("name", families.SEEING)
def test_a_picture_and_text(name: str, tmp_path: Path) -> None:
    tiny = families.build(name, tmp_path / "tiny")
    sink = tiny.processor.tokenizer.convert_ids_to_tokens(SINK)
    text = f"{sink}ab<|vision_start|><|image_pad|><|vision_end|>what is it{sink}?"
    inputs = tiny.processor(text=[text], images=[families.picture()], return_tensors="pt")
    wanted = [_seen(tiny.model, inputs, method) for method in (OutRo(gamma=GAMMA), OutRo(gamma=GAMMA, relax=False))]
    assert wanted[0].relaxed > 0
    with engine(
        tiny.folder, {"gamma": GAMMA}, skip_tokenizer_init=False, limit_mm_per_prompt={"image": 1, "video": 0}
    ) as llm:
        asked = {"prompt": text, "multi_modal_data": {"image": families.picture()}}
        params = [greedy(COUNT), greedy(COUNT, {"relax": False})]
        made = llm.generate([asked, asked], params, use_tqdm=False)
        assert made[0].prompt_token_ids == inputs["input_ids"][0].tolist()
        assert_same([planted.served(one.outputs[0]) for one in made], wanted)
        assert state(llm)["tokens_rotated"] == sum(one.rotated for one in wanted)


def _seen(model: Any, inputs: Any, method: OutRo) -> planted.Answer:
    with method(model) as trace, torch.no_grad():
        made = model.generate(
            **inputs, max_new_tokens=COUNT, do_sample=False, return_dict_in_generate=True, output_logits=True,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    tokens = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    logs = [logits[0].float().log_softmax(-1)[t].item() for logits, t in zip(made.logits, tokens, strict=True)]
    return planted.Answer(tokens, logs, sum(trace.rotated_tokens.values()), len(trace.relaxed), True)
