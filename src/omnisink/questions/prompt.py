"""A question and its media, before a model's processor has seen them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.media import Clip, FrameChoice, MediaRecord
from omnisink.questions.choices import write_choices


@dataclass(frozen=True)
class Prompt:
    """One question.

    Attributes
    ----------
    question : str
        The user's question, without the choices.
    video, image : Path or None
        Files.
    sound : Path or None
        A file of its own, or the video itself, whose sound then belongs to it.
    choices : tuple of str
        Empty for an open question.
    system : str or None
        System message; None is the family's own, ``""`` is no message.
    frames : FrameChoice or None
        Choice of frames of the video; None is the family's own rule.
    text_first : bool
        Whether the text comes before the media.
    reply : str
        Forced beginning of the answer; it is part of the prompt, and not of the answer.
    """

    question: str
    video: Path | None = None
    image: Path | None = None
    sound: Path | None = None
    choices: tuple[str, ...] = ()
    system: str | None = None
    frames: FrameChoice | None = None
    text_first: bool = False
    reply: str = ""

    @property
    def text(self) -> str:
        """The question with its choices."""
        return write_choices(self.question, self.choices)

    @property
    def media(self) -> tuple[bool, bool, bool, bool]:
        """Whether there is a video, an image, sound, and sound that is the video's: the same for all of a batch."""
        return self.video is not None, self.image is not None, self.sound is not None, self.sound_of_video

    @property
    def sound_of_video(self) -> bool:
        """Whether the sound is the video's own."""
        return self.sound is not None and self.sound == self.video


@dataclass(frozen=True)
class Media:
    """The media that were read for one prompt.

    Attributes
    ----------
    video : Clip or None
        Frames, and the sound where it is the video's own.
    image : ndarray of uint8 or None
        (H, W, 3).
    sound : Clip or None
        The sound, the video's own or another's.
    image_record : MediaRecord or None
        The record of the image file.
    """

    video: Clip | None = None
    image: Any = None
    sound: Clip | None = None
    image_record: MediaRecord | None = None

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The kept frames, (N, H, W, 3); only where there is a video."""
        assert self.video is not None
        assert self.video.frames is not None
        return self.video.frames

    @property
    def samples(self) -> NDArray[np.float32]:
        """The samples, mono; only where there is sound."""
        assert self.sound is not None
        assert self.sound.audio is not None
        return self.sound.audio

    def records(self) -> dict[str, Any]:
        """Return what was read, as plain data."""
        clips = {"video": self.video, "audio": self.sound}
        found = {name: clip.record.to_dict() for name, clip in clips.items() if clip is not None}
        return found if self.image_record is None else {**found, "image": self.image_record.to_dict()}


@dataclass
class Facts:
    """Token counts and media records of one encoded prompt; the record of an answer holds them.

    Attributes
    ----------
    prompt_tokens, video_tokens, image_tokens, audio_tokens : int
        Numbers of tokens.
    grid_times : list of (float, float)
        When every temporal step of the video begins and ends, in seconds.
    audio_seconds : float
        Length of the sound that the model was given.
    media : dict
        Records of the files.
    """

    prompt_tokens: int = 0
    video_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    grid_times: list[tuple[float, float]] = field(default_factory=list)
    audio_seconds: float = 0.0
    media: dict[str, Any] = field(default_factory=dict)


class Encoded(dict[str, Any]):
    """Model inputs, as ``model.generate(**encoded)`` takes them, with the facts of every prompt.

    Where `modalities` is set, the model is given ``inputs_embeds``, and ``input_ids`` has one id for every embedding:
    that of a text token, and a filler where there is media. `Adapter.generate` and `Adapter.forward` leave it out.

    Attributes
    ----------
    prompts : list of Prompt
        The prompts, one for each sequence.
    facts : list of Facts
        The token counts and media records, one for each sequence.
    modalities : list of list of str or None
        For each sequence the modality of each of its S positions, padding included; None where ids say it.
    """

    def __init__(
        self,
        data: dict[str, Any],
        prompts: list[Prompt],
        facts: list[Facts],
        modalities: list[list[str]] | None = None,
    ) -> None:
        super().__init__(data)
        self.prompts, self.facts, self.modalities = prompts, facts, modalities

    def with_data(self, data: dict[str, Any]) -> Encoded:
        """Return other inputs for the same prompts."""
        return Encoded(data, self.prompts, self.facts, self.modalities)

    def without_last(self, count: int) -> Encoded:
        """Return the inputs without the last `count` tokens of every sequence, which must be text."""
        batch = self["input_ids"].shape
        data = {
            name: value[:, :-count] if tuple(getattr(value, "shape", ()))[:2] == batch else value
            for name, value in self.items()
        }
        modalities = None if self.modalities is None else [row[:-count] for row in self.modalities]
        return Encoded(data, self.prompts, self.facts, modalities)
