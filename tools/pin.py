"""Write constraints.txt from what is installed beside this interpreter (`make constraints`)."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

TARGET = Path(__file__).parents[1] / "constraints.txt"
HEADER = """\
# The versions omnisink is developed and tested with, dependencies of dependencies included: `make constraints` writes
# this file. A constraint only says which version to take if a package is installed at all, so lines for other
# platforms do no harm. Packages that have left Python 3.10 behind are free there: pip takes the newest that fits.
"""
#: Newest and oldest Python 3.10; a package that accepts neither needs a newer Python.
OLDEST_PYTHON = ("3.10.0", "3.10.99")


def pin(name: str, version: str, requires_python: str | None) -> str:
    """Format one constraint, limited to newer Pythons where the package itself is."""
    line = f"{canonicalize_name(name)}=={version.split('+')[0]}"
    supported = SpecifierSet(requires_python or "")
    return line if any(p in supported for p in OLDEST_PYTHON) else f'{line}; python_version >= "3.11"'


def main() -> None:
    """Rewrite the file, one package a line, sorted."""
    lines = {
        pin(d.metadata["Name"], d.version, d.metadata["Requires-Python"])
        for d in distributions()
        if canonicalize_name(d.metadata["Name"]) not in {"omnisink", "pip", "wheel"}
    }
    TARGET.write_text(HEADER + "\n".join(sorted(lines)) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
