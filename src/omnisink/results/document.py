"""Results that are one JSON document: a dictionary that can be saved, loaded, and asked for what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omnisink.errors import OmnisinkError, reason, shown
from omnisink.results.disk import atomic_write
from omnisink.results.reading import parse_object, read_whole

if TYPE_CHECKING:
    from typing_extensions import Self


class Document(dict[str, Any]):
    """Plain data in a form that has a name, with the verbs of a result."""

    #: Name of the form, and of the file in the folder of a run.
    FORMAT: ClassVar[str]
    FILE: ClassVar[str]
    #: What it is called in errors.
    KIND: ClassVar[str]

    def save(self, path: str | Path) -> Path:
        """Write the results as JSON.

        Parameters
        ----------
        path : str or Path
            The file; one that is there is replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OmnisinkError
            If it cannot be written, or holds what JSON cannot.
        """
        try:
            text = json.dumps(self, ensure_ascii=False, allow_nan=False, indent=1)
        except (TypeError, ValueError, RecursionError) as error:
            raise OmnisinkError(f"cannot write {path}: the results are not plain data: {error}") from error
        # A text of a model can hold half a surrogate pair, which has no place in a file.
        atomic_write(Path(path), f"{text}\n".encode(errors="backslashreplace"))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read results.

        Parameters
        ----------
        path : str or Path
            The file, or the folder that it was written to.

        Returns
        -------
        Document
            Equal to what was written.

        Raises
        ------
        OmnisinkError
            If the file cannot be read, or holds something else.
        """
        file = Path(path) / cls.FILE if Path(path).is_dir() else Path(path)
        data = parse_object(read_whole(file), file)
        if data.get("format") != cls.FORMAT:
            raise OmnisinkError(
                f"{file} is not {cls.KIND}: its format is {shown(data.get('format'))}, not {cls.FORMAT!r}"
            )
        return cls(data)

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn what a changed document lacks into an error that says so."""
        try:
            yield
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise OmnisinkError(
                f"{what} cannot be read from these results, which lack a part: {reason(error)}"
            ) from error
