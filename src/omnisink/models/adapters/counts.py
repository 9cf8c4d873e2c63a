"""The tokens of an encoded prompt, counted by modality: the proof that its pictures and sound are in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnisink.errors import OmnisinkError
from omnisink.media import Clip
from omnisink.models.adapters.spans import Modality
from omnisink.questions.prompt import Facts, Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.adapters.base import Adapter
    from omnisink.models.parts import ModelParts


def facts_of(
    adapter: Adapter,
    parts: ModelParts,
    prompt: Prompt,
    media: Media,
    modalities: Sequence[Modality],
    token_mask: Sequence[bool],
) -> Facts:
    """Count the tokens of one encoded prompt by modality, and check that its media are among them.

    Parameters
    ----------
    adapter : Adapter
        That encoded it.
    parts : ModelParts
        Model and processor.
    prompt : Prompt
        The question.
    media : Media
        What was read for it.
    modalities : sequence of str
        (S,) modality of every token.
    token_mask : sequence of bool
        (S,) False at padding.

    Returns
    -------
    Facts
        Counts, times and records.

    Raises
    ------
    OmnisinkError
        If the sound or the video did not reach the prompt.
    """
    counts = Counter(modality for modality, real in zip(modalities, token_mask, strict=True) if real)
    facts = Facts(
        sum(token_mask),
        counts["video"],
        counts["image"],
        counts["audio"],
        [],
        0.0,
        media.records(),
    )
    samples = 0 if media.sound is None else len(media.samples)
    facts.audio_seconds = samples / adapter.audio_rate
    if not adapter.media_are_tokens:
        return facts
    if media.sound is not None:
        expected = adapter.audio_tokens_in(media)
        if facts.audio_tokens != expected or expected < 1:
            raise OmnisinkError(
                f"the sound of {prompt.sound} did not reach the prompt: its {facts.audio_seconds:.2f} s should be "
                f"{expected} audio tokens, the processor made {facts.audio_tokens}"
            )
    elif facts.audio_tokens:
        raise OmnisinkError(f"the processor made {facts.audio_tokens} audio tokens although no sound was asked for")
    if media.video is not None:
        facts.grid_times = adapter.grid_times(parts, media.video)
        if facts.video_tokens < len(facts.grid_times):
            raise OmnisinkError(
                f"{prompt.video} did not reach the prompt: {len(facts.grid_times)} steps of frames became "
                f"{facts.video_tokens} video tokens"
            )
    return facts


def grid_times(clip: Clip, patch: int) -> list[tuple[float, float]]:
    """Return when each run of `patch` kept frames begins and ends, in seconds; the last ends with the video."""
    times = [float(t) for t in clip.times]  # type: ignore[union-attr]
    begins = times[::patch]
    # Frames are evenly spaced in nearly every choice; the last of them lasts as long as those before.
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    end = min(times[-1] + step, max(clip.record.duration or float("inf"), times[-1]))
    return list(zip(begins, [*begins[1:], end], strict=True))
