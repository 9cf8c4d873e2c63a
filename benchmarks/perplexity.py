"""Perplexity of a text under different strengths: how the figure in the README was measured.

One text says little about a model; this shows that the strength matters, not that the method helps.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch

from omnisink import OutRo, load_model

LIGHTHOUSE = Path(__file__).parents[1] / "tests" / "lighthouse.txt"
METHODS = {
    "baseline": None,
    "relaxation only": OutRo(rotate=False),
    **{f"gamma {g}": OutRo(gamma=g) for g in (0.1, 0.3, 1.0, 3.0)},
}


def main() -> None:
    """Print one line for each strength."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=LIGHTHOUSE)
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model, dtype="float32")
    ids = loaded.tokenizer(arguments.text.read_text(encoding="utf-8").strip(), return_tensors="pt").input_ids
    print(f"{loaded.name}, {loaded.source}, {ids.shape[1]} tokens of {arguments.text.name}")
    for name, method in METHODS.items():
        with torch.inference_mode(), method(loaded.model) if method else nullcontext():
            loss = loaded.model(input_ids=ids, labels=ids).loss
        print(f"{name:16} {float(loss.exp()):.2f}")


if __name__ == "__main__":
    main()
