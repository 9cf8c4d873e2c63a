"""VideoLLaMA 2, 2.1 and 2.1-AV: transformers' Qwen2 or Mistral, CLIP or SigLIP, the STC connector, and BEATs.

The released classes put a tower's features in the place of one id, and call generate with embeddings. Here the id is
repeated, once for each token, so that positions of ids are positions of tokens and a batch is padded on the left as in
any other model. Without padding both compute the same. No released weights were run with it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from omnisink.errors import OmnisinkError
from omnisink.models.context import UnheardWarning
from omnisink.models.ports.beats import BEATs, read_beats
from omnisink.models.ports.ears import SUFFIX, TO_HEAR, TOWER, Ears, find_ears, read_beside, unreported
from omnisink.models.ports.generating import PenaltyOnNewTokens, extends
from omnisink.models.ports.placeholders import fill
from omnisink.models.ports.stc import PADDINGS, STCConnector, stc_length, stc_names
from omnisink.models.ports.towers import build_tower, find_tower, patch_features, read_tower, tower_prefix

#: Frames of a video where the checkpoint does not say, as in the released code.
DEFAULT_FRAMES = 8
#: The words in a prompt where the media go.
WORDS = {"image": "<image>", "video": "<video>"}
#: The same for a sound by itself; that of a video stands after the video's tokens, without a word.
SOUND_WORD = "<audio>"


class _Seeing(PenaltyOnNewTokens):
    """What a decoder needs to see and hear: towers, connectors, and their features in the place of placeholders."""

    # What a model without ears leaves alone, the pooling head of SigLIP, and a buffer that CLIP once saved.
    _keys_to_ignore_on_load_unexpected = (r"audio_tower", r"mm_projector_a", r"vision_tower\.head", r"position_ids")

    def _add_senses(self, config: Any) -> None:
        if sizes := getattr(config, "beats", None):
            width = config.hidden_size
            self.audio_tower = BEATs(**sizes)
            self.mm_projector_a = nn.Sequential(nn.Linear(sizes["width"], width), nn.GELU(), nn.Linear(width, width))
        self.vision_tower = build_tower(config.vision_config)
        self.mm_projector = STCConnector(
            config.vision_config.hidden_size, config.hidden_size, PADDINGS[config.mm_projector_type]
        )
        self.post_init()  # type: ignore[attr-defined]

    def media_tokens(self, frames: int) -> tuple[int, int]:
        """Return how many temporal steps a number of frames becomes, and how many tokens each has."""
        eyes: Any = self.vision_tower.config
        padding = self.mm_projector.padding
        side = stc_length(eyes.image_size // eyes.patch_size, padding)
        return stc_length(frames, padding), side * side

    @extends(Qwen2ForCausalLM.forward)  # Mistral's has the same parameters.
    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the decoder on text and media.

        Parameters
        ----------
        input_ids : Tensor
            (B, S) int64 with placeholders.
        attention_mask : Tensor
            (B, S), 0 at padding.
        inputs_embeds : Tensor
            (B, S, W), in the place of ids and media.
        pixel_values : Tensor
            (B, 3, H, W), a picture of each sequence that has one. It is seen as a video in which nothing moves.
        pixel_values_videos : Tensor
            (B, T, 3, H, W), a video of each sequence that has one.
        input_features : Tensor
            (B, 2998, 128), the spectrogram of each sequence that has a sound, as `fbank` makes it.
        **options
            Of the decoder's own forward pass.
        """
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = self._embed(input_ids, pixel_values, pixel_values_videos, input_features)
        return super().forward(attention_mask=attention_mask, inputs_embeds=inputs_embeds, **options)  # type: ignore[misc]

    def _embed(self, ids: Tensor, picture: Tensor | None, video: Tensor | None, sound: Tensor | None = None) -> Tensor:
        config: Any = self.config  # type: ignore[attr-defined]
        senses = {"image": (picture, self.see), "video": (video, self.see), "audio": (sound, self.hear)}
        places = {name: ids.eq(getattr(config, f"{name}_token_id", -1)) for name in senses}
        # The placeholders may lie beyond the embedding's last row.
        words = ids.masked_fill(places["image"] | places["video"] | places["audio"], 0)
        embeds: Tensor = self.get_input_embeddings()(words)  # type: ignore[attr-defined]
        for name, (medium, encode) in senses.items():
            if medium is not None and places[name].any():
                embeds = fill(embeds, places[name], encode(medium), name)
        return embeds

    def hear(self, spectrograms: Tensor) -> Tensor:
        """Turn spectrograms (B, T, 128) into tokens (B, N, W)."""
        return self.mm_projector_a(self.audio_tower(spectrograms))  # type: ignore[no-any-return]

    def see(self, pixels: Tensor) -> Tensor:
        """Turn pictures (B, 3, H, W) or videos (B, T, 3, H, W) into tokens (B, N, W)."""
        config: Any = self.config  # type: ignore[attr-defined]
        still = pixels.dim() == 4
        frames = pixels.unsqueeze(1) if still else pixels
        patches = patch_features(self.vision_tower, frames.flatten(0, 1), config.mm_vision_select_layer)
        patches = patches.unflatten(0, frames.shape[:2])
        return self.mm_projector(patches.expand(-1, config.num_frames, -1, -1) if still else patches)  # type: ignore[no-any-return]


# The name is kept by a model that is saved; under the decoder's own it would be loaded as one of text only.
class VideoLlama2Qwen2Config(Qwen2Config):  # type: ignore[misc]
    """Qwen2's configuration under the name of VideoLLaMA 2.1."""

    model_type = "videollama2_qwen2"


class VideoLlama2MistralConfig(MistralConfig):  # type: ignore[misc]
    """Mistral's configuration under the name of VideoLLaMA 2."""

    model_type = "videollama2_mistral"


class VideoLlama2Qwen2(_Seeing, Qwen2ForCausalLM):
    """VideoLLaMA 2.1, and 2 with Qwen2."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._add_senses(config)


class VideoLlama2Mistral(_Seeing, MistralForCausalLM):
    """VideoLLaMA 2."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._add_senses(config)


_DECODERS: dict[str, tuple[Any, Any]] = {
    "videollama2": (VideoLlama2Mistral, VideoLlama2MistralConfig),
    "videollama2_mistral": (VideoLlama2Mistral, VideoLlama2MistralConfig),
    "videollama2_qwen2": (VideoLlama2Qwen2, VideoLlama2Qwen2Config),
}


def load_video_llama2(
    name: str, folder: Path, options: dict[str, Any], download: bool
) -> tuple[Any, dict[str, Any], Any, Any]:
    """Load a released checkpoint of VideoLLaMA 2, 2.1 or 2.1-AV.

    One of 2.1-AV whose BEATs is not in safetensors is loaded for pictures and videos, with a warning.

    Parameters
    ----------
    name : str
        The checkpoint, for messages.
    folder : Path
        With ``config.json``, safetensors and the tokenizer, as on the Hub.
    options : dict
        For `from_pretrained`.
    download : bool
        Whether the vision tower's configuration may be fetched from the Hub.

    Returns
    -------
    tuple of PreTrainedModel, dict, tokenizer, ImageProcessor
        The model, transformers' loading report, and what turns questions into inputs.

    Raises
    ------
    OmnisinkError
        If the vision tower is not here, or it, a connector or BEATs is of a kind that is not ported.
    """
    config, processor = _read_config(name, folder, download)
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config, local_files_only=True)
    tokenizer.add_tokens(list(WORDS.values()), special_tokens=True)
    config.image_token_id, config.video_token_id = tokenizer.convert_tokens_to_ids(list(WORDS.values()))
    decoder = _DECODERS[config.model_type][0]
    ears, audio_names = _give_ears(name, folder, config, tokenizer)
    # Without a word in front, so that a decoder's own names are left as they are.
    eyes = "vision_tower." + tower_prefix(config.vision_config)
    names = {
        r"^model\.vision_tower\.vision_tower\.vision_model\.": eyes,
        **stc_names(r"^model\.mm_projector", "mm_projector"),
        **audio_names,
    }
    with unreported(ears):
        model, report = decoder.from_pretrained(
            folder,
            config=config,
            key_mapping=names,
            use_safetensors=True,
            output_loading_info=True,
            local_files_only=True,
            **options,
        )
    if ears is not None and ears.beside:
        report["missing_keys"] = read_beside(model, ears, names, report["missing_keys"])
    # The released code also stops where the tokenizer's own end comes.
    ends = model.generation_config.eos_token_id
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    model.generation_config.eos_token_id = sorted({*known, tokenizer.eos_token_id} - {None})
    return model, report, tokenizer, processor


def _read_config(name: str, folder: Path, download: bool) -> tuple[Any, Any]:
    """Return the decoder's configuration with the tower's inside, and the tower's image processor."""
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind, tower = written.get("mm_projector_type"), written.get("mm_vision_tower")
    if kind not in PADDINGS:
        raise OmnisinkError(
            f"{name} has the connector {kind!r} (mm_projector_type in config.json); ported are {', '.join(PADDINGS)}"
        )
    if not isinstance(tower, str):
        raise OmnisinkError(f"{name} names no vision tower: mm_vision_tower in its config.json")
    if written.get("mm_vision_select_feature", "patch") != "patch":
        raise OmnisinkError(
            f"{name} gives its connector more than patches (mm_vision_select_feature), which is not ported"
        )
    config = _DECODERS[written.pop("model_type")][1].from_dict(written)
    config.vision_config, processor = read_tower(tower, find_tower(tower, folder, download=download))
    config.num_frames = written.get("num_frames") or DEFAULT_FRAMES
    config.mm_vision_select_layer = written.get("mm_vision_select_layer", -2)
    return config, processor


def _give_ears(name: str, folder: Path, config: Any, tokenizer: Any) -> tuple[Ears | None, dict[str, str]]:
    """Write into configuration and tokenizer what it takes to hear; return the weights, and patterns of names."""
    if getattr(config, "mm_audio_tower", None) is None:
        return None, {}
    ears = find_ears(name, folder)
    if ears is None:
        warnings.warn(f"{name} is loaded for pictures and videos only: {TO_HEAR}", UnheardWarning, stacklevel=2)
        return None, {}
    if (kind := getattr(config, "mm_projector_a_type", "linear")) != "mlp2x_gelu":
        raise OmnisinkError(
            f"{name} has the connector {kind!r} for sound (mm_projector_a_type in config.json); ported is mlp2x_gelu"
        )
    try:
        config.beats, names = read_beats(
            {one.removeprefix(TOWER): shape for one, shape in ears.shapes.items() if one.startswith(TOWER)}
        )
    except OmnisinkError as error:
        raise OmnisinkError(f"{name} cannot hear: {error}") from error
    tokenizer.add_tokens([SOUND_WORD], special_tokens=True)
    config.audio_token_id = tokenizer.convert_tokens_to_ids(SOUND_WORD)
    config.model_type += SUFFIX
    return ears, {**names, r"^model\.mm_projector_a\.": "mm_projector_a."}
