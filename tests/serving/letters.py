"""The tiny planted model with a tokenizer of single bytes, as a server needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.serving import planted


def letters() -> Any:
    """Make a tokenizer of single bytes with a chat template; token `planted.SINK` is one of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")
    sink = made.convert_ids_to_tokens(planted.SINK)
    made.chat_template = sink + "{{ messages[0].content }}:"
    return made


def tiny_with_tokenizer(folder: Path) -> Any:
    """Write a tiny Llama and its tokenizer, and return the model."""
    tokenizer = letters()
    model = planted.tiny_llama(vocab_size=len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
