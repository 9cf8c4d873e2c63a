"""From a question of a benchmark to what a model's adapter takes."""

from __future__ import annotations

from omnisink.evaluation.tasks.instance import Instance
from omnisink.media import FrameChoice
from omnisink.models.adapters.registry import own_system
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
        system=own_system(loaded.adapter, instance.system),
        frames=frames,
        text_first=instance.text_first,
        reply=instance.reply,
    )
