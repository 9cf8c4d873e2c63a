"""VideoLLaMA3: frames of any size, each with its time in the prompt; tokens of what stays the same are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.media import ByFps, FrameChoice
from omnisink.models.adapters.base import Adapter, pictures
from omnisink.models.adapters.metadata import video_metadata
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts


class VideoLLaMA3(Adapter):
    """The 2B and 7B models."""

    model_types = ("video_llama_3",)
    default_system = "You are a helpful assistant."

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """One frame a second, 180 at most, as in the authors' examples."""
        return ByFps(1.0, 180)

    def temporal_patch(self, parts: ModelParts) -> int:
        """Every frame has tokens of its own."""
        return 1

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run `VideoLlama3Processor` on frames with their true times."""
        import torch

        options: dict[str, Any] = {}
        clips = [(m.video, m.frames) for m in media if m.video is not None]
        if clips:
            options["videos"] = [torch.from_numpy(frames).permute(0, 3, 1, 2) for _, frames in clips]
            options["videos_kwargs"] = {
                "video_metadata": [video_metadata(clip) for clip, _ in clips],
                "do_sample_frames": False,
            }
        if images := pictures(media):
            options["images"] = images
        return parts.processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **options)
