"""The embedded models as folders for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from omnisink import OmnisinkError, load_model
from omnisink.models.checkpoint import write_checkpoint

pytestmark = pytest.mark.real


@pytest.mark.slow
def test_smolomni_is_read_from_its_folder_with_every_weight(smolomni: Any, tmp_path: Path) -> None:
    folder = write_checkpoint("smolomni", tmp_path / "smolomni")
    again = load_model(folder, dtype="float32")
    wanted, got = smolomni.model.state_dict(), again.model.state_dict()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(weight, got[name]) for name, weight in wanted.items())
    assert again.processor.chat_template == smolomni.processor.chat_template
    before = (folder / "config.json").stat().st_mtime_ns
    assert write_checkpoint("smolomni", folder) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="is not embedded; those that are: smollm2-135m, smolomni"):
        write_checkpoint("gpt2", tmp_path / "gpt2")
