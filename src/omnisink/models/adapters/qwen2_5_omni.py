"""Qwen2.5-Omni, and SmolOmni, which has its architecture: the thinker sees, hears and answers in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.media import FrameChoice
from omnisink.models.adapters.base import Adapter, pictures
from omnisink.models.adapters.qwen_frames import QwenFrames, pixel_bounds, scale
from omnisink.models.adapters.spans import Unit
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts

#: The system message of the official examples, without which the model was not tuned.
SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
_HOP = 160
#: Frames of 10 ms after the sound; a window reaches 12.5 ms past the middle of its frame.
_MARGIN = 2
_TOKENS_PER_SECOND = 25


class Qwen25Omni(Adapter):
    """The thinker only: the talker is not loaded."""

    model_types = ("qwen2_5_omni_thinker",)
    modalities = frozenset({"image", "video", "audio"})
    default_system = SYSTEM

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Two frames a second, 4 to 768 of them."""
        return QwenFrames()

    def audio_tokens(self, samples: int) -> int:
        """Mel frames of 10 ms, halved by a convolution, and halved again by pooling."""
        frames = -(-samples // _HOP)
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def audio_units(self, tokens: int, seconds: float) -> list[Unit]:
        """Twenty-five tokens a second."""
        return even_units(tokens, _TOKENS_PER_SECOND)

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run `Qwen2_5OmniProcessor` on frames that were scaled as qwen-omni-utils scales them."""
        processor = parts.processor
        videos = [(m.frames, pixel_bounds(processor, len(m.frames))) for m in media if m.video is not None]
        options: dict[str, Any] = {}
        if videos:
            least, most = min(b[0] for _, b in videos), max(b[1] for _, b in videos)
            options["videos"] = [scale(frames, self.side(processor), *bounds) for frames, bounds in videos]
            options["videos_kwargs"] = {
                "do_sample_frames": False,
                # Scaled already: within these bounds, the processor leaves the frames as they are.
                "size": {"shortest_edge": least, "longest_edge": most},
                "cap_pixels_per_frame": False,
            }
        options |= images_and_sound(prompts, media)
        if longest := max((len(m.samples) for m in media if m.sound is not None), default=0):
            options["audio_kwargs"]["max_length"] = _padded(longest)
        return processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **options)

    def side(self, processor: Any) -> int:
        """Return the side of a video token in pixels."""
        return int(processor.video_processor.patch_size * processor.video_processor.merge_size)

    def extras(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Pass to `generate` what the template and the processor were given: video and sound take turns."""
        return take_turns(prompts)


def _padded(samples: int) -> int:
    """Return how far sound is padded: past the last window of the spectrogram, so that its frames do not change.

    By itself the processor makes a spectrogram of 300 seconds, whatever it was given. The model looks only at the
    frames of the sound.
    """
    return (-(-samples // _HOP) + _MARGIN) * _HOP


def take_turns(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return the switch of `generate` that says whether video and sound take turns, the same for a whole batch.

    Raises
    ------
    OmnisinkError
        If some videos of a batch come with their sound and some without: the positions of one kind would be wrong.
    """
    own = {p.sound_of_video for p in prompts if p.video is not None}
    if len(own) > 1:
        raise OmnisinkError(
            "videos with their sound and videos without it cannot be in one batch of an omni model: ask about them "
            "apart"
        )
    return {"use_audio_in_video": True} if True in own else {}


def images_and_sound(prompts: Sequence[Prompt], media: Sequence[Media]) -> dict[str, Any]:
    """Return what the omni processors take beside videos; sound that belongs to a video says to which."""
    options: dict[str, Any] = {}
    if images := pictures(media):
        options["images"] = images
    sounds, owners, video = [], [], -1
    for prompt, read in zip(prompts, media, strict=True):
        video += read.video is not None
        if read.sound is not None:
            sounds.append(read.samples)
            owners.append(video if prompt.sound_of_video else None)
    if sounds:
        # Sound longer than the feature extractor's window would be cut without a word.
        options |= {"audio": sounds, "audio_kwargs": {"truncation": False}}
    if any(owner is not None for owner in owners):
        options |= {"load_audio_from_video": True, "audio_from_video_indices": owners}
    return options


def even_units(tokens: int, per_second: int) -> list[Unit]:
    """Return units of one second; the last may be shorter."""
    return [
        (min(per_second, tokens - at), at / per_second, min(at + per_second, tokens) / per_second)
        for at in range(0, tokens, per_second)
    ]
