"""video-SALMONN 2+: ten frames a second, and the tokens of the sound after the frames that it was heard with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisink.errors import OmnisinkError
from omnisink.media import Clip, FrameChoice
from omnisink.media.choice import Indices, Times
from omnisink.models.adapters.base import pictures
from omnisink.models.adapters.qwen_frames import average_rate, scale
from omnisink.models.adapters.salmonn_sound import HearsInPieces, clip_seconds
from omnisink.models.adapters.text import pad_left
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

#: Pixels of a picture, and of a frame of the longest videos, as the release's inference.py has them. The frames of a
#: shorter video share out what those of the longest have, less a twentieth.
_PICTURE = {"shortest_edge": 16 * 28 * 28, "longest_edge": 61_250}
_LEAST_PIXELS, _MOST_PIXELS = 4 * 28 * 28, 61_250
_MOST_FRAMES = 768


@dataclass(frozen=True)
class EveryTenth:
    """A frame for every tenth of a second, evenly spaced over all frames by number; fewer where there are fewer.

    Parameters
    ----------
    interval : float
        Seconds.
    least, most : int
        Bounds of the count.
    """

    interval: float = 0.1
    least: int = 16
    most: int = _MOST_FRAMES

    def select(self, times: Times) -> Indices:
        """Pick the frames, rounded down as in the release."""
        count = round(len(times) / average_rate(times) / self.interval)
        places = np.linspace(0, len(times) - 1, min(max(count, self.least), self.most), dtype=np.int64)
        return np.unique(places)


class VideoSALMONN2Plus(HearsInPieces):
    """video-SALMONN 2+ of any size; omnisink's port loads it."""

    model_types = ("video_salmonn2_plus",)
    modalities = frozenset({"image", "video", "audio"})
    media_texts = {  # noqa: RUF012
        "video": "<|vision_start|><|video_pad|><|vision_end|>",
        "image": "<|vision_start|><|image_pad|><|vision_end|>",
        "audio": "<|vision_start|><|audio_pad|><|vision_end|>",
    }

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Ten frames a second, 16 to 768 of them."""
        return EveryTenth()

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Return the placeholders and the question. The sound of a video has none of its own, from whatever file."""
        if prompt.image is not None and prompt.sound is not None:
            raise OmnisinkError(
                "video-SALMONN 2+ hears a sound of its own or with a video: ask about the picture without the sound"
            )
        return super().content(prompt if prompt.video is None else replace(prompt, sound=None), media)

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Scale frames as the release does, and let the tokens of frames and sound take turns."""
        import torch

        processor, made = parts.processor, dict[str, Any]()
        clips = [m.video for m in media if m.video is not None]
        if clips:
            # In single precision, in which the release counts.
            made["second_per_grid_ts"] = torch.tensor([_seconds_of_step(clip) for clip in clips])
            videos = [_scaled(clip, processor.video_processor.size) for clip in clips]
            kept = {"do_resize": False, "do_sample_frames": False, "cap_pixels_per_frame": False}
            made |= processor.video_processor(videos=videos, return_tensors="pt", **kept)
        if shown := pictures(media):
            made |= processor.image_processor(images=shown, size=_PICTURE, return_tensors="pt")
        if (heard := self.spectrograms(parts, media)) is not None:
            made["input_features"] = heard
        rows = [self._ids(parts, *one) for one in zip(texts, prompts, self._turns(parts, media, made), strict=True)]
        made |= pad_left(rows, parts.tokenizer)
        if clips or shown or heard is not None:
            config, ids = parts.model.config, made["input_ids"]
            known = (config.image_token_id, config.video_token_id, config.audio_token_id)
            made["mm_token_type_ids"] = sum((ids == token) * kind for kind, token in enumerate(known, 1))
        if heard is not None and not clips:
            # Positions are counted by Qwen2.5-VL's code where it is given grids, and from 0 to S where it is not.
            made["video_grid_thw"] = torch.zeros(0, 3, dtype=torch.int64)
        return made

    def _turns(self, parts: ModelParts, media: Sequence[Media], made: dict[str, Any]) -> list[list[int]]:
        """Return for each prompt the ids of its media, in order."""
        config, merged = parts.model.config, parts.processor.image_processor.merge_size**2
        grids = {name: iter(made.get(f"{name}_grid_thw", ())) for name in ("video", "image")}
        steps = iter(made.get("second_per_grid_ts", ()))
        turns = []
        for one in media:
            seen, sounds = [], 0 if one.sound is None else self.audio_tokens(len(one.samples))
            if one.video is not None:
                count, high, wide = next(grids["video"]).tolist()
                for share in share_sound(sounds, count, next(steps)):
                    seen += [config.video_token_id] * (high * wide // merged) + [config.audio_token_id] * share
            elif sounds:
                seen = [config.audio_token_id] * sounds
            if one.image is not None:
                seen += [config.image_token_id] * (int(next(grids["image"]).prod()) // merged)
            turns.append(seen)
        return turns

    def _ids(self, parts: ModelParts, text: str, prompt: Prompt, seen: list[int]) -> list[int]:
        """Return the ids of a prompt, with all those of its media in the place of the placeholders."""
        config, tokenizer = parts.model.config, parts.tokenizer
        asked = text.removesuffix(prompt.reply) if prompt.reply else text
        ids: list[int] = []
        for token in tokenizer.encode(asked, add_special_tokens=False):
            if token == config.image_token_id:
                ids += [i for i in seen if i == token]
            elif token in (config.video_token_id, config.audio_token_id):
                ids += [i for i in seen if i != config.image_token_id]
            else:
                ids.append(token)
        return ids + tokenizer.encode(prompt.reply, add_special_tokens=False)


def share_sound(tokens: int, steps: int, seconds: Any) -> list[int]:
    """Return how many of the tokens of a sound follow each step of a video.

    Two a second follow the step that they were heard with, and all that are left the last. Where the sound ends long
    before the video, later steps have none; the release fails there.

    Parameters
    ----------
    tokens : int
        Of the sound.
    steps : int
        Of the video.
    seconds : float or Tensor
        From one step to the next.
    """
    from omnisink.models.ports.mrope import steps_in_time

    begins = steps_in_time(steps, seconds, 2).clamp(max=tokens).tolist()
    return [after - before for before, after in zip(begins, [*begins[1:], tokens], strict=True)]


def _seconds_of_step(clip: Clip) -> float:
    """Return how long two of the kept frames last, as the release counts it."""
    return 2 * clip_seconds(clip) / len(clip.times)  # type: ignore[arg-type]


def _scaled(clip: Clip, own: Any) -> Any:
    """Scale frames by the release's bounds, or by those of a checkpoint that was made for small pictures."""
    frames: Any = clip.frames
    share = 0.95 * _MOST_FRAMES / len(frames) if len(frames) < _MOST_FRAMES else 1.0
    small = own["longest_edge"] < _PICTURE["shortest_edge"]
    return scale(frames, 28, _LEAST_PIXELS, own["longest_edge"] if small else share * _MOST_PIXELS)
