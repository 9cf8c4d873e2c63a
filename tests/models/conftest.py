"""One tiny checkpoint of every family, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnisink import load_model
from omnisink.models.loaded import Loaded
from tests.made_once import made_once
from tests.models.tiny_checkpoints import BESIDE, CHECKPOINTS


def seeded(name: str, folder: Path) -> Path:
    """Make a checkpoint whose weights do not depend on the tests that ran before: some make models say nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {**CHECKPOINTS, **BESIDE}[name](folder)


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Return a function that loads a family's tiny checkpoint, each once."""
    loaded: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in loaded:
            loaded[name] = load_model(made_once(tmp_path_factory, name, lambda folder: seeded(name, folder)))
        return loaded[name]

    return load
