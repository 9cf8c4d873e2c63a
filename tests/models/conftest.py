"""One tiny checkpoint of every family, made once."""

from __future__ import annotations

import pytest

from omnisink import load_model
from omnisink.models.loaded import Loaded
from tests.made_once import made_once
from tests.models.tiny_checkpoints import CHECKPOINTS


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Return a function that loads a family's tiny checkpoint, each once."""
    loaded: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in loaded:
            loaded[name] = load_model(made_once(tmp_path_factory, name, CHECKPOINTS[name]))
        return loaded[name]

    return load
