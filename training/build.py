"""The model before any training: SmolLM2's decoder, Whisper's encoder, and the rest at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnisink.models.embedded import find_weights, missing, read_llama
from omnisink.models.smolomni import make_model, make_tokenizer
from training.whisper import audio_tower


def fresh(whisper: Path) -> tuple[Any, Any]:
    """Return the model in float32 and its tokenizer."""
    from transformers import PreTrainedTokenizerFast

    file = find_weights()
    if file is None:
        raise FileNotFoundError(missing())
    tokenizer = make_tokenizer(PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name))
    model = make_model(*read_llama(file), tokenizer)
    model.model.audio_tower.load_state_dict(audio_tower(whisper), strict=False)
    return model, tokenizer
