"""Families that hear: speech and sound beside text."""

from __future__ import annotations

from typing import Any

from omnisink.verification.family import Family
from omnisink.verification.multimodal import AUDIO, IMAGE, TOWER, build_with, noise, text_prompts, with_media

_WHISPER: dict[str, Any] = {"num_mel_bins": 8, "max_source_positions": 16, "d_model": 32, "encoder_layers": 2}
_WHISPER |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 48}

#: Spectrogram frames of the tiny prompts; the towers halve them twice.
FRAMES = 32


def heard(model: Any) -> dict[str, Any]:
    """Make a prompt with one clip for Qwen2-Audio."""
    import torch

    mask = torch.ones(1, FRAMES, dtype=torch.long)
    return {**with_media(model, [AUDIO] * 8), "input_features": noise(1, 8, FRAMES), "feature_attention_mask": mask}


def stacked(model: Any) -> dict[str, Any]:
    """Make a prompt with one clip for Voxtral, which stacks four frames of its tower into a token."""
    return {**with_media(model, [AUDIO] * 4), "input_features": noise(1, 8, FRAMES)}


def seen_and_heard_by_phi(model: Any) -> dict[str, Any]:
    """Make a prompt with one image and one clip for Phi-4-multimodal."""
    import torch

    # The image's one part and the whole have two rows of two tokens each; a token ends each row, one parts the two.
    return {
        **with_media(model, [IMAGE] * 13 + [AUDIO] * 4),
        "image_pixel_values": noise(1, 2, 3, 16, 16),
        "image_sizes": torch.tensor([[16, 16]]),
        "image_attention_mask": torch.ones(1, 2, 4, 4, dtype=torch.long),
        "audio_input_features": noise(1, FRAMES, 80),
        "audio_embed_sizes": torch.tensor([4]),
    }


AUDIO_FAMILIES: list[Family] = [
    Family(
        "qwen2_audio",
        "Qwen2-Audio",
        ("text", "audio"),
        "Qwen/Qwen2-Audio-7B-Instruct",
        build_with(
            "Qwen2AudioConfig",
            "Qwen2AudioForConditionalGeneration",
            text={"model_type": "qwen2"},
            audio=_WHISPER,
            audio_token_index=AUDIO,
        ),
        text_prompts,
        heard,
    ),
    Family(
        "voxtral",
        "Voxtral",
        ("text", "audio"),
        "mistralai/Voxtral-Mini-3B-2507",
        build_with(
            "VoxtralConfig",
            "VoxtralForConditionalGeneration",
            text={"model_type": "llama", "head_dim": 16},
            audio={**TOWER, "intermediate_size": 128, "num_mel_bins": 8, "max_source_positions": 16},
            audio_token_id=AUDIO,
        ),
        text_prompts,
        stacked,
    ),
    Family(
        "phi4_multimodal",
        "Phi-4-multimodal",
        ("text", "image", "audio"),
        "microsoft/Phi-4-multimodal-instruct",
        build_with(
            "Phi4MultimodalConfig",
            "Phi4MultimodalForCausalLM",
            text=None,
            vision={**TOWER, "image_size": 16, "crop_size": 16, "patch_size": 4, "image_token_id": IMAGE},
            audio={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_blocks": 2,
                "num_attention_heads": 2,
                "ext_pw_out_channel": 32,
                "depthwise_separable_out_channel": 32,
                "nemo_conv_channels": 16,
                "audio_token_id": AUDIO,
            },
        ),
        text_prompts,
        seen_and_heard_by_phi,
    ),
]
