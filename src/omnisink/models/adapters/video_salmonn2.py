"""video-SALMONN 2: a frame a second, and all of the sound spread evenly over the frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from omnisink.errors import OmnisinkError
from omnisink.media import Clip, FrameChoice
from omnisink.media.choice import Indices, Times
from omnisink.models.adapters.qwen_frames import average_rate
from omnisink.models.adapters.salmonn_sound import PIECE_TOKENS, HearsInPieces, clip_seconds
from omnisink.models.adapters.text import pad_left
from omnisink.models.templates import write_text
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

_WORD = re.compile("(<video>|<audio>)")
#: Tokens of sound in a second of video, as the release counts them to find the end of the video. There are two.
_COUNTED = 50


@dataclass(frozen=True)
class EverySecond:
    """A frame a second, counted in frames; evenly spaced over all frames where that gives too many.

    Parameters
    ----------
    fps : float
        Frames a second.
    most : int
        Most frames.
    """

    fps: float = 1.0
    most: int = 110

    def select(self, times: Times) -> Indices:
        """Pick the frames, as the release rounds."""
        chosen = np.arange(0, len(times), max(round(average_rate(times) / self.fps), 1))
        if len(chosen) > self.most:
            chosen = np.linspace(0, len(times) - 1, self.most, dtype=np.int64)
        return chosen


class VideoSALMONN2(HearsInPieces):
    """video-SALMONN 2; omnisink's port loads it."""

    model_types = ("video_salmonn_2",)
    modalities = frozenset({"video", "audio"})
    has_processor_file: ClassVar[bool] = False
    media_texts = {"video": "<video>", "audio": "<audio>"}  # noqa: RUF012

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """One frame a second, at most 110."""
        return EverySecond()

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Return the placeholder and the question. The sound of a video has none of its own, from whatever file."""
        return super().content(prompt if prompt.video is None else replace(prompt, sound=None), media)

    def read(self, parts: ModelParts, prompts: Sequence[Prompt]) -> list[Media]:
        """Read the files; a sound that goes on after its video is cut where the video ends."""
        return [self._cut(media) for media in super().read(parts, prompts)]

    def _cut(self, media: Media) -> Media:
        if media.video is None or media.sound is None:
            return media
        last = round(self.audio_rate * clip_seconds(media.video))
        return replace(media, sound=replace(media.sound, audio=media.samples[:last]))

    def audio_tokens_in(self, media: Media) -> int:
        """Return the number of tokens that the sound becomes, some of them repeated so that each frame has as many."""
        return sum(map(len, sources_of(self.audio_tokens(len(media.samples)), media.video)))

    def _text(self, parts: ModelParts, prompt: Prompt, media: Media) -> str:
        return write_text(parts, self._messages(parts, prompt, media)) + prompt.reply

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Make frames, spectrograms and tokens as the release does."""
        import torch
        from PIL import Image

        made: dict[str, Any] = {}
        if frames := [Image.fromarray(frame) for m in media if m.video is not None for frame in m.frames]:
            made["pixel_values_videos"] = parts.processor(images=frames, return_tensors="pt")["pixel_values"]
        rows, sources, pieces = [], list[int](), list[int]()
        for text, prompt, one in zip(texts, prompts, media, strict=True):
            tokens = 0 if one.sound is None else self.audio_tokens(len(one.samples))
            spread, rest = sources_of(tokens, one.video)
            sources += [PIECE_TOKENS * len(pieces) + place for place in (*spread, *rest)]
            pieces += range(tokens // PIECE_TOKENS)
            rows.append(self._ids(parts, text, prompt, self._turns(parts, one, len(spread), len(rest))))
        if pieces:
            made["input_features"] = self.spectrograms(parts, media)
            made["audio_pieces"], made["audio_sources"] = torch.tensor(pieces), torch.tensor(sources)
        return {**pad_left(rows, parts.tokenizer), **made}

    def _turns(self, parts: ModelParts, media: Media, spread: int, rest: int) -> list[int]:
        """Return the ids of the media of a prompt, in order."""
        config, turns = parts.model.config, list[int]()
        if media.video is not None:
            count = len(media.frames)
            if count < 2:
                raise OmnisinkError("video-SALMONN 2 takes videos of two frames or more: choose more frames")
            # The release writes times only where there is no sound.
            timed = media.sound is None and config.add_time_token
            for time in self._times(parts, media.video) if timed else [[]] * count:
                turns += [config.video_token_id] * parts.model.frame_tokens() + time
                turns += [config.audio_token_id] * (spread // count)
        return turns + [config.audio_token_id] * rest

    def _times(self, parts: ModelParts, clip: Clip) -> list[list[int]]:
        """Return for each frame the ids of the second that ends with it, filled with blanks to one length."""
        each, count = clip_seconds(clip) / len(clip.frames), len(clip.frames)  # type: ignore[arg-type]
        times = [str(round(each * frame, 1)) for frame in range(1, count + 1)]
        ids = [parts.tokenizer.encode(time, add_special_tokens=False) for time in times]
        longest = max(map(len, ids))
        return [one + [parts.model.config.video_blank_token_id] * (longest - len(one)) for one in ids]

    def _ids(self, parts: ModelParts, text: str, prompt: Prompt, turns: list[int]) -> list[int]:
        """Return the ids of a prompt. The line break after the media is a token of its own, and comes twice."""

        def encode(piece: str) -> list[int]:
            return list(parts.tokenizer.encode(piece, add_special_tokens=False))

        ids: list[int] = []
        after_media = False
        for piece in _WORD.split(text.removesuffix(prompt.reply) if prompt.reply else text):
            if _WORD.fullmatch(piece):
                ids += turns
            else:
                ids += (encode("\n") if after_media and piece.startswith("\n") else []) + encode(piece)
            after_media = bool(_WORD.fullmatch(piece))
        return ids + encode(prompt.reply)


def sources_of(tokens: int, clip: Clip | None) -> tuple[list[int], list[int]]:
    """Return which token of a sound stands at each of its places among the frames of a video, and after them.

    They are spread over the frames, as many for each, some of them twice where they do not come out even. As the
    release counts fifty tokens a second, where there are two, only a video of about a second leaves some for the end.

    Parameters
    ----------
    tokens : int
        Of the sound.
    clip : Clip or None
        The video; None is a sound of its own.
    """
    import torch
    from torch.nn.functional import interpolate

    if clip is None or not tokens:
        return [], list(range(tokens))
    count = len(clip.frames)  # type: ignore[arg-type]
    front = min(tokens, round(clip_seconds(clip) * _COUNTED))
    places = torch.arange(front, dtype=torch.float32)[None, None]
    if over := front % count:
        places = interpolate(places, size=front + count - over, mode="nearest")
    return [int(place) for place in places.flatten()], list(range(front, tokens))
