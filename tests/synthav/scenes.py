"""Scenes of SynthAV that need no program to be rendered."""

from __future__ import annotations

from dataclasses import replace

from omnisink.synthav.scene import Scene, Sound, make_scene


def scene_without_voice(index: int = 0) -> Scene:
    """Return a scene whose sounds need no program to be made."""
    return replace(make_scene("train", index), sounds=(Sound("beep", 0.5), Sound("bell", 2.5)))
