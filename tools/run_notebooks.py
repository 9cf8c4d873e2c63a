"""Run the notebooks of docs/notebooks and keep what they show (`make gallery`).

The outputs are committed, so that a reader of the repository and of the site sees them, and a test holds each new run
against them. What belongs to one machine or one moment is left out: times, the progress of loading, run counts and
the version of Python. A cell whose metadata have a `picture` also writes what it drew to docs/figures.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER, FIGURES = ROOT / "docs" / "notebooks", ROOT / "docs" / "figures"
#: No cell takes this long on two slow cores; a cell that waits for something else does.
SECONDS = 600
#: Pictures are drawn for a page that is 700 pixels wide.
STYLE = "%config InlineBackend.print_figure_kwargs = {'dpi': 100, 'metadata': {'Software': None}}"
#: What a cell's metadata may say: what its picture shows, and the name of that picture in the gallery.
KEPT = ("alt", "picture")


def notebooks() -> list[Path]:
    """Return the notebooks in the order of their names."""
    return sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, folder: Path) -> Any:
    """Run a notebook from top to bottom, offline and in another folder than its own, and return it with its outputs.

    Parameters
    ----------
    path : Path
        The notebook.
    folder : Path
        Where its cells read and write files.

    Returns
    -------
    NotebookNode
        As it is committed.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises an error.
    """
    notebook = nbformat.read(path, as_version=4)
    style = nbformat.v4.new_code_cell(STYLE)
    notebook.cells.insert(0, style)
    # Progress of loading is no result; and no cell may reach for the network.
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute(env=surroundings)
    notebook.cells.remove(style)
    for cell in notebook.cells:
        cell.metadata = {name: cell.metadata[name] for name in KEPT if name in cell.metadata}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [kept for output in cell.outputs if (kept := _without_moment(output)) is not None]
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return notebook


def _without_moment(output: Any) -> Any:
    """Return an output without what another run would show differently; None where nothing is left."""
    if output.output_type == "stream" and output.name == "stderr":
        return None
    if output.output_type == "execute_result":
        output.execution_count = None
    if "metadata" in output:
        output.metadata = {}
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = _small(output.data["image/png"])
    if "text/html" in output.get("data", {}):  # The site has a style for tables.
        html = re.sub(r"<style scoped>.*?</style>\n?", "", output.data["text/html"], flags=re.S)
        output.data["text/html"] = html.replace(' border="1" class="dataframe"', "")
    return output


def _small(png: str) -> str:
    """Return a picture with as many colours as a chart needs, which takes half the room."""
    made = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128).save(made, "PNG", optimize=True)
    return base64.b64encode(made.getvalue()).decode("ascii")


def write_pictures(notebook: Any, folder: Path = FIGURES) -> list[Path]:
    """Write what cells drew that name a picture."""
    written = []
    for cell in notebook.cells:
        if "picture" in cell.metadata:
            (drawn,) = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            path = folder / f"{cell.metadata['picture']}.png"
            path.write_bytes(base64.b64decode(drawn))
            written.append(path)
    return written


def main() -> None:
    """Run some or all notebooks, and write them and their pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of notebooks; all without one")
    chosen = parser.parse_args().names
    for path in notebooks():
        if not chosen or path.stem in chosen:
            with tempfile.TemporaryDirectory() as folder:
                made = run(path, Path(folder))
            nbformat.write(made, path)
            for written in (path, *write_pictures(made)):
                print(f"{written.relative_to(ROOT)}: {written.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
