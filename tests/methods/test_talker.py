"""Qwen2.5-Omni as a whole: the method acts on the thinker, and the talker is left alone."""

from __future__ import annotations

import pytest
import torch

from omnisink import OutRo, UnsupportedModelError, find_sinks
from omnisink.verification.families import FAMILIES


@pytest.fixture(scope="module")
def omni():
    return FAMILIES["qwen2_5_omni"].build()


def test_generating_text_through_the_whole_model(omni):
    inputs = FAMILIES["qwen2_5_omni"].multimodal_inputs(omni)
    options = {"generation_mode": "text", "thinker_max_new_tokens": 4, "thinker_do_sample": False}
    plain = omni.generate(**inputs, **options)
    with OutRo()(omni) as trace:
        omni.generate(**inputs, **options)
    assert trace.sinks.positions(0) == [0, inputs["input_ids"][0].tolist().index(7, 1)]
    assert trace.rotated_tokens[0] == inputs["input_ids"].shape[1] - 2 + 3
    assert torch.equal(omni.generate(**inputs, **options), plain)


def test_the_talker_is_untouched(omni):
    """The talker's attention is of the thinker's kind, runs inside the block, and gives the same to the bit."""
    hidden = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(2))
    hidden[0, 0, 5] = 5000.0  # a massive activation, which in the thinker would make a sink

    def talk():
        with torch.inference_mode():
            return omni.talker.model(inputs_embeds=hidden, use_cache=False).last_hidden_state

    plain = talk()
    with OutRo()(omni) as trace:
        assert torch.equal(talk(), plain)
        with torch.inference_mode():
            omni.thinker(**FAMILIES["qwen2_5_omni"].inputs(omni))
        assert torch.equal(talk(), plain)
    assert len(trace.sinks.token_mask) == 2


def test_the_whole_model_has_no_forward_pass_to_find_sinks_with(omni):
    with pytest.raises(UnsupportedModelError, match="thinker"):
        find_sinks(omni, **FAMILIES["qwen2_5_omni"].inputs(omni))
