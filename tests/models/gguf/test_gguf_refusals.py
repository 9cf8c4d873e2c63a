"""GGUF files that cannot be loaded: one clear error each, whatever the bytes, and nothing large is asked for."""

from __future__ import annotations

import re
import struct

import gguf
import numpy as np
import pytest

from omnisink import OmnisinkError, load_model
from omnisink.cli.preflight import check_there
from omnisink.models.gguf.architectures import config_of
from omnisink.models.gguf.header import read_header
from omnisink.models.gguf.quantization import check_tensors
from tests.models.gguf.tiny_gguf import write_gguf

_Q = gguf.GGMLQuantizationType


def refused(path) -> str:
    with pytest.raises(OmnisinkError) as error:
        load_model(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.01, 0.5, 0.9999])
def test_a_file_that_is_cut_off(share, tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert str(file) in (said := refused(tmp_path))
    assert any(why in said for why in ("cut off or damaged", "cannot be read as a GGUF file", "is not a GGUF file"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "mamba"}, r"has the architecture 'mamba', and GGUF files are read of llama, qwen2, gemma3"),
        ({"fields": {"split.count": 3}}, "one of the 3 parts of a model"),
        ({"fields": {"llama.block_count": 2**31}}, "2,147,483,648 layers, and its tensors are of 2"),
        ({"fields": {"llama.block_count": 1}}, "1 layers, and its tensors are of 2"),
        ({"fields": {"llama.embedding_length": 2**31}}, "token_embd.weight is .*, and its settings ask for"),
        ({"fields": {"llama.attention.head_count": 0}}, "has 0 as llama.attention.head_count"),
        ({"fields": {"llama.attention.head_count": "four"}}, "has 'four' as llama.attention.head_count"),
        ({"fields": {"llama.expert_count": 8}}, "llama.expert_count, expected a model without experts"),
        ({"fields": {"llama.rope.dimension_count": 8}}, "width of a head|settings ask for"),
        ({"fields": {"llama.rope.scaling.type": "longrope"}}, "has 'longrope' as llama.rope.scaling.type"),
        ({"fields": {"general.alignment": 0}}, "general.alignment is 0"),
        ({"without": ["llama.context_length"]}, "has no llama.context_length"),
        ({"without": ["blk.1.ffn_up.weight"]}, "lacks 1 weights of LlamaForCausalLM.*layers.1.mlp.up_proj.weight"),
        ({"without": ["token_embd.weight"]}, "its tensor token_embd.weight is not there"),
        (
            {"extra": {"blk.0.attn_norm_2.weight": np.ones(256, np.float32)}},
            "no place for its tensor blk.0.attn_norm_2",
        ),
        ({"extra": {"blk.0.ffn_norm.weight": np.ones(255, np.float32)}}, "blk.0.ffn_norm.weight is 255, .*for 256"),
        ({"extra": {"rope_freqs.weight": np.arange(1, 33, dtype=np.float32)}}, "scales the rotary frequencies"),
        ({"extra": {"blk.0.ffn_norm.weight": np.ones(256, np.float64)}}, "of the type F64"),
        ({"fields": {"tokenizer.ggml.tokens": [f"t{n}" for n in range(999)]}}, "999 tokens, and token_embd.weight"),
        ({"fields": {"tokenizer.ggml.model": "bert"}}, "bert"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_file_cannot_say(changes, why, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", **changes)
    said = refused(tmp_path)
    assert re.search(why, said), said


def test_a_type_that_the_package_does_not_know(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", kinds=[_Q.Q8_0])
    name = b"blk.0.attn_q.weight"
    content = bytearray(file.read_bytes())
    at = content.index(name) + len(name) + 4 + 2 * 8
    content[at : at + 4] = struct.pack("<I", 999)
    file.write_bytes(content)
    assert "blk.0.attn_q.weight is of the type number 999, which the package gguf does not unpack" in refused(file)


def test_other_versions_and_byte_orders(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf")
    content = bytearray(file.read_bytes())
    for version, why in ((1, "of version 1"), (99, "of version 99"), (3 << 24, "in the byte order of other machines")):
        content[4:8] = struct.pack("<I", version)
        file.write_bytes(content)
        assert why in refused(file)


def test_a_folder_with_several_files_and_a_file_that_is_not_there(tmp_path):
    first, second = write_gguf(tmp_path / "a.gguf"), write_gguf(tmp_path / "b.gguf")
    said = refused(tmp_path)
    assert f"{tmp_path} holds 2 GGUF files: a.gguf, b.gguf. Name the one that is meant, as {first}" in said
    with pytest.raises(OmnisinkError, match="holds 2 GGUF files"):
        check_there(str(tmp_path))
    assert load_model(second).name == str(second)
    assert refused(tmp_path / "c.gguf") == f"there is no file {tmp_path / 'c.gguf'}"
    (tmp_path / "notes.txt").write_text("GGUF")
    assert "is a file; give a GGUF file, or the folder" in refused(tmp_path / "notes.txt")


def test_without_the_package_gguf(tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, p=None: None if n == "gguf" else found(n, p))
    assert "needs the package gguf, which is not installed. Install with" in refused(write_gguf(tmp_path / "t.gguf"))


def test_damage_anywhere_in_the_head_is_an_error_or_harmless(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", "qwen2", kinds=[_Q.Q8_0])
    whole, size = file.read_bytes(), read_header(file).start
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(200):
        content = bytearray(whole)
        for at in rng.integers(0, size, rng.integers(1, 4)):
            content[at] = rng.integers(256)
        file.write_bytes(content)
        try:
            header = read_header(file)
            check_tensors(header)
            config_of(header)
        except OmnisinkError:
            refusals += 1
    assert 20 < refusals < 200
