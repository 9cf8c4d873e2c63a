"""Show the notebooks in the documentation, as a hook of MkDocs (`hooks:` in mkdocs.yml).

nbconvert turns a notebook with its outputs into Markdown and pictures, and MkDocs takes them as it takes other pages:
links are checked, the search finds them, dark mode holds, and nothing is loaded from elsewhere. No notebook is run
here: what they show is committed (`make gallery`).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

#: A link to a notebook; in the repository it leads to the notebook, in the site to its page.
_LINK = re.compile(r"(\]\([^)\s#]+)\.ipynb(?=[#)])")
_PICTURE = re.compile(r"!\[png\]\(")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page and its pictures for every notebook, which itself can be downloaded."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page, pictures = as_markdown(Path(str(file.abs_src_path)))
        folder = posixpath.dirname(file.src_uri)
        stem = posixpath.splitext(file.src_uri)[0]
        files.append(File.generated(config, f"{stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, posixpath.join(folder, name), content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks lead to their pages."""
    return _LINK.sub(r"\1.md", markdown)


def as_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and the pictures that it shows, by their names beside it."""
    notebook = nbformat.read(path, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": path.stem, "output_files_dir": "pictures"}
    )
    # A cell that draws says in its metadata what is to be seen, for those who do not see it.
    said = iter([cell.metadata["alt"] for cell in notebook.cells if "alt" in cell.metadata])
    text = _PICTURE.sub(lambda _: f"![{next(said)}](", text)
    title, rest = text.strip().split("\n", 1)
    return f'{title}\n\n[Download this notebook]({path.name} "{path.name}")\n{rest}', resources["outputs"]
