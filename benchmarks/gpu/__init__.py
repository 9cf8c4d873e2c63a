"""The cost of OutRo on a GPU, and checks that it is right there: `make bench-gpu`, or `python -m benchmarks.gpu`.

It needs the project's sources, PyTorch and transformers, and no weights, no network and no installation.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

if importlib.util.find_spec("omnisink") is None:  # not installed: the sources lie beside
    sys.path.insert(0, str(ROOT / "src"))
