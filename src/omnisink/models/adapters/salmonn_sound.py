"""The sound of the video-SALMONN 2 models: its pieces, their spectrograms, and the time that a token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from omnisink.media import Clip
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.spans import Unit
from omnisink.questions.prompt import Media

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

#: Seconds of a piece of sound, its tokens, and tokens of a second.
PIECE_SECONDS, PIECE_TOKENS, PER_SECOND = 30, 60, 2


class HearsInPieces(Adapter):
    """Sound in pieces of 30 seconds, the last filled with silence, each of which becomes 60 tokens."""

    def audio_tokens(self, samples: int) -> int:
        """Two a second, also for the silence that fills the last piece."""
        return -(-samples // (PIECE_SECONDS * self.audio_rate)) * PIECE_TOKENS

    def audio_units(self, tokens: int, seconds: float) -> list[Unit]:
        """Return a unit for each half second, whose token may come twice; silence after the sound has no time."""
        own = self.audio_tokens(round(seconds * self.audio_rate))
        begins = (i * own // tokens / PER_SECOND for i in range(tokens))
        runs = [(at, len(list(run))) for at, run in groupby(at if at < seconds else None for at in begins)]
        return [(count, at, None if at is None else min(at + 1 / PER_SECOND, seconds)) for at, count in runs]

    def spectrograms(self, parts: ModelParts, media: Sequence[Media]) -> Any:
        """Return the log-mel spectrograms of the pieces of all sounds, (N, M, 3000) float32; None without sound."""
        import torch
        from transformers import WhisperFeatureExtractor

        size = PIECE_SECONDS * self.audio_rate
        sounds = [m.samples for m in media if m.sound is not None]
        pieces = [sound[at : at + size] for sound in sounds for at in range(0, len(sound), size)]
        if not pieces:
            return None
        extract = WhisperFeatureExtractor(parts.model.config.audio_config.num_mel_bins)
        # One at a time, as the release does: a batch would be padded in the same way.
        made = [extract(p, sampling_rate=self.audio_rate, return_tensors="pt")["input_features"] for p in pieces]
        return torch.cat(made)


def clip_seconds(clip: Clip) -> float:
    """Return the length of a video as the releases count it: each of its frames lasts as long as the mean."""
    record = clip.record
    return record.frames_total / record.average_fps if record.average_fps else 1.0
