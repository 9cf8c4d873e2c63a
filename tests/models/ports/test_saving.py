"""A port that is saved is loaded as itself or refused, and never as the text decoder inside it."""

from __future__ import annotations

import shutil

import pytest

from omnisink.errors import OmnisinkError
from omnisink.models.loading import load_model
from omnisink.verification.ports import PORTED


@pytest.mark.parametrize("name", PORTED)
def test_a_port_that_is_saved_is_not_loaded_as_text_only(name, tmp_path):
    released, saved = tmp_path / "released", tmp_path / "saved"
    released.mkdir()
    PORTED[name].save(released)
    loaded = load_model(released)
    # The files of the towers and of the tokenizer stay as in the release; only the model is written anew.
    shutil.copytree(released, saved, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    for file in released.glob("*/config.json"):
        shutil.copy(file, saved / file.parent.name)
    loaded.model.save_pretrained(saved)
    try:
        again = load_model(saved)
    except OmnisinkError:
        return
    assert type(again.model) is type(loaded.model)
    assert again.adapter.modalities == loaded.adapter.modalities
