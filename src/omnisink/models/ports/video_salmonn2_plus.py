"""video-SALMONN 2+: transformers' Qwen2.5-VL, with Whisper's encoder and a Q-Former beside its eyes.

Without sound it computes what Qwen2.5-VL computes. Positions are those that the release trains with. Its `generate`
drops them, and counts anew as if there were no sound and a step of video took a second. No released weights were run
with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2_5_VLProcessor,
    WhisperConfig,
)

from omnisink.models.ports.generating import CHATML, extends
from omnisink.models.ports.hearing import QFORMER_NAMES, WHISPER_LARGE_V3, Hearing, check_windows, read_qformer
from omnisink.models.ports.mrope import count_positions
from omnisink.models.ports.placeholders import fill

#: What the release's class fills in where ``config.json`` leaves it out, beside the size of Whisper.
_WINDOWS = {"second_per_window": 0.5, "second_stride": 0.5}
_QFORMER = {
    "hidden_size": 3072,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 12288,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "encoder_width": 1280,
    "cross_attention_freq": 1,
    "query_length": 1,
}
_AUDIO_TOKEN_ID = 151665
#: Positions in a second of video: a number in the release's code, whatever config.json says.
POSITIONS_PER_SECOND = 2
#: The released names of weights, as patterns, each with the name here.
_NAMES = {
    r"^visual\.": "model.visual.",
    r"^model\.(?!visual\.)": "model.language_model.",
    r"^audio\.(?=conv|embed|layer)": "audio.encoder.",
    r"^audio\.q_tokens": "audio.query",
    r"^audio\.audio_proj\.": "audio.projection.",
    **QFORMER_NAMES,
}


class _Body(Qwen2_5_VLModel):
    """Qwen2.5-VL without its head, counting positions also where there is sound."""

    def get_rope_index(
        self,
        input_ids: Tensor,
        mm_token_type_ids: Tensor,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Count the positions of prompts, see `count_positions`."""
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return count_positions(
            mm_token_type_ids,
            real.bool(),
            image_grid_thw,
            video_grid_thw,
            second_per_grid_ts,
            self.config.vision_config.spatial_merge_size,
            POSITIONS_PER_SECOND,
        )


class VideoSALMONN2Plus(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL that hears."""

    # A buffer that the Q-Former once saved.
    _keys_to_ignore_on_load_unexpected = (r"position_ids",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = _Body(config)
        width = config.text_config.hidden_size
        self.audio = Hearing(config.audio_config, config.qformer_config, width, normed=False, deep=False)
        self.post_init()

    @extends(Qwen2_5_VLForConditionalGeneration.forward)
    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the model on text, pictures, video and sound.

        Parameters
        ----------
        input_ids : Tensor
            (B, S) int64 with placeholders.
        inputs_embeds : Tensor
            (B, S, W), in the place of ids.
        input_features : Tensor
            (N, M, 3000), spectrograms of all pieces of sound, in the order of their placeholders.
        **options
            Of Qwen2.5-VL's own forward pass; `mm_token_type_ids` has 3 for sound.
        """
        if input_ids is not None and inputs_embeds is None and input_features is not None:
            inputs_embeds = self._embed(input_ids, input_features)
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **options)

    def _embed(self, ids: Tensor, spectrograms: Tensor) -> Tensor | None:
        places = ids == self.config.audio_token_id
        if not places.any():
            return None
        embeds: Tensor = self.get_input_embeddings()(ids)
        return fill(embeds, places, self.audio(spectrograms.to(embeds.dtype)), "audio")


def load_video_salmonn2_plus(
    name: str, folder: Path, options: dict[str, Any], download: bool
) -> tuple[Any, dict[str, Any], Any, Any]:
    """Load a released checkpoint of video-SALMONN 2+.

    Parameters
    ----------
    name : str
        The checkpoint, for messages.
    folder : Path
        With ``config.json``, safetensors, the tokenizer and ``preprocessor_config.json``, as on the Hub.
    options : dict
        For `from_pretrained`.
    download : bool
        Not used: all of it is in the folder.

    Returns
    -------
    tuple of PreTrainedModel, dict, tokenizer, Qwen2_5_VLProcessor
        The model, transformers' loading report, and what turns questions into inputs.

    Raises
    ------
    OmnisinkError
        If it hears in windows of another kind.
    """
    processor = Qwen2_5_VLProcessor.from_pretrained(folder, local_files_only=True)
    processor.tokenizer.chat_template = processor.chat_template = CHATML
    model, report = VideoSALMONN2Plus.from_pretrained(
        folder,
        config=_read_config(name, folder),
        key_mapping=_NAMES,
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
        **options,
    )
    return model, report, processor.tokenizer, processor


def _read_config(name: str, folder: Path) -> Any:
    """Return Qwen2.5-VL's configuration with those of the encoder and the Q-Former inside."""
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heard = written.pop("audio_config", None) or {}
    qformer = {**_QFORMER, **(heard.get("qformer_config") or {})}
    config = Qwen2_5_VLConfig.from_dict(written)
    config.model_type = "video_salmonn2_plus"
    config.audio_token_id = written.get("audio_token_id", _AUDIO_TOKEN_ID)
    config.audio_config = WhisperConfig(**{key: heard.get(key, value) for key, value in WHISPER_LARGE_V3.items()})
    config.qformer_config = read_qformer(qformer)
    window, stride = (heard.get(key, value) for key, value in _WINDOWS.items())
    check_windows(name, config.audio_config, window, stride, qformer["query_length"])
    return config
