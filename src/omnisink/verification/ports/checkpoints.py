"""What tiny checkpoints of ported models share: the size of a decoder, and a tokenizer of bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Width and shape of a decoder, under transformers' usual names.
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}


def tokenizer(roles: Mapping[str, str]) -> Any:
    """Make a tokenizer of single bytes, with special tokens for roles.

    Parameters
    ----------
    roles : mapping of str to str
        Such as ``{"image_token": "<image>"}``. Each becomes an attribute of the tokenizer.

    Returns
    -------
    PreTrainedTokenizerFast
        ``<pad>`` is token 0, ``<|im_start|>`` 1, ``<|im_end|>``, the end of a sequence, 2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<pad>", "<|im_start|>", "<|im_end|>", *roles.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(letters[: 3 + len(roles)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<|im_end|>", extra_special_tokens=dict(roles)
    )


def decoder_of(folder: Path, decoder_class: str, prefix: str = "", key: str = "") -> Any:
    """Build a language model of transformers with the weights of a checkpoint that have its names.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and ``model.safetensors``.
    decoder_class : str
        A class of transformers, such as ``"Qwen2ForCausalLM"``. Every one of its weights must be there.
    prefix : str
        What comes before their names in the checkpoint, as ``"language_model."``.
    key : str
        Where its settings stand in ``config.json``, as ``"llm_config"``; empty where they are not in a part.

    Returns
    -------
    PreTrainedModel
        In evaluation mode, float32, on the CPU.
    """
    from safetensors.torch import load_file

    from omnisink.verification.family import transformers_class

    kind = transformers_class(decoder_class)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = settings[key] if key else settings
    decoder = kind(kind.config_class.from_dict({**settings, "model_type": kind.config_class.model_type})).float()
    names = decoder.state_dict().keys()
    weights = {n.removeprefix(prefix): w for n, w in load_file(folder / "model.safetensors").items()}
    decoder.load_state_dict({n: w for n, w in weights.items() if n in names})
    return decoder.eval()
