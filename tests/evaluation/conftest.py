"""A tiny model whose sink is planted, and questions for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnisink.evaluation.tasks.instance import Instance


@pytest.fixture(scope="session")
def tiny(llama_folder: Path):
    """Load the tiny Llama: four layers, four heads, and a sink at every ``W``."""
    from omnisink import load_model

    return load_model(str(llama_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def asked() -> list[Instance]:
    """Make questions of different lengths, with letters and for yes or no."""
    words = ["stone", "grass", "rain", "wet", "green", "lies", "nobody", "seen", "had", "end"]
    return [
        Instance(
            id=f"q{i}",
            text=" ".join(words[: 1 + i % 9]) + (" yes or no" if i % 3 == 0 else "\nA. red\nB. blue"),
            gold=("yes" if i % 2 else "no") if i % 3 == 0 else "AB"[i % 2],
            answers=("yes", "no") if i % 3 == 0 else ("A", "B"),
            parser="yes_no" if i % 3 == 0 else "letter",
            cluster=f"clip-{i // 2}",
            max_new_tokens=4,
            groups={"kind": ("yes-no",) if i % 3 == 0 else ("letter",)},
        )
        for i in range(12)
    ]
