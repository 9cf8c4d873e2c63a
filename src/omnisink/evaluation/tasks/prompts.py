"""From a question of a benchmark to what a model's adapter takes."""

from __future__ import annotations

from omnisink.evaluation.tasks.instance import Instance
from omnisink.media import FrameChoice
from omnisink.models.adapters.registry import ADAPTERS
from omnisink.models.loaded import Loaded
from omnisink.questions.prompt import Prompt


def prompt_of(loaded: Loaded, instance: Instance, frames: FrameChoice | None = None) -> Prompt:
    """Put a question as the model's adapter takes it: a model that does not hear is given the picture alone."""
    sound = instance.audio or None
    if instance.audio is None and "audio" in loaded.adapter.modalities:
        sound = instance.video
    return Prompt(
        instance.text,
        video=instance.video,
        image=instance.image,
        sound=sound,
        system=_system(loaded, instance.system),
        frames=frames,
        text_first=instance.text_first,
        reply=instance.reply,
    )


def _system(loaded: Loaded, message: str | None) -> str | None:
    """Return a protocol's system message; None, for the family's own, where another family is tuned with it."""
    owners = [adapter for adapter in ADAPTERS if message and adapter.default_system == message]
    return None if len(owners) == 1 and not isinstance(loaded.adapter, owners[0]) else message
