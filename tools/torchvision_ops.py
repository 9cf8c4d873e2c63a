"""Let torchvision be imported where its compiled part cannot be loaded: beside a PyTorch without CUDA.

vLLM and transformers use torchvision's transforms, which are plain Python, but its import ends in an error when the
operators of the compiled part are missing. This file is installed into the environment of `make test-serving`, and
runs at every start of its Python (by a .pth file): just before torchvision is imported it declares the two operators
that the import itself asks for. They have no kernel, so that calling one is still an error.

Where the compiled part loads, nothing is done.
"""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from typing import Any

_SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []


class _Watch:
    """A finder that finds nothing, and declares the operators when torchvision is looked for."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(_Watch)  # type: ignore[arg-type]
            spec = importlib.machinery.PathFinder.find_spec(name)
            if spec is not None and spec.origin is not None:
                _declare(Path(spec.origin).parent)


def _declare(folder: Path) -> None:
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return  # An earlier look for it, of the kind that only asks whether it is installed, has declared them.
    try:
        for file in sorted(folder.glob("_C*.so")):
            torch.ops.load_library(str(file))
            return
    except OSError:
        pass
    library = torch.library.Library("torchvision", "FRAGMENT")
    for signature in _SIGNATURES:
        library.define(signature)
    _libraries.append(library)  # The operators live as long as it does.


def watch() -> None:
    """Wait for the import of torchvision."""
    sys.meta_path.insert(0, _Watch)  # type: ignore[arg-type]
