"""A folder that is removed or moved while its records are written: noticed at once, and nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omnisink.errors import OmnisinkError
from omnisink.results import disk
from omnisink.results.disk import check_folder
from omnisink.results.records import MANIFEST, RECORDS, Records, read_records, start
from tests.skips import needs

RUN = {"model": "smolomni", "seed": 0}


def begun(folder: Path) -> Records:
    start(folder, RUN)
    records = Records(folder, ("id",))
    records.append({"id": "a"})
    return records


def lost(records: Records) -> str:
    with pytest.raises(OmnisinkError, match="was removed or moved while it was being written") as caught:
        records.append({"id": "b"})
    with pytest.raises(OmnisinkError, match="the records are closed"):
        records.append({"id": "c"})
    return str(caught.value)


def rescued(folder: Path, said: str) -> None:
    assert str(folder) in said
    assert [r["id"] for r in read_records(folder)] == ["a", "b"]
    start(folder, RUN)
    with Records(folder, ("id",)) as records:
        assert records.done("b")
        records.append({"id": "c"})


@needs("/proc")
def test_a_folder_that_was_removed_is_rescued_and_can_be_gone_on_with(tmp_path: Path) -> None:
    records = begun(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    rescued(tmp_path / "run-rescued-1", lost(records))


@needs("/proc")
def test_records_alone_that_were_removed(tmp_path: Path) -> None:
    (tmp_path / "run-rescued-1").mkdir()
    records = begun(tmp_path / "run")
    (tmp_path / "run" / RECORDS).unlink()
    rescued(tmp_path / "run-rescued-2", lost(records))
    assert (tmp_path / "run" / MANIFEST).exists()


@needs("/proc")
def test_a_folder_that_was_moved_keeps_its_records(tmp_path: Path) -> None:
    records = begun(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert "They lie where they were moved to" in lost(records)
    assert [r["id"] for r in read_records(tmp_path / "elsewhere")] == ["a", "b"]
    assert not (tmp_path / "run").exists()


@needs("/proc")
def test_another_run_in_its_place_is_not_written_to(tmp_path: Path) -> None:
    records = begun(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with begun(tmp_path / "run"):
        rescued(tmp_path / "run-rescued-1", lost(records))
    assert [r["id"] for r in read_records(tmp_path / "run")] == ["a"]


@needs("/proc")
def test_a_whole_tree_that_was_removed(tmp_path: Path) -> None:
    records = begun(tmp_path / "above" / "run" / "part-0-of-2")
    shutil.rmtree(tmp_path / "above")
    rescued(tmp_path / "above-rescued-1", lost(records))


@needs("/proc")
def test_where_nothing_can_be_rescued_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OmnisinkError("could not be written: No space left on device")

    records = begun(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    monkeypatch.setattr(disk, "atomic_write", full)
    assert "They could not be kept" in lost(records)


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    for use in (start, lambda folder, _: Records(folder, ("id",)), lambda folder, _: check_folder(folder)):
        with pytest.raises(OmnisinkError, match="could not be made"):
            use(str(tmp_path / "a\0b"), RUN)  # type: ignore[operator]


def test_a_folder_is_checked_before_it_is_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for where in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(OmnisinkError, match="could not be made or written to: .* is not a folder"):
            check_folder(where)
