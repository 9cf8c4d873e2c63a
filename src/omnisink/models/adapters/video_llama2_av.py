"""VideoLLaMA 2.1-AV: as 2.1, with the sound after the video it belongs to, or by itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.spans import Span
from omnisink.models.adapters.video_llama2 import VideoLLaMA2
from omnisink.models.context import UnheardWarning
from omnisink.models.ports.ears import SUFFIX
from omnisink.models.ports.fbank import RATE, TOKENS, WINDOW, fbank, heard_samples, time_units
from omnisink.questions.prompt import Encoded, Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts


class VideoLLaMA2AV(VideoLLaMA2):
    """VideoLLaMA 2.1-AV with what it hears with."""

    model_types = tuple(model_type + SUFFIX for model_type in VideoLLaMA2.model_types)
    modalities = frozenset({"image", "video", "audio"})
    audio_rate = RATE

    def audio_tokens(self, samples: int) -> int:
        """As many for every sound: it is made half a minute long."""
        return TOKENS if samples else 0

    def read(self, parts: ModelParts, prompts: Sequence[Prompt]) -> list[Media]:
        """Read the files of a batch; of a long sound file, the beginning is kept."""
        found = []
        for prompt, media in zip(prompts, super().read(parts, prompts), strict=True):
            if media.sound is not None and not prompt.sound_of_video and len(media.samples) > WINDOW:
                seconds = len(media.samples) / RATE
                warnings.warn(
                    f"{prompt.sound}: of its {seconds:.1f} s of sound {parts.name} hears the first {WINDOW // RATE}; "
                    "cut the file to choose others",
                    UnheardWarning,
                    stacklevel=2,
                )
                media = replace(media, sound=replace(media.sound, audio=media.samples[:WINDOW]))
            found.append(media)
        return found

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Return the word that stands for the media and the question; that of a video stands for its sound too."""
        if media.sound is not None and media.image is not None:
            raise OmnisinkError(
                "VideoLLaMA 2.1-AV hears a sound by itself or with a video, not with a picture: ask about one of them "
                "at a time"
            )
        lines = super().content(prompt, media)
        if media.sound is not None and media.video is None:
            lines[1 if prompt.text_first else 0]["text"] = "<audio>"
        return lines

    def holders(self, parts: ModelParts, media: Media) -> dict[str, list[int]]:
        """Return the words that stand for media; the tokens of a video's sound follow its own."""
        found = super().holders(parts, media)
        sound = [parts.model.config.audio_token_id] * TOKENS
        if media.sound is not None:
            found["<video>"] = found["<video>"] + sound
        return {**found, "<audio>": sound}

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Make spectrograms beside frames and tokens, each once for a file that several prompts share."""
        import torch

        made = super().process(parts, texts, prompts, media)
        kept: dict[tuple[int, bool], torch.Tensor] = {}
        sounds = []
        for prompt, read in zip(prompts, media, strict=True):
            if read.sound is not None:
                key = (id(read.sound), prompt.sound_of_video)
                if key not in kept:
                    heard = read.samples[heard_samples(len(read.samples), of_video=prompt.sound_of_video)]
                    # The release rounds them so, whatever the model's own dtype.
                    kept[key] = torch.from_numpy(fbank(heard)).bfloat16().float()
                sounds.append(kept[key])
        return {**made, "input_features": torch.stack(sounds)} if sounds else made

    def spans(self, parts: ModelParts, inputs: Encoded) -> list[list[Span]]:
        """Cut every sequence into spans; the bands of frequency of one time have a span each."""
        rows = []
        for row, prompt, facts in zip(super().spans(parts, inputs), inputs.prompts, inputs.facts, strict=True):
            spans: list[Span] = []
            for span in row:
                if span.modality != "audio":
                    spans.append(span)
                    continue
                start = span.start
                for count, *times in time_units(round(facts.audio_seconds * RATE), of_video=prompt.sound_of_video):
                    spans.append(Span("audio", start, start + count, *times))
                    start += count
            rows.append(spans)
        return rows
