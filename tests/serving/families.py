"""Tiny models of the families that are served, with planted sinks, as folders, and a picture for those that see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving import planted
from tests.serving.letters import letters

#: Special tokens of the Qwen families, put after the letters.
SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<tts_pad>", "<tts_text_bos>",
    "<tts_text_eod>",
)  # fmt: skip
_TEXT: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512, "tie_word_embeddings": False,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
_SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 4, 4]}
_TOWER = {"depth": 2, "num_heads": 2, "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2}


@dataclass
class Tiny:
    """A model on transformers, the folder that vLLM loads, and its processor where it sees."""

    model: Any
    folder: Path
    processor: Any = None


def tokenizer() -> Any:
    """Make the tokenizer of letters with the special tokens of the Qwen families."""
    made = letters()
    made.add_tokens(list(SPECIAL), special_tokens=True)
    for name in ("image", "video", "audio"):
        setattr(made, f"{name}_token", f"<|{name}_pad|>")
    return made


def _text(kind: str) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        **{**_TEXT, "vocab_size": planted.VOCABULARY},
        **({"sliding_window": None} if kind == "Mistral" else {}),
    )
    return planted.plant(getattr(transformers, f"{kind}ForCausalLM")(config))


def _ids(words: Any) -> dict[str, int]:
    number = words.convert_tokens_to_ids
    return {
        "image_token_id": number("<|image_pad|>"),
        "video_token_id": number("<|video_pad|>"),
        "vision_start_token_id": number("<|vision_start|>"),
        "vision_end_token_id": number("<|vision_end|>"),
    }


def _qwen2_vl(words: Any) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = Qwen2VLConfig(
        text_config={**_TEXT, "vocab_size": len(words), "rope_parameters": _SECTIONS},
        vision_config={**_TOWER, "embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2},
        tie_word_embeddings=False,
        **_ids(words),
    )
    return Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(words: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tower = {**_TOWER, "hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 128, "window_size": 56}
    config = Qwen2_5_VLConfig(
        text_config={**_TEXT, "vocab_size": len(words), "rope_parameters": _SECTIONS},
        vision_config={**tower, "fullatt_block_indexes": [1]},
        tie_word_embeddings=False,
        **_ids(words),
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(words: Any) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tower = {**_TOWER, "patch_size": 16, "hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 128}
    config = Qwen3VLConfig(
        text_config={
            **_TEXT, "vocab_size": len(words), "rope_parameters": {**_SECTIONS, "mrope_interleaved": True},
        },
        vision_config={**tower, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        tie_word_embeddings=False,
        **_ids(words),
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(config)


def _processor(kind: str, words: Any) -> Any:
    import transformers

    side = 32 if kind == "Qwen3VL" else 28
    size = {"shortest_edge": 4 * side * side, "longest_edge": 16 * side * side}
    patch = {"patch_size": side // 2, "size": size}
    video = transformers.Qwen3VLVideoProcessor if kind == "Qwen3VL" else transformers.Qwen2VLVideoProcessor
    return getattr(transformers, f"{kind}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**patch),
        video_processor=video(**patch),
        tokenizer=words,
        chat_template=words.chat_template,
    )


_SEEING = {
    "Qwen2-VL": (_qwen2_vl, "Qwen2VL"),
    "Qwen2.5-VL": (_qwen2_5_vl, "Qwen2_5_VL"),
    "Qwen3-VL": (_qwen3_vl, "Qwen3VL"),
}
TEXT = ("Mistral", "Qwen2", "Qwen3")
SEEING = tuple(_SEEING)


def build(name: str, folder: Path) -> Tiny:
    """Build a family's tiny model and write it."""
    if name in TEXT:
        model = _text(name)
        return Tiny(model, planted.save(model, folder))
    words = tokenizer()
    make, kind = _SEEING[name]
    model = planted.plant(make(words))
    processor = _processor(kind, words)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Tiny(model, folder, processor)


def picture() -> Any:
    """Make a small picture of noise."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (84, 112, 3), dtype=np.uint8))
