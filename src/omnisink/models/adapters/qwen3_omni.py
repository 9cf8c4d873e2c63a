"""Qwen3-Omni: the thinker sees, hears and answers in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.media import FrameChoice
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.metadata import sampled_rate
from omnisink.models.adapters.qwen2_5_omni import images_and_sound, take_turns
from omnisink.models.adapters.qwen_frames import QwenFrames, pixel_bounds, scale
from omnisink.models.adapters.spans import Unit
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

_HOP = 160
#: Mel frames of a second, which become 13 tokens.
_SECOND, _TOKENS = 100, 13
#: How far apart the rates of the videos of a batch may be, as a share.
_SAME = 0.02


class Qwen3Omni(Adapter):
    """The thinker only: the talker is not loaded."""

    model_types = ("qwen3_omni_moe_thinker",)
    modalities = frozenset({"image", "video", "audio"})

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Two frames a second, 4 to 768 of them."""
        return QwenFrames()

    def audio_tokens(self, samples: int) -> int:
        """Thirteen for every whole second; what is over is halved three times by convolutions."""
        seconds, rest = divmod(samples // _HOP, _SECOND)
        for _ in range(3):
            rest = (rest - 1) // 2 + 1
        return rest + seconds * _TOKENS

    def audio_units(self, tokens: int, seconds: float) -> list[Unit]:
        """Thirteen tokens a second."""
        return [
            (min(_TOKENS, tokens - at), float(at // _TOKENS), min(at // _TOKENS + 1.0, seconds))
            for at in range(0, tokens, _TOKENS)
        ]

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run `Qwen3OmniMoeProcessor` with the number of frames per second."""
        processor, options = parts.processor, dict[str, Any]()
        clips = [(m.video, m.frames) for m in media if m.video is not None]
        if clips:
            side = processor.video_processor.patch_size * processor.video_processor.merge_size
            rates = [sampled_rate(clip) for clip, _ in clips]
            if max(rates) > min(rates) * (1 + _SAME):
                raise OmnisinkError(
                    f"{parts.name} takes one frame rate for all videos of a batch, and these have "
                    f"{min(rates):.2f} to {max(rates):.2f} frames a second: ask about them one by one"
                )
            bounds = [pixel_bounds(processor, len(frames)) for _, frames in clips]
            options["videos"] = [scale(f, side, *b) for (_, f), b in zip(clips, bounds, strict=True)]
            options["videos_kwargs"] = {"do_sample_frames": False, "do_resize": False, "fps": rates[0]}
        options |= images_and_sound(prompts, media)
        return processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **options)

    def extras(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Pass to `generate` what the template and the processor were given: video and sound take turns."""
        return take_turns(prompts)
