"""The common part of the Qwen-VL families, which see images and videos and do not hear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.media import FrameChoice
from omnisink.models.adapters.base import Adapter, pictures
from omnisink.models.adapters.metadata import video_metadata
from omnisink.models.adapters.qwen_frames import QwenFrames, pixel_bounds, scale
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts


class QwenVL(Adapter):
    """Frames as `qwen-vl-utils` chooses and scales them; the processor puts their times into prompt or positions."""

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Two frames a second, 4 to 768 of them."""
        return QwenFrames()

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run the processor on scaled frames with their true times."""
        processor, options = parts.processor, dict[str, Any]()
        clips = [(m.video, m.frames) for m in media if m.video is not None]
        if clips:
            side = processor.video_processor.patch_size * processor.video_processor.merge_size
            bounds = [pixel_bounds(processor, len(frames)) for _, frames in clips]
            options["videos"] = [scale(f, side, *b) for (_, f), b in zip(clips, bounds, strict=True)]
            options["videos_kwargs"] = {
                "video_metadata": [video_metadata(clip) for clip, _ in clips],
                "do_sample_frames": False,
                "do_resize": False,  # Done above, frame by frame.
            }
        if images := pictures(media):
            options["images"] = images
        return processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **options)
