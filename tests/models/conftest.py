"""One real clip and one tiny checkpoint of every family, made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omnisink import load_model
from omnisink.models.loaded import Loaded
from omnisink.synthav.render import render
from omnisink.synthav.scene import Scene, Sound, make_scene
from tests.models.tiny_checkpoints import CHECKPOINTS


def scene_without_voice(index: int = 0) -> Scene:
    """Return a scene whose sounds need no program to be made."""
    return replace(make_scene("train", index), sounds=(Sound("beep", 0.5), Sound("bell", 2.5)))


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Render a clip of four seconds with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    render(scene_without_voice(), path)
    return path


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Return a function that loads a family's tiny checkpoint, each once."""
    loaded: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in loaded:
            loaded[name] = load_model(CHECKPOINTS[name](tmp_path_factory.mktemp(name)))
        return loaded[name]

    return load
