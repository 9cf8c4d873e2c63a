"""Records: on the disk once written, whole after a torn line, never twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.results.records import RECORDS, Records, read_records

FIELDS = ("arm", "item")


def record(item: int, arm: str = "base") -> dict[str, Any]:
    return {"arm": arm, "item": item, "said": "É \u2028 „so“\n", "loss": 0.1 + item, "p": None, "list": [1, {"a": 2}]}


def fill(folder: Path, count: int) -> bytes:
    with Records(folder, FIELDS) as records:
        for item in range(count):
            records.append(record(item))
    return (folder / RECORDS).read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = fill(tmp_path / "new" / "run", 3)
    assert read_records(tmp_path / "new" / "run") == [record(i) for i in range(3)]
    assert content.count(b"\n") == 3
    assert "„so“".encode() in content
    assert b'"arm":"base","item":0' in content, "compact"


def test_a_record_is_there_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Records(tmp_path, FIELDS) as records:
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
        for item in range(3):
            records.append(record(item))
            assert read_records(tmp_path)[-1] == record(item)
            assert synced[-1] == (tmp_path / RECORDS).stat().st_size
    assert len(synced) == 3


def test_keys_survive_and_are_used_once(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with Records(tmp_path, FIELDS) as records:
        assert len(records) == 2
        assert records.keys == {("base", 0), ("base", 1)}
        assert records.done("base", 1)
        assert not records.done("base", 2)
        assert not records.done("turned", 1)
        with pytest.raises(OmnisinkError, match="there is a record of arm 'base', item 1 already"):
            records.append({"arm": "base", "item": 1})
        records.append({"arm": None, "item": 1.5})
        assert records.done(None, 1.5)
        with pytest.raises(OmnisinkError, match="a key has the fields arm, item"):
            records.done("base")
    assert len(read_records(tmp_path)) == 3


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"loss": float("nan")}, "cannot be written as JSON"),
        ({"loss": [float("inf")]}, "cannot be written as JSON"),
        ({"loss": object()}, "cannot be written as JSON"),
        ({"said": "\ud800"}, "cannot be written as JSON"),
        ({"item": [1]}, "item is part of a key and must be a text or a number"),
    ],
)
def test_what_is_no_record_leaves_the_file_as_it_was(tmp_path: Path, wrong: dict[str, Any], reason: str) -> None:
    before = fill(tmp_path, 1)
    with Records(tmp_path, FIELDS) as records:
        with pytest.raises(OmnisinkError, match=reason):
            records.append({**record(1), **wrong})
        with pytest.raises(OmnisinkError, match="a record without 'item'"):
            records.append({"arm": "base"})
        assert (tmp_path / RECORDS).read_bytes() == before
        records.append(record(1))


def test_a_write_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fill(tmp_path, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with Records(tmp_path, FIELDS) as records:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OmnisinkError, match=r"records\.jsonl could not be written: No space left on device"):
                records.append(record(1))
        assert (tmp_path / RECORDS).read_bytes() == before
        assert not records.done("base", 1)
        records.append(record(1))
    assert read_records(tmp_path) == [record(0), record(1)]


def test_nothing_is_written_after_closing(tmp_path: Path) -> None:
    records = Records(tmp_path, FIELDS)
    records.close()
    records.close()
    with pytest.raises(OmnisinkError, match="the records are closed"):
        records.append(record(0))


def test_a_last_line_torn_at_any_byte_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    whole = fill(tmp_path, 2)
    third = whole.split(b"\n")[0].replace(b'"item":0', b'"item":2')
    for length in range(len(third) + 1):  # the last lacks its newline alone
        path.write_bytes(whole + third[:length])
        assert read_records(tmp_path) == [record(0), record(1)]
        assert path.read_bytes() == whole + third[:length], "reading changes nothing"
        with Records(tmp_path, FIELDS) as records:
            assert path.read_bytes() == whole
            records.append(record(2))
        assert [r["item"] for r in read_records(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("torn", [b"\0\0\0\n", b'{"arm":"ba\n', b"\xff\n", b'{"loss":NaN}\n', b"\0" * 50])
def test_a_last_line_without_sense_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    whole = fill(tmp_path, 2)
    (tmp_path / RECORDS).write_bytes(whole + torn)
    assert len(read_records(tmp_path)) == 2
    with Records(tmp_path, FIELDS):
        assert (tmp_path / RECORDS).read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\0\0", "it is not JSON"),
        (b"", "it is not JSON"),
        (b'{"loss":NaN}', "it is not JSON: NaN is not a number"),
        (b"[1]", "not a JSON object but list"),
    ],
)
@pytest.mark.parametrize("after", [b'{"arm":"base","item":5}\n', b'{"arm'])
def test_a_wrong_line_elsewhere_is_named(tmp_path: Path, line: bytes, reason: str, after: bytes) -> None:
    whole = fill(tmp_path, 2) + line + b"\n" + after
    (tmp_path / RECORDS).write_bytes(whole)
    for use in (read_records, lambda folder: Records(folder, FIELDS)):
        with pytest.raises(OmnisinkError, match=rf"records\.jsonl:3: {reason}"):
            use(tmp_path)
    assert (tmp_path / RECORDS).read_bytes() == whole
    (tmp_path / RECORDS).write_bytes(b"")
    Records(tmp_path, FIELDS).close()  # what failed has let go of the run


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b'{"arm":"base","item":1}', "a second record of arm 'base', item 1"), (b"{}", "a record without 'arm'")],
)
def test_a_record_that_is_none_of_this_run_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / RECORDS).write_bytes(fill(tmp_path, 2) + line + b"\n")
    with pytest.raises(OmnisinkError, match=rf"records\.jsonl:3: {reason}"):
        Records(tmp_path, FIELDS)


def test_a_folder_without_records_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="holds no records"):
        read_records(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OmnisinkError, match="file could not be made or locked"):
        Records(tmp_path / "file", FIELDS)


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=8)),
        max_size=5,
    )
)
def test_any_records_come_back(tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    numbered = [{**data, "number": i} for i, data in enumerate(made)]
    with Records(folder, ("number",)) as records:
        for data in numbered:
            records.append(data)
    assert read_records(folder) == numbered


def test_records_need_nothing_heavy() -> None:
    code = (
        "import sys, omnisink.results.records; "
        "sys.exit(', '.join({'torch', 'numpy', 'scipy', 'statsmodels', 'transformers'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
