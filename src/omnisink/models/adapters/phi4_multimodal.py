"""Phi-4-multimodal: images and sound. A video is asked about as its frames, one image each, and its sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.media import FrameChoice, Uniform
from omnisink.models.adapters.base import Adapter, pictures
from omnisink.models.adapters.spans import Modality
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

#: Window and step of the spectrogram in samples, and how many of its frames become one token.
_WINDOW, _HOP, _COMPRESSION = 400, 160, 8
_FRAMES = 8


class Phi4Multimodal(Adapter):
    """The 5.6B model. It was not tuned on videos; frames as images are what it has for them."""

    model_types = ("phi4_multimodal",)
    modalities = frozenset({"image", "video", "audio"})

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Eight frames, evenly spaced."""
        return Uniform(_FRAMES)

    def temporal_patch(self, parts: ModelParts) -> int:
        """Every frame is an image."""
        return 1

    def placeholders(self, parts: ModelParts, prompt: Prompt) -> dict[int, Modality]:
        """Return the tokens of pictures, which are frames where there is a video, and of sound."""
        found = super().placeholders(parts, prompt)
        return found if prompt.video is None else {i: "video" if m == "image" else m for i, m in found.items()}

    def audio_tokens(self, samples: int) -> int:
        """One token for eight frames of 10 ms, begun ones too."""
        return -(-((samples - _WINDOW) // _HOP + 1) // _COMPRESSION)

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Frames are images, one part each; sound comes after them."""
        count = (0 if media.video is None else len(media.frames)) + (media.image is not None)
        shown: list[dict[str, Any]] = [{"type": "image"}] * count
        if prompt.sound is not None:
            shown.append({"type": "audio"})
        return [*shown, {"type": "text", "text": prompt.text}]

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run `Phi4MultimodalProcessor`."""
        options: dict[str, Any] = {}
        images = [frame for m in media if m.video is not None for frame in m.frames]
        images += pictures(media)
        if images:
            options["images"] = images
        if sounds := [m.samples for m in media if m.sound is not None]:
            options |= {"audio": sounds, "audio_kwargs": {"sampling_rate": self.audio_rate}}
        return parts.processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **options)
