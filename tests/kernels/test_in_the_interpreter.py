"""Every kernel against the reference, on the CPU, in Triton's interpreter: one process for each file of tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import needs

ROOT = Path(__file__).parents[2]
FILES = sorted(p.name for p in (Path(__file__).parent / "interpreted").glob("test_*.py"))


@needs("triton")
@pytest.mark.parametrize("name", FILES)
def test_kernels_in_the_interpreter(name):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/kernels/interpreted/{name}"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"OMNISINK_KERNELS": "interpret"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
