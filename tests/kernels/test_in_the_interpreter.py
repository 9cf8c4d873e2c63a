"""Every kernel against the reference, on the CPU, in Triton's interpreter: a process for a few files of tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import needs

ROOT = Path(__file__).parents[2]
FOLDER = Path("tests/kernels/interpreted")
FILES = {path.name for path in (ROOT / FOLDER).glob("test_*.py")}
#: Short files that share a process, which imports PyTorch and Triton anew; the others have one of their own.
TOGETHER = {"test_relaxation.py", "test_rotation.py", "test_serving.py", "test_sink_router.py"}
GROUPS = [sorted(TOGETHER), *([name] for name in sorted(FILES - TOGETHER))]


@needs("triton")
@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_kernels_in_the_interpreter(group):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *(str(FOLDER / name) for name in group),
        ],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"OMNISINK_KERNELS": "interpret"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
