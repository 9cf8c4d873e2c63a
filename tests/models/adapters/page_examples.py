"""The examples of docs/write-an-adapter.md, installed as packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "write-an-adapter.md"


def example(number: int) -> tuple[str, str]:
    """Return the code of an example and its entry points, as pyproject.toml has them."""
    text = PAGE.read_text(encoding="utf-8")
    codes, tables = (re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S) for kind in ("python", "toml"))
    return codes[number], tables[number]


@contextmanager
def installed(number: int, module: str, site: Path) -> Iterator[None]:
    """Install an example with its entry points, as pip lays it out."""
    code, table = example(number)
    name = module.replace("_", "-")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = re.sub(r'\[project\.entry-points\."([\w.]+)"\]', r"[\1]", table).replace('"', "")
    assert points.startswith("[omnisink.")
    (info / "entry_points.txt").write_text(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield
    sys.modules.pop(module, None)
