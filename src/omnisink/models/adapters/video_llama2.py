"""VideoLLaMA 2 and 2.1: a picture or a video before the question, frames from the middle of equal pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from omnisink.errors import OmnisinkError
from omnisink.media import Clip, FrameChoice
from omnisink.media.choice import Indices, Times
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.counts import grid_times
from omnisink.models.adapters.text import pad_left
from omnisink.models.ports.ears import TO_HEAR
from omnisink.models.templates import Message, write_text
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

#: The system message of the models on Mistral, word for word, from videollama2/__init__.py.
_MISTRAL = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)


@dataclass(frozen=True)
class MiddleOfPieces:
    """The middle frame of equal pieces of a video, counted in frames; a short video gives some of them twice.

    Parameters
    ----------
    count : int
        Number of pieces.
    """

    count: int

    def select(self, times: Times) -> Indices:
        """Pick the frames, rounded as in the released code."""
        piece = (len(times) - 1) / self.count
        return np.round((np.arange(self.count) + 0.5) * piece + 1e-6).astype(np.int64)


class VideoLLaMA2(Adapter):
    """VideoLLaMA 2, 2.1, and 2.1-AV without what it hears with; omnisink's port loads them."""

    model_types: ClassVar[tuple[str, ...]] = ("videollama2", "videollama2_mistral", "videollama2_qwen2")
    has_processor_file: ClassVar[bool] = False

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """As many as the checkpoint was tuned with: 8 or 16."""
        return MiddleOfPieces(parts.model.config.num_frames)

    def temporal_patch(self, parts: ModelParts) -> int:
        """Two frames make a step."""
        return 2

    def lacks(self, name: str, modality: str) -> str:
        """Say what it takes to hear."""
        said = super().lacks(name, modality)
        return f"{said}. Of VideoLLaMA 2.1-AV, {TO_HEAR}" if modality == "audio" else said

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Return the word that stands for the media and the question, a line each; without media the line is empty."""
        if media.video is not None and media.image is not None:
            raise OmnisinkError(
                "VideoLLaMA 2 takes a picture or a video in a question: ask about one of them at a time"
            )
        word = "<video>" if media.video is not None else "<image>" if media.image is not None else ""
        lines = [word, prompt.text]
        return [{"type": "text", "text": line} for line in (reversed(lines) if prompt.text_first else lines)]

    def _messages(self, parts: ModelParts, prompt: Prompt, media: Media) -> list[Message]:
        messages = super()._messages(parts, prompt, media)
        if "qwen2" not in parts.model.config.model_type:
            given = next((said for said in (prompt.system, parts.system) if said is not None), _MISTRAL)
            messages = [message for message in messages if message["role"] != "system"]
            if given:
                marked = f"<<SYS>>\n{given}\n<</SYS>>"
                messages.insert(0, {"role": "system", "content": [{"type": "text", "text": marked}]})
        return messages

    def _text(self, parts: ModelParts, prompt: Prompt, media: Media) -> str:
        return write_text(parts, self._messages(parts, prompt, media)) + prompt.reply

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Make frames and tokens as the released code does: the text around a placeholder is split in pieces."""
        import torch

        made: dict[str, Any] = {}
        # Rows without media have no part in these; the rest follow one another as their placeholders do.
        clips = [list(m.frames) for m in media if m.video is not None]
        if clips:
            if len({len(clip) for clip in clips}) > 1 or len(clips[0]) < 2:
                raise OmnisinkError(
                    f"the videos of a batch must have one number of frames, two or more; these have "
                    f"{[len(clip) for clip in clips]}. Leave the choice of frames out, or ask one at a time"
                )
            made["pixel_values_videos"] = torch.stack([self._pixels(parts, clip) for clip in clips])
        if shown := [m.image for m in media if m.image is not None]:
            made["pixel_values"] = self._pixels(parts, shown)
        rows = [
            self._ids(parts, text.removesuffix(prompt.reply) if prompt.reply else text, self.holders(parts, read))
            + parts.tokenizer.encode(prompt.reply, add_special_tokens=False)
            for text, prompt, read in zip(texts, prompts, media, strict=True)
        ]
        return {**pad_left(rows, parts.tokenizer), **made}

    def holders(self, parts: ModelParts, media: Media) -> dict[str, list[int]]:
        """Return the words that stand for media, each with the ids that are put in its place."""
        config = parts.model.config
        steps, each = parts.model.media_tokens(config.num_frames if media.video is None else len(media.frames))
        return {"<image>": [config.image_token_id] * steps * each, "<video>": [config.video_token_id] * steps * each}

    def _pixels(self, parts: ModelParts, frames: list[Any]) -> Any:
        from PIL import Image

        return parts.processor(images=[Image.fromarray(f) for f in frames], return_tensors="pt")["pixel_values"]

    def _ids(self, parts: ModelParts, text: str, holders: dict[str, list[int]]) -> list[int]:
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(holders)})", text):
            ids += holders[piece] if piece in holders else parts.tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def grid_times(self, parts: ModelParts, clip: Clip) -> list[tuple[float, float]]:
        """Return the times of the connector's steps.

        With padding the first step has the first frame only, and every later one begins a frame earlier.
        """
        steps, _ = parts.model.media_tokens(len(clip.frames))  # type: ignore[arg-type]
        single = grid_times(clip, 1)
        first = parts.model.mm_projector.padding
        edges = [single[max(0, 2 * i - first)][0] for i in range(steps)]
        return list(zip(edges, [*edges[1:], single[-1][1]], strict=True))
