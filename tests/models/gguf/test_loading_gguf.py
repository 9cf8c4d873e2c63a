"""Models in GGUF files: the same weights, logits and tokens as transformers reads, in every type of block."""

from __future__ import annotations

import hashlib

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from omnisink import OutRo, load_model
from omnisink.models.facts import known_adapter
from omnisink.models.gguf.load import read_gguf
from omnisink.models.headers import depth_of
from omnisink.models.provenance import describe
from tests.models.gguf.tiny_gguf import LAYERS, MIXED, TEMPLATE, write_gguf

_Q = gguf.GGMLQuantizationType


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_weights_logits_and_tokens_are_those_that_transformers_reads(architecture, dtype, tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", architecture)
    loaded = load_model(tmp_path, dtype=dtype)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32 if dtype == "auto" else torch.bfloat16,
    )
    found, expected = loaded.model.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert type(loaded.model) is type(theirs)
    ours, their_config = loaded.model.config.to_dict(), theirs.config.to_dict()
    assert {k for k in ours if ours[k] != their_config.get(k)} <= {"architectures", "_name_or_path"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    assert loaded.tokenizer.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    ids = tokenizer("hello world", return_tensors="pt").input_ids
    assert loaded.tokenizer("hello world").input_ids == ids[0].tolist()
    with torch.inference_mode():
        logits = loaded.model(ids).logits
        assert torch.equal(logits, theirs.eval()(ids).logits)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("kind", MIXED, ids=lambda kind: kind.name)
def test_a_type_of_block_is_unpacked_as_the_package_gguf_does(kind, tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", "qwen2", kinds=[kind])
    found = read_gguf(file, torch.float32).weights["model.layers.1.mlp.down_proj.weight"]
    (stored,) = (one for one in gguf.GGUFReader(file).tensors if one.name == "blk.1.ffn_down.weight")
    assert np.array_equal(found.numpy(), gguf.dequantize(stored.data, kind))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [([_Q.F16], torch.float16), ([_Q.BF16], torch.bfloat16), ([_Q.F32], torch.float32), (MIXED, torch.float32)],
)
def test_auto_is_the_type_of_the_values_and_float32_of_quantized_ones(kinds, expected, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", kinds=kinds)
    assert load_model(tmp_path).model.dtype is expected


def test_a_tensor_of_many_pieces_is_the_same(tmp_path, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf")
    whole = read_gguf(file).weights
    monkeypatch.setattr("omnisink.models.gguf.quantization._AT_ONCE", 1000)
    pieces = read_gguf(file).weights
    assert all(torch.equal(pieces[name], weight) for name, weight in whole.items())


def test_a_file_can_be_named_and_the_record_says_which_it_was(tmp_path):
    write_gguf(tmp_path / "other.gguf", "qwen2")
    file = write_gguf(tmp_path / "Tiny.GGUF")
    loaded = load_model(file, dtype="float32")
    facts = describe(loaded)
    assert loaded.name == facts["weights"] == str(file)
    assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts["source"] == "GGUF file, BF16, F16, F32, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q6_K, Q8_0"
    assert depth_of(str(file)) == LAYERS
    assert known_adapter(file).modalities == loaded.adapter.modalities
    assert loaded.tokenizer.chat_template == TEMPLATE
    said = loaded.ask("hello", max_new_tokens=2, method=OutRo(gamma=-0.3))
    assert said.trace is not None


def test_nothing_of_other_files_in_the_folder_is_taken(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf")
    expected = load_model(file).tokenizer("hello").input_ids
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true, "chat_template": "wrong"}')
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    loaded = load_model(tmp_path)
    assert loaded.tokenizer("hello").input_ids == expected
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert loaded.model.config.model_type == "llama"


def test_a_turn_ends_by_either_token(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", fields={"tokenizer.ggml.eot_token_id": 5})
    loaded = load_model(tmp_path)
    assert loaded.model.generation_config.eos_token_id == [loaded.tokenizer.eos_token_id, 5]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"type": "yarn", "factor": 2.0, "original_context_length": 64},
            {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_scaled_rotary_frequencies_are_kept(fields, expected, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "qwen2", fields={f"qwen2.rope.scaling.{k}": v for k, v in fields.items()})
    found = load_model(tmp_path).model.config.rope_parameters
    assert {k: found[k] for k in expected} == expected
    assert found["rope_theta"] == 50000.0


def test_the_divisors_of_llama_3_give_its_frequencies(tmp_path):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    llama3 = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, head_dim=64, rope_parameters=llama3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    divisors = (plain / scaled).numpy().astype(np.float32)
    write_gguf(
        tmp_path / "tiny.gguf", fields={"llama.rope.freq_base": 500000.0}, extra={"rope_freqs.weight": divisors}
    )
    assert load_model(tmp_path).model.model.rotary_emb.inv_freq.allclose(scaled, rtol=1e-5)
