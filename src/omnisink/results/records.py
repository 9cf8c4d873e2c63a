"""Append-only records of a run that can be killed at any moment and goes on where it was.

A run is a folder: ``manifest.json`` says what was run, ``records.jsonl`` holds one JSON object a line. A record is on
the disk once `Records.append` has returned; whatever a kill leaves behind it is a torn last line, which is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn

from omnisink.errors import OmnisinkError
from omnisink.results.disk import hold, sync_folder, told, write, write_whole

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
        The fields that together name a record, as ``("question", "item", "arm")``. Their values are texts, numbers,
        true, false or null.

    Raises
    ------
    OmnisinkError
        If another process holds the run, or a line other than a torn last one is no record or repeats a key.

    Examples
    --------
    >>> with Records(folder, fields=("item", "arm")) as records:
    ...     for item in items:
    ...         if not records.done(item.id, "base"):
    ...             records.append({"item": item.id, "arm": "base", "loss": measure(item)})
    """

    def __init__(self, folder: str | Path, fields: Sequence[str]) -> None:
        self.path = Path(folder) / RECORDS
        self.fields = tuple(fields)
        self._keys: set[Key] = set()
        with ExitStack() as undo:
            undo.callback(hold(Path(folder)).release)
            with told(self.path, "opened"):
                self._file: BinaryIO = undo.enter_context(self.path.open("a+b", buffering=0))
            self._take_up()
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
        """Tell whether there is a record with these values of the key fields, in their order."""
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
            it was.
        """
        if self._file.closed:
            raise OmnisinkError(f"{self.path}: the records are closed")
        line = _json("a record", record, separators=(",", ":"))
        key = _key(record, self.fields)
        if key in self._keys:
            raise OmnisinkError(f"{self.path}: there is a record of {self._name(key)} already")
        end = self._file.seek(0, os.SEEK_END)
        try:
            with told(self.path, "written"):
                write(self._file, line)
        except BaseException:
            self._cut(end)
            raise
        self._keys.add(key)

    def close(self) -> None:
        """Let go of the run; a second call does nothing."""
        self._held.close()

    def _take_up(self) -> None:
        """Read what is there, and cut off a torn last line."""
        lines, whole = _lines(self.path)
        for number, record in lines:
            try:
                key = _key(record, self.fields)
            except OmnisinkError as error:
                raise OmnisinkError(f"{self.path}:{number}: {error}") from None
            if key in self._keys:
                raise OmnisinkError(f"{self.path}:{number}: a second record of {self._name(key)}")
            self._keys.add(key)
        with told(self.path, "written"):
            self._file.truncate(whole)
            os.fsync(self._file.fileno())
            sync_folder(self.path.parent)

    def _cut(self, end: int) -> None:
        """Take back what an interrupted write left; where that fails too, nothing more may follow it."""
        try:
            self._file.truncate(end)
        except OSError:
            self.close()

    def _name(self, key: Key) -> str:
        return ", ".join(f"{field} {value!r}" for field, value in zip(self.fields, key, strict=True))


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
    with hold(folder):
        if not path.exists():
            if (folder / RECORDS).exists():
                raise OmnisinkError(f"{folder} holds records of a run without its {MANIFEST}; use another folder")
            write_whole(path, text)
        there, wanted = _read_manifest(path), json.loads(text)
    old, new = dict(_leaves(there)), dict(_leaves(wanted))
    differ = [
        f"  {key}: was {_shown(old, key)}, is {_shown(new, key)}"
        for key in dict.fromkeys([*old, *new])
        if not _ignored(key, ignored) and (key in old, old.get(key)) != (key in new, new.get(key))
    ]
    if differ:
        lines = "\n".join(differ)
        raise OmnisinkError(f"{folder} holds a run that was begun otherwise; use another folder, or as then:\n{lines}")
    return there


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read what a run says of itself.

    Raises
    ------
    OmnisinkError
        If the folder holds no run, or its manifest cannot be read.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise OmnisinkError(f"{folder} holds no run: there is no {MANIFEST} in it")
    return _read_manifest(path)


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """Read the records of a run, also while it goes on; a torn last line is left out and left as it is.

    Raises
    ------
    OmnisinkError
        If there are none, or a line is no record; the message names it.
    """
    path = Path(folder) / RECORDS
    if not path.exists():
        raise OmnisinkError(f"{folder} holds no records")
    return [record for _, record in _lines(path)[0]]


def _lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """Return the records with the numbers of their lines, and how many bytes they take."""
    with told(path, "read"):
        content = path.read_bytes()
    # What follows the last newline was being written when the process ended. A last line that is no JSON is what a
    # loss of power can leave, where the file grew before its content arrived.
    *lines, tail = content.split(b"\n")
    records: list[tuple[int, dict[str, Any]]] = []
    whole = 0
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line.decode("utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and not tail:
                break
            raise OmnisinkError(f"{path}:{number}: it is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise OmnisinkError(f"{path}:{number}: not a JSON object but {type(record).__name__}")
        records.append((number, record))
        whole += len(line) + 1
    return records, whole


def _json(what: str, data: Mapping[str, Any], **layout: Any) -> bytes:
    try:
        return json.dumps(dict(data), ensure_ascii=False, allow_nan=False, **layout).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise OmnisinkError(f"{what} cannot be written as JSON: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _key(record: Mapping[str, Any], fields: tuple[str, ...]) -> Key:
    for field in fields:
        if field not in record:
            raise OmnisinkError(f"a record without {field!r}, which is part of its key")
        if not isinstance(record[field], str | int | float | None):
            raise OmnisinkError(f"{field} is part of a key and must be a text or a number, got {record[field]!r}")
    return tuple(record[field] for field in fields)


def _read_manifest(path: Path) -> dict[str, Any]:
    with told(path, "read"):
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise OmnisinkError(f"{path}: it is not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise OmnisinkError(f"{path}: not a JSON object but {type(manifest).__name__}")
    return manifest


def _leaves(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a nested object holds, under keys like ``model.device``."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _ignored(key: str, ignored: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ignored)


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return "missing"
    text = json.dumps(leaves[key], ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
