"""The comparison of two manifests: the one that a run was begun with, and the one that it is to be resumed with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError


def compare(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any], ignored: set[str]) -> None:
    """Refuse a run that was begun with another manifest.

    Parameters
    ----------
    folder : Path
        Folder of the run, for the error.
    there, wanted : mapping
        The manifest that it was begun with, and the one that it is to be resumed with.
    ignored : set of str
        Keys that may differ; a key inside another is written as ``"model.device"``.

    Raises
    ------
    OmnisinkError
        Naming the keys that differ and both values.
    """
    old, new = dict(_leaves(there)), dict(_leaves(wanted))
    differ = [
        f"  {key}: was {_shown(old, key)}, is {_shown(new, key)}"
        for key in dict.fromkeys([*old, *new])
        if not _ignored(key, ignored) and (key in old, old.get(key)) != (key in new, new.get(key))
    ]
    if differ:
        lines = "\n".join(differ)
        raise OmnisinkError(f"{folder} holds a run that was begun otherwise; use another folder, or as then:\n{lines}")


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
