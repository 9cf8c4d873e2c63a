"""Last part: write what was trained as the file that is shipped, in half precision."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from omnisink.models.smolomni import WEIGHTS

#: What fits into the package.
LIMIT = 40 * 2**20


def finish(checkpoint: Path, out: Path = WEIGHTS) -> int:
    """Write the file and return its size in bytes."""
    weights = {name: weight.to(torch.float16).contiguous() for name, weight in load_file(checkpoint).items()}
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"{broken[0]} does not fit into half precision")
    save_file(weights, out, metadata={"format": "pt", "model": "SmolOmni", "made_by": "training/ of omnisink"})
    size = out.stat().st_size
    if size > LIMIT:
        raise ValueError(f"{out} has {size / 2**20:.1f} MB, more than {LIMIT / 2**20:.0f}")
    return size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    print(f"{given.out}: {finish(given.checkpoint, given.out) / 2**20:.1f} MB")
