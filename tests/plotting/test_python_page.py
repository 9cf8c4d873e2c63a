"""The page on results in Python: its code runs, and says what the page says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.skips import needs
from tests.test_documentation import DOCS, ROOT, code_blocks

PAGE = DOCS / "python.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the page from top to bottom in an empty folder, with a clip and the results that it reads."""
    import matplotlib

    matplotlib.use("agg")
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(ROOT / "src/omnisink/cli/demo.mp4", folder / "clip.mp4")
    (folder / "docs").symlink_to(DOCS)
    made: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in code_blocks(PAGE):
            if not block.startswith(">>>"):
                exec(compile(block, PAGE.name, "exec"), made)
    assert (folder / "sink-map.pdf").read_bytes().startswith(b"%PDF")
    assert {"sinks.json", "recording.npz", "recording.json"} <= {p.name for p in folder.iterdir()}
    return made


@pytest.mark.real
@pytest.mark.slow
@needs("matplotlib")
def test_the_code_of_the_page_does_what_it_says(names: dict[str, Any]) -> None:
    (shown,) = [block for block in code_blocks(PAGE) if block.startswith(">>>")]
    assert repr(names["sinks"]) == shown.splitlines()[1]
    assert names["sinks"].positions(12) == [0]
    assert {"text", "video", "audio", "text: sinks"} <= set(names["recording"].sets)
    assert list(names["frame"].columns) == ["sequence", "layer", "position", "sink", "magnitude"]
    assert sum(names["trace"].to_dataframe()["rotated"]) > 0
    legend = [t.get_text() for t in names["modality"].get_legend().get_texts()]
    assert legend == ["audio", "video", "text", "text, sinks"]


@needs("matplotlib")
def test_the_pictures_of_the_page_are_there() -> None:
    pictures = re.findall(r"\]\((figures/[\w-]+\.png)\)", PAGE.read_text(encoding="utf-8"))
    assert len(pictures) == 4
    for name in pictures:
        assert 5_000 < (DOCS / name).stat().st_size < 150_000


def write_pictures(made: dict[str, Any], folder: Path = DOCS / "figures") -> None:
    """Draw the pictures of the page again, from what its code left."""
    for name, axes in (
        ("sink-map", "ax"),
        ("heads", "heads"),
        ("modality", "modality"),
        ("differences", "differences"),
    ):
        made[axes].figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
