"""Append-only records of a run that can be killed at any moment and goes on where it was.

A run is a folder: ``manifest.json`` says what was run, ``records.jsonl`` holds one JSON object a line. A record is on
the disk once `Records.append` has returned; whatever a kill leaves behind it is a torn last line, which is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, overload

from omnisink.errors import OmnisinkError
from omnisink.results.checking import Form, check
from omnisink.results.disk import (
    atomic_write,
    check_folder,
    in_place,
    lock_run,
    os_errors_named,
    rescue,
    sync_folder,
    write,
)
from omnisink.results.manifest import compare
from omnisink.results.reading import parse_json, parse_object, read_whole

MANIFEST = "manifest.json"
RECORDS = "records.jsonl"

#: The values of a record's key fields, in the order of the fields.
Key = tuple[Any, ...]


class Records:
    """The records of one run, held by one process at a time.

    Parameters
    ----------
    folder : str or Path
        The folder of the run; it is made if need be.
    fields : sequence of str
        The fields that together name a record, as ``("question", "item", "unit")``. Their values are texts, numbers,
        true, false or null.
    form : type, optional
        What a record must be; see `omnisink.results.checking.check`.

    Raises
    ------
    OmnisinkError
        If another process holds the run, or a line other than a torn last one is not a record or repeats a key.

    Examples
    --------
    >>> with Records(folder, fields=("item", "unit")) as records:
    ...     for item in items:
    ...         if not records.done(item.id, "base"):
    ...             records.append({"item": item.id, "unit": "base", "loss": measure(item)})
    """

    def __init__(self, folder: str | Path, fields: Sequence[str], form: Any = None) -> None:
        self.path = Path(folder) / RECORDS
        self.fields = tuple(fields)
        self._keys: set[Key] = set()
        with ExitStack() as undo:
            undo.callback(lock_run(Path(folder)).release)
            with os_errors_named(self.path, "opened"):
                self._file: BinaryIO = undo.enter_context(self.path.open("a+b", buffering=0))
            manifest = self.path.with_name(MANIFEST)
            self._beside = {MANIFEST: read_whole(manifest)} if manifest.exists() else {}
            self._load_existing(form)
            self._held = undo.pop_all()

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> frozenset[Key]:
        """The keys of all records."""
        return frozenset(self._keys)

    def done(self, *key: Any) -> bool:
        """Return whether there is a record with these values of the key fields, in their order."""
        if len(key) != len(self.fields):
            raise OmnisinkError(f"a key has the fields {', '.join(self.fields)}, got {key!r}")
        return key in self._keys

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record, and return once it is on the disk.

        Parameters
        ----------
        record : mapping
            What JSON can hold. A missing number is None: NaN and infinities are refused, because a mean that became
            NaN is an error to be seen where it was made.

        Raises
        ------
        OmnisinkError
            If a record with this key is there, the record is not JSON, or it cannot be written; the file is then as
            it was. If the file was removed or moved meanwhile; the message says where the records are now.
        """
        if self._file.closed:
            raise OmnisinkError(f"{self.path}: the records are closed")
        line = _json("a record", record, separators=(",", ":"))
        key = _key(record, self.fields)
        if key in self._keys:
            raise OmnisinkError(f"{self.path}: there is a record of {self._name(key)} already")
        end = self._file.seek(0, os.SEEK_END)
        try:
            with os_errors_named(self.path, "written"):
                write(self._file, line)
        except BaseException:
            self._cut(end)
            raise
        self._keys.add(key)
        if not in_place(self._file, self.path):
            self._lost()

    def close(self) -> None:
        """Let go of the run; a second call does nothing."""
        self._held.close()

    def _load_existing(self, form: Any) -> None:
        """Read what is there, and cut off a torn last line."""
        lines, whole = _lines(self.path, form)
        self._keys = _keys(self.path, lines, self.fields)
        with os_errors_named(self.path, "written"):
            self._file.truncate(whole)
            os.fsync(self._file.fileno())
            sync_folder(self.path.parent)

    def _lost(self) -> None:
        """Keep what can be kept of a file that is no longer where it was, and stop."""
        saved = rescue(self._file, self.path, self._beside)
        left = os.fstat(self._file.fileno()).st_nlink
        self.close()
        if saved is not None:
            kept = f"The records so far are kept in {saved}, which can be gone on with"
        elif left:
            kept = "They lie where they were moved to"
        else:
            kept = "They could not be kept"
        raise OmnisinkError(f"{self.path} was removed or moved while it was being written. {kept}")

    def _cut(self, end: int) -> None:
        """Take back what an interrupted write left; where that fails too, nothing more may follow it."""
        try:
            self._file.truncate(end)
        except OSError:
            self.close()

    def _name(self, key: Key) -> str:
        return _named(self.fields, key)


def start(folder: str | Path, manifest: Mapping[str, Any], ignore: Iterable[str] = ("started",)) -> dict[str, Any]:
    """Begin a run, or take one up that was begun with the same manifest. Call it before `Records`.

    Parameters
    ----------
    folder : str or Path
        The folder of the run; it is made if need be.
    manifest : mapping
        All that the records depend on: model, data, settings, seed, versions. What JSON can hold, without NaN.
    ignore : iterable of str
        Keys that may differ; a key inside another is written as ``"model.device"``.

    Returns
    -------
    dict
        The manifest of the run, as it was when the run began.

    Raises
    ------
    OmnisinkError
        If the run was begun with another manifest, naming the keys and both values; if there are records without a
        manifest; if another process holds the run; or the manifest cannot be read or written.
    """
    folder, ignored = Path(folder), set(ignore)
    path = folder / MANIFEST
    text = _json("the manifest", manifest, indent=1)
    with lock_run(folder):
        if not path.exists():
            if (folder / RECORDS).exists():
                raise OmnisinkError(f"{folder} holds records of a run without its {MANIFEST}; use another folder")
            atomic_write(path, text)
        there = parse_object(read_whole(path), path)
    compare(folder, there, json.loads(text), ignored)
    return there


def check_start(folder: str | Path, manifest: Mapping[str, Any], ignore: Iterable[str] = ("started",)) -> None:
    """Refuse a folder that `start` would refuse, before anything is made or begun; arguments and errors as there."""
    folder = Path(folder)
    check_folder(folder)
    wanted = json.loads(_json("the manifest", manifest))
    if (folder / MANIFEST).exists():
        compare(folder, read_manifest(folder), wanted, set(ignore))
    elif (folder / RECORDS).exists():
        raise OmnisinkError(f"{folder} holds records of a run without its {MANIFEST}; use another folder")


def read_manifest(folder: str | Path, form: Any = None) -> dict[str, Any]:
    """Read what a run says of itself.

    Parameters
    ----------
    folder : str or Path
        The folder of the run.
    form : type, optional
        What it must be; see `omnisink.results.checking.check`.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    OmnisinkError
        If the folder holds no run, or its manifest cannot be read or is of another form.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise OmnisinkError(f"{folder} holds no run: there is no {MANIFEST} in it")
    found = parse_object(read_whole(path), path)
    if form is not None:
        check(found, form, str(path))
    return found


@overload
def read_records(folder: str | Path, fields: Sequence[str] = (), form: None = None) -> list[dict[str, Any]]: ...
@overload
def read_records(folder: str | Path, fields: Sequence[str], form: type[Form]) -> list[Form]: ...
def read_records(folder: str | Path, fields: Sequence[str] = (), form: Any = None) -> Any:
    """Read the records of a run, also while it goes on; a torn last line is left out and left as it is.

    Parameters
    ----------
    folder : str or Path
        The folder of the run.
    fields : sequence of str
        The fields that together name a record, which then has to be the only one of its name; none are not checked.
    form : type, optional
        What a record must be; see `omnisink.results.checking.check`.

    Returns
    -------
    list of dict
        In the order of the file.

    Raises
    ------
    OmnisinkError
        If there are none, or a line is not a record, is of another form or repeats a key; the message names it.
    """
    path = Path(folder) / RECORDS
    if not path.exists():
        raise OmnisinkError(f"{folder} holds no records")
    lines, _ = _lines(path, form)
    if fields:
        _keys(path, lines, fields)
    return [record for _, record in lines]


def _keys(path: Path, lines: Iterable[tuple[int, Mapping[str, Any]]], fields: Sequence[str]) -> set[Key]:
    """Return the keys of records, each of which may be there once."""
    found: set[Key] = set()
    for number, record in lines:
        try:
            key = _key(record, fields)
        except OmnisinkError as error:
            raise OmnisinkError(f"{path}:{number}: {error}") from None
        if key in found:
            raise OmnisinkError(f"{path}:{number}: a second record of {_named(fields, key)}")
        found.add(key)
    return found


def _named(fields: Sequence[str], key: Key) -> str:
    return ", ".join(f"{field} {value!r}" for field, value in zip(fields, key, strict=True))


def _lines(path: Path, form: Any = None) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """Return the records with the numbers of their lines, and how many bytes they take."""
    content = read_whole(path)
    # What follows the last newline was being written when the process ended. A last line that is not JSON is what a
    # loss of power can leave, where the file grew before its content arrived.
    *lines, tail = content.split(b"\n")
    records: list[tuple[int, dict[str, Any]]] = []
    whole = 0
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            record = parse_json(line, where)
        except OmnisinkError:
            if number == len(lines) and not tail:
                break
            raise
        if not isinstance(record, dict):
            raise OmnisinkError(f"{where}: not a JSON object but {type(record).__name__}")
        if form is not None:
            check(record, form, where)
        records.append((number, record))
        whole += len(line) + 1
    return records, whole


def _json(what: str, data: Mapping[str, Any], **layout: Any) -> bytes:
    try:
        return json.dumps(dict(data), ensure_ascii=False, allow_nan=False, **layout).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise OmnisinkError(f"{what} cannot be written as JSON: {error}") from None


def _key(record: Mapping[str, Any], fields: Sequence[str]) -> Key:
    for field in fields:
        if field not in record:
            raise OmnisinkError(f"a record without {field!r}, which is part of its key")
        if not isinstance(record[field], str | int | float | None):
            raise OmnisinkError(f"{field} is part of a key and must be a text or a number, got {record[field]!r}")
    return tuple(record[field] for field in fields)
