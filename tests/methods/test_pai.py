"""What PAI changes, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from omnisink.methods.pai import PAI
from tests.methods.reference_edits import run
from tests.methods.weight_cases import on, spanned
from tests.reference_outro import tiny_llama


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_last_row_only_changes(alpha):
    model, ids = tiny_llama(), spanned()
    bare = run(model, ids)
    with on(PAI(alpha=alpha), model, {"input_ids": ids}):
        found = run(model, ids)
    assert torch.equal(found[:-1], bare[:-1])
    assert not torch.equal(found[-1], bare[-1])
