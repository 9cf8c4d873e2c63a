"""What the whole suite shares."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may reach for the network

import pytest


@pytest.fixture(scope="session")
def smollm2():
    """Load the real SmolLM2-135M once, in float32 on the CPU."""
    from omnisink import load_model

    return load_model("smollm2-135m", device="cpu", dtype="float32")
