"""What the tests of serving share: vLLM kept small, and tiny checkpoints with planted sinks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before vLLM is imported.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import pytest

from tests.serving import planted


@pytest.fixture(scope="session")
def llama() -> Any:
    """Make a tiny Llama with a planted sink."""
    return planted.tiny_llama()


@pytest.fixture(scope="session")
def llama_served(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write it where vLLM can load it."""
    return planted.save(llama, tmp_path_factory.mktemp("served") / "llama")
