"""The family of docs/add-a-family.md: the page's own code, run as a reader runs it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from omnisink import find_sinks
from omnisink.verification.families import FAMILIES
from omnisink.verification.family import Family
from omnisink.verification.tiny import SINK_TOKEN

PAGE = Path(__file__).parents[2] / "docs" / "add-a-family.md"


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """Return the code of the page: what to try first, and the example."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def file(blocks: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the example to a file of its own."""
    path: Path = tmp_path_factory.mktemp("family") / "starcoder2.py"
    path.write_text(blocks[1])
    return path


def test_the_example_prints_what_the_page_says(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = runpy.run_path(str(file), run_name="__main__")
    assert isinstance(made["STARCODER2"], Family)
    assert made["STARCODER2"].name not in FAMILIES, "the page shows a family that omnisink does not ship"
    said = capsys.readouterr().out.splitlines()
    assert said == ["supported sdpa eager flex_attention", "{} "]
    assert f"`{said[0]}`" in PAGE.read_text(encoding="utf-8")


def test_what_is_tried_first_runs(blocks: list[str], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = runpy.run_path(str(file))["STARCODER2"]
    model = family.build()
    inputs = family.inputs(model, (9,))
    exec(compile(blocks[0], PAGE.name, "exec"), {"model": model, "inputs": inputs})
    assert capsys.readouterr().out.startswith("5 layers, 5 with attention that can be reached\n{}\n")
    sinks = find_sinks(model, **inputs)
    found = {p for layer in sinks.examined for p in sinks.positions(layer)}
    assert found == {p for p, token in enumerate(inputs["input_ids"][0].tolist()) if token == SINK_TOKEN}


def test_the_files_that_the_page_names_exist() -> None:
    root = PAGE.parents[1]
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|tests|docs)/[\w./]+)`", text)
    assert named
    assert [name for name in named if not (root / name).exists()] == []
    for name in ("families_vision.py", "families_audio.py", "families_omni.py"):
        assert name in text
        assert (root / "src/omnisink/verification" / name).is_file()
