"""Weights that are elsewhere, or are not floats: offloaded layers and quantized ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from omnisink import OutRo
from tests.reference_outro import prompt, tiny_llama


def test_layers_spread_by_a_device_map(tmp_path):
    """The second device is the disk: accelerate's hooks bring those layers in and out, as between accelerators."""
    model = tiny_llama()
    model.save_pretrained(tmp_path / "model")
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "cpu" if i < 2 else "disk" for i in range(6)}
    spread = LlamaForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=str(tmp_path / "offload")
    )
    assert spread.model.layers[4].self_attn.q_proj.weight.device.type == "meta"
    ids = prompt(13, (0, 6))
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False, "output_logits": True}
    with OutRo()(model):
        expected = model.generate(input_ids=ids, return_dict_in_generate=True, **options)
    before = spread.generate(input_ids=ids, return_dict_in_generate=True, **options)
    with OutRo()(spread) as trace:
        found = spread.generate(input_ids=ids, return_dict_in_generate=True, **options)
    after = spread.generate(input_ids=ids, return_dict_in_generate=True, **options)
    assert torch.equal(found.sequences, expected.sequences)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(found.logits, expected.logits, strict=True))
    assert trace.relaxed == [(0, 0, 0), (0, 0, 6)]
    assert all(torch.equal(a, b) for a, b in zip(before.logits, after.logits, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_weights():
    """Int8 weights with torch's own dynamic quantization: what is rotated is the head output they lead to."""
    model = torch.ao.quantization.quantize_dynamic(tiny_llama(), {nn.Linear}, dtype=torch.qint8)
    assert not isinstance(model.model.layers[0].self_attn.v_proj, nn.Linear)
    ids = prompt(13, (0, 6))
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        with OutRo(gamma=0.5)(model) as trace:
            rotated = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, before)
        wide = tiny_llama()
        with OutRo(gamma=0.5)(wide):
            expected = wide(input_ids=ids).logits
    assert trace.sinks.positions(0) == [0, 6]
    assert (rotated - before).abs().max() > 0.05
    # int8 keeps about two digits: the two models differ by that, with the method as without it.
    assert (rotated - expected).abs().max() < 0.2 * expected.abs().max()
