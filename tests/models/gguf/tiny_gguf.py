"""Tiny GGUF files of the architectures that are read, written with the package gguf as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, TokenType, quantize
from tokenizers.pre_tokenizers import ByteLevel

#: Blocks of the types Q4_K and Q6_K are of 256 values.
WIDTH, LAYERS, HEADS, KV_HEADS = 256, 2, 4, 2
WORDS = ["he", "ll", "lo", "hell", "hello", "wo", "world"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}<|im_end|>"

_Q = GGMLQuantizationType
#: The types of a mixed quantization, in turn.
MIXED = (_Q.Q4_K, _Q.Q6_K, _Q.Q8_0, _Q.Q5_0, _Q.Q4_1, _Q.Q4_0, _Q.Q5_1, _Q.F16, _Q.BF16, _Q.F32)


def shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of an architecture, by GGUF's names."""
    # transformers reads no other width of a head for Gemma 3.
    head = 256 if architecture == "gemma3" else WIDTH // HEADS
    all_heads, kv = head * HEADS, head * KV_HEADS
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (WIDTH,),
        "attn_q.weight": (all_heads, WIDTH),
        "attn_k.weight": (kv, WIDTH),
        "attn_v.weight": (kv, WIDTH),
        "attn_output.weight": (WIDTH, all_heads),
        "ffn_norm.weight": (WIDTH,),
        "ffn_gate.weight": (2 * WIDTH, WIDTH),
        "ffn_up.weight": (2 * WIDTH, WIDTH),
        "ffn_down.weight": (WIDTH, 2 * WIDTH),
    }
    if architecture == "qwen2":
        layer |= {"attn_q.bias": (WIDTH,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if architecture == "gemma3":
        layer |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        layer |= {f"{name}.weight": (WIDTH,) for name in ("post_attention_norm", "post_ffw_norm")}
    outer = {"token_embd.weight": (vocabulary_size(architecture), WIDTH), "output_norm.weight": (WIDTH,)}
    if architecture == "qwen2":
        outer["output.weight"] = outer["token_embd.weight"]
    return outer | {f"blk.{n}.{name}": shape for n in range(LAYERS) for name, shape in layer.items()}


def vocabulary(architecture: str) -> list[str]:
    """Return the words of a tokenizer: bytes, the pieces of two words, and what begins and ends a text."""
    if architecture == "gemma3":
        return ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{n:02X}>" for n in range(256)), *"helowrd▁", *WORDS]
    return [*sorted(ByteLevel.alphabet()), *WORDS, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def vocabulary_size(architecture: str) -> int:
    """Return how many words that is."""
    return len(vocabulary(architecture))


def write_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    kinds: Collection[GGMLQuantizationType] = MIXED,
    without: Collection[str] = (),
    fields: Mapping[str, Any] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a file.

    Parameters
    ----------
    path : Path
        The file.
    architecture : str
        ``"llama"``, ``"qwen2"`` or ``"gemma3"``; another is written as ``"llama"`` with that name.
    kinds : collection of GGMLQuantizationType
        The types of the matrices, in turn.
    without : collection of str
        Tensors and settings that are left out.
    fields, extra : mapping, optional
        Settings and tensors to add, or to give in place of the usual.
    """
    like = architecture if architecture in ("qwen2", "gemma3") else "llama"
    writer = GGUFWriter(path, architecture)
    for name, value in (_fields(architecture, like) | dict(fields or {})).items():
        if name not in without and value is not None:
            _add(writer, name, value)
    rng, turn = np.random.default_rng(0), 0
    for name, shape in shapes(like).items():
        if name in without or name in (extra or {}):
            continue
        if len(shape) == 1:
            writer.add_tensor(name, (1 + 0.1 * rng.normal(size=shape)).astype(np.float32))
            continue
        kind = list(kinds)[turn % len(kinds)]
        turn += 1
        writer.add_tensor(name, _stored(rng, shape, kind), raw_dtype=kind)
    for name, data in (extra or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _fields(architecture: str, like: str) -> dict[str, Any]:
    words = vocabulary(like)
    found: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": WIDTH,
        "feed_forward_length": 2 * WIDTH,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 50000.0,
    }
    if like == "gemma3":
        found |= {"attention.key_length": 256, "attention.sliding_window": 4}
    # Control, or normal.
    types = [TokenType.CONTROL if word[0] == "<" and len(word) > 6 else TokenType.NORMAL for word in words]
    tokens = {
        "tokens": words,
        "token_type": [int(one) for one in types],
        "bos_token_id": words.index("<bos>" if like == "gemma3" else "<|im_start|>"),
        "eos_token_id": words.index("<eos>" if like == "gemma3" else "<|im_end|>"),
        "padding_token_id": words.index("<pad>" if like == "gemma3" else "<|endoftext|>"),
        **(
            {"model": "llama", "scores": [-float(n) for n in range(len(words))], "unknown_token_id": 3}
            if like == "gemma3"
            else {"model": "gpt2", "pre": "qwen2", "merges": ["h e", "l l", "l o", "he ll", "hell o", "w o"]}
        ),
        "add_bos_token": like == "gemma3",
    }
    return {
        **{f"{architecture}.{name}": value for name, value in found.items()},
        **{f"tokenizer.ggml.{name}": value for name, value in tokens.items()},
        "tokenizer.chat_template": TEMPLATE if like != "gemma3" else None,
    }


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def _stored(rng: np.random.Generator, shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    """Return random values as they are stored; of types that gguf cannot quantize to, random blocks of small scale."""
    if kind not in (_Q.Q4_K, _Q.Q6_K):
        return quantize((0.1 * rng.normal(size=shape)).astype(np.float32), kind)
    block, size = GGML_QUANT_SIZES[kind]
    stored = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    for at in (0, 2) if kind is _Q.Q4_K else (208,):
        stored[..., at : at + 2] = scale
    return stored.reshape(*shape[:-1], -1)
