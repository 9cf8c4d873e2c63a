"""A serving engine's steps with kernels: prompts and generated tokens together, against one prompt at a time."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba")

from omnisink.kernels.launch import count_launches
from omnisink.serving.layer import OutRoLayer
from omnisink.serving.packed_layer import PackedLayer
from tests.kernels.interpreted.reference import reference
from tests.serving.test_layers import passes


def test_packed_steps_equal_those_of_single_prompts():
    with count_launches() as launches:
        found, counted = passes(PackedLayer)
    with reference():
        expected, wanted = passes(OutRoLayer)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
    assert counted == wanted
    # Two layers, one of which relaxes; three steps have prompts, and one has generated tokens alone.
    assert launches == {"scan": 6, "count": 6, "direct": 6, "relax": 3, "turn": 8}
