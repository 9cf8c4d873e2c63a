"""The manifest of a run: written once and whole, and compared when the run is taken up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.results.records import MANIFEST, Records, start

RUN: dict[str, Any] = {
    "model": {"name": "smolomni", "revision": None},
    "layers": (1, 2),
    "seed": 0,
    "started": "2025-01-01T10:00:00",
}


def test_a_run_is_taken_up_with_the_manifest_it_began_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begun = start(folder, RUN)
    assert begun == {**RUN, "layers": [1, 2]}
    again = start(folder, {**RUN, "started": "2025-02-02T10:00:00"})
    assert again["started"] == RUN["started"]
    assert json.loads((folder / MANIFEST).read_text(encoding="utf-8")) == begun
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "run.lock"]


def test_a_run_that_was_begun_otherwise_is_refused_with_both_values(tmp_path: Path) -> None:
    start(tmp_path, {**RUN, "quick": True})
    before = (tmp_path / MANIFEST).read_bytes()
    other = {**RUN, "model": {"name": "smolomni", "revision": "abc"}, "layers": [1], "seed": 0, "note": None}
    with pytest.raises(OmnisinkError) as caught:
        start(tmp_path, other)
    told = str(caught.value)
    assert 'model.revision: was null, is "abc"' in told
    assert "layers: was [1, 2], is [1]" in told
    assert "quick: was true, is missing" in told
    assert "note: was missing, is null" in told
    assert not any(word in told for word in ("seed", "started", "model.name"))
    assert (tmp_path / MANIFEST).read_bytes() == before
    start(tmp_path, other, ignore=("started", "model.revision", "layers", "quick", "note"))
    with pytest.raises(OmnisinkError, match="quick"):
        start(tmp_path, other, ignore=("started", "model", "layers", "note"))


def test_long_values_are_shortened(tmp_path: Path) -> None:
    start(tmp_path, {"text": "a" * 5000})
    with pytest.raises(OmnisinkError) as caught:
        start(tmp_path, {"text": "b" * 5000})
    assert len(str(caught.value)) < 1000


def test_a_manifest_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="the manifest cannot be written as JSON"):
        start(tmp_path, {"seed": float("nan")})
    assert not (tmp_path / MANIFEST).exists()
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(OmnisinkError, match=r"manifest\.json: not a JSON object but list"):
        start(tmp_path, RUN)
    (tmp_path / MANIFEST).write_bytes(b"{")
    with pytest.raises(OmnisinkError, match=r"manifest\.json: it is not JSON"):
        start(tmp_path, RUN)


def test_records_without_a_manifest_are_not_gone_on_with(tmp_path: Path) -> None:
    Records(tmp_path, ("item",)).close()
    with pytest.raises(OmnisinkError, match=r"holds records of a run without its manifest\.json"):
        start(tmp_path, RUN)


def test_a_manifest_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OmnisinkError, match=r"manifest\.json could not be written: No space left"):
            start(tmp_path, RUN)
    assert not (tmp_path / MANIFEST).exists()
    start(tmp_path, RUN)
