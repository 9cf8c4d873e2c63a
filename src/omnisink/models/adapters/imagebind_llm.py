"""ImageBind-LLM: media beside the prompt, as one vector; a video as five clips of two seconds, two frames of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from omnisink.errors import MediaError
from omnisink.media import Clip, FrameChoice
from omnisink.media.choice import Indices, Times
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.text import pad_left
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from omnisink.models.parts import ModelParts


@dataclass(frozen=True)
class EndsOfClips:
    """First and last frame of clips of a video, evenly spaced; they overlap where the video is short.

    Parameters
    ----------
    clips : int
        Number of clips.
    seconds : float
        Length of each.
    """

    clips: int = 5
    seconds: float = 2.0

    def select(self, times: Times) -> Indices:
        """Pick the frames of all clips, in the order of the video."""
        return np.sort(np.asarray(self.pairs(times, len(times)), dtype=np.int64).flatten())

    def pairs(self, times: Times, total: int) -> list[tuple[int, int]]:
        """Return first and last frame of each clip.

        Parameters
        ----------
        times : ndarray of float64
            (N,) seconds of all frames of a video, or of those that were kept of it.
        total : int
            Number of frames of the video. The last of them lasts as long as those before.

        Returns
        -------
        list of (int, int)
            Indices into `times`.
        """
        duration = times[-1] * total / max(total - 1, 1)
        found = []
        for start in np.linspace(0.0, max(duration - self.seconds, 0.0), self.clips):
            # A microsecond of rounding is forgiven.
            first, after = np.searchsorted(times, np.array([start, start + self.seconds]) - 1e-6)
            last = max(int(after) - 1, 0)
            found.append((min(int(first), last), last))
        return found


class ImageBindLLM(Adapter):
    """ImageBind-LLM 7B, converted to safetensors; omnisink's port loads it."""

    model_types = ("imagebind_llm",)
    modalities = frozenset({"image", "video", "audio"})
    has_processor_file: ClassVar[bool] = False
    media_are_tokens: ClassVar[bool] = False

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Both ends of five clips of two seconds."""
        return EndsOfClips()

    def grid_times(self, parts: ModelParts, clip: Clip) -> list[tuple[float, float]]:
        """Return no times: no token stands for one."""
        return []

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Return the question; media have no place in the text."""
        return [{"type": "text", "text": prompt.text}]

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Make tokens, and one vector of the media of each question; what several share is seen once."""
        import torch

        begin = [] if parts.tokenizer.bos_token_id is None else [parts.tokenizer.bos_token_id]
        rows = []
        for text, prompt in zip(texts, prompts, strict=True):
            pieces = (text.removesuffix(prompt.reply) if prompt.reply else text, prompt.reply)
            rows.append(begin + [i for p in pieces if p for i in parts.tokenizer.encode(p, add_special_tokens=False)])
        vectors: dict[tuple[int, ...], Tensor] = {}
        keys = [(id(m.image), id(m.video), id(m.sound)) for m in media]
        for key, prompt, one in zip(keys, prompts, media, strict=True):
            if key not in vectors:
                vectors[key] = parts.model.embed_media(self._clips(parts, prompt, one))
        return {**pad_left(rows, parts.tokenizer), "media_embeds": torch.stack([vectors[key] for key in keys])}

    def _clips(self, parts: ModelParts, prompt: Prompt, media: Media) -> list[tuple[str, Tensor]]:
        from omnisink.models.ports import imagebind_inputs as inputs

        side, found = parts.model.imagebind.side, []
        if media.image is not None:
            found.append(("vision", inputs.see_picture(media.image, side)))
        if media.video is not None:
            choice, times = prompt.frames or self.default_frames(parts), media.video.times
            assert times is not None
            if isinstance(choice, EndsOfClips):
                pairs = choice.pairs(times, media.video.record.frames_total)
            else:  # Frames of your choice make clips two by two, and one that is left over stands still.
                pairs = [(i, min(i + 1, len(times) - 1)) for i in range(0, len(times), 2)]
            found.append(("vision", inputs.see_video(media.frames, pairs, side)))
        if media.sound is not None:
            if len(media.samples) < inputs.SHORTEST:
                raise MediaError(
                    f"{prompt.sound}: its sound is too short: {len(media.samples):,} samples, and a frame of the "
                    f"spectrogram has {inputs.SHORTEST}. Give a longer one, or leave it out"
                )
            found.append(("audio", inputs.hear(media.samples)))
        return found or [("vision", inputs.see_nothing(side))]
