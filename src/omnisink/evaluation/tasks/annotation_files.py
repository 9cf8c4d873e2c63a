"""Files of annotations: JSON, JSON Lines and parquet, read as plain data with the place of every row."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.rows import Bad
from omnisink.extras import install

Json = dict[str, Any]
#: A byte order mark, which programs on Windows put at the beginning of a text.
_MARK = "\ufeff"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; an `OmnisinkError` names the file and what is wrong with it."""
    return _json(_text(path), path.name)


def read_rows(path: Path) -> Iterator[tuple[str, Json] | Bad]:
    """Read a list of objects, from JSON, JSON Lines or parquet.

    Yields
    ------
    (str, dict) or Bad
        File and row, counted from 1, with the object; or that this row is none.

    Raises
    ------
    OmnisinkError
        If the file cannot be read, or is no such list.
    """
    if path.suffix == ".parquet":
        for number, row in enumerate(_parquet(path), 1):
            yield f"{path.name}, row {number}", _clean(row)
        return
    text = _text(path)
    if text.lstrip()[:1] == "[" and not _goes_on(text):
        rows = _json(text, path.name)
        for number, row in enumerate(rows, 1):
            yield _checked(f"{path.name}, row {number}", row)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path.name}, line {number}"
            try:
                row = _json(line.strip(_MARK), where)
            except OmnisinkError as error:
                yield Bad(where, str(error).removeprefix(f"{where}: "))
            else:
                yield _checked(where, row)


def _checked(where: str, row: Any) -> tuple[str, Json] | Bad:
    if not isinstance(row, dict):
        return Bad(where, f"not a JSON object but {type(row).__name__}")
    return where, _clean(row)


def _clean(row: Json) -> Json:
    """Take byte order marks off keys and texts: tables that were joined have them in the middle of a file."""
    return {k.lstrip(_MARK): v.lstrip(_MARK) if isinstance(v, str) else v for k, v in row.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise OmnisinkError(f"{path}: it is not UTF-8; save it in that encoding") from None
    except (OSError, ValueError) as error:
        raise OmnisinkError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _goes_on(text: str) -> bool:
    """Tell whether a list is the first of several lines, and not the whole file."""
    first, _, rest = text.strip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OmnisinkError(f"{where}: it is not JSON: {error}") from None


def _parquet(path: Path) -> list[Json]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise OmnisinkError(
            f"{path.name} is a parquet file, and reading it needs pyarrow. Install with: {install('eval')}"
        ) from None
    try:
        rows: list[Json] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, ArithmeticError) as error:  # pyarrow's own errors are the first two
        raise OmnisinkError(f"{path}: cannot be read as parquet: {str(error).splitlines()[0]}") from None
    return rows
