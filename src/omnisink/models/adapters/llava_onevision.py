"""LLaVA-OneVision: every frame is scaled to one size and becomes the same number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.media import FrameChoice, Uniform
from omnisink.models.adapters.base import Adapter, pictures
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts


class LlavaOneVision(Adapter):
    """LLaVA-OneVision with any language model."""

    model_types = ("llava_onevision",)

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Thirty-two frames, evenly spaced, as the authors use."""
        return Uniform(32)

    def temporal_patch(self, parts: ModelParts) -> int:
        """Every frame has tokens of its own; one more, a line break, comes after the last."""
        return 1

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run `LlavaOnevisionProcessor`."""
        import torch

        options: dict[str, Any] = {}
        if frames := [m.frames for m in media if m.video is not None]:
            options["videos"] = [torch.from_numpy(f).permute(0, 3, 1, 2) for f in frames]
            options["videos_kwargs"] = {"do_sample_frames": False}
        if images := pictures(media):
            options["images"] = images
        return parts.processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **options)
