"""A tiny model whose sink is planted, and items for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(llama_folder: Path):
    """Load the tiny Llama: four layers, four heads, and a sink at every ``W``."""
    from omnisink import load_model

    return load_model(str(llama_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def items_file(tmp_path_factory) -> Path:
    """Write eight items: questions with choices, for yes or no and with free answers, and passages."""
    rows: list[dict[str, object]] = [
        {"question": "which of these is it", "choices": ["red", "blue"], "answer": "A"},
        {"question": "which of these is it now", "choices": ["red", "blue", "green"], "answer": "green"},
        {"question": "is it so", "answer": "yes"},
        {"question": "what is it", "answer": "stone"},
        {"text": "Wa stone lies in the grass"},
        {"text": "Wthe grass is wet and green"},
        {"text": "Win the end it was a stone"},
        {"text": "Wnobody had seen the rain"},
    ]
    file: Path = tmp_path_factory.mktemp("items") / "items.jsonl"
    file.write_text("".join(json.dumps({"id": f"item-{i}", **row}) + "\n" for i, row in enumerate(rows)))
    return file
