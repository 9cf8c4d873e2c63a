"""The records of a study as what their units wrote."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from omnisink.results.checking import typed
from omnisink.results.schema import StudyRecord

Form = TypeVar("Form")


def records_as(form: type[Form], records: Iterable[StudyRecord]) -> list[Form]:
    """Return records as a form of `omnisink.results.schema`.

    Raises
    ------
    OmnisinkError
        If one is of another form, naming its key and the field.
    """
    return [typed(r, form, f"the record of {r['item']}, {r['question']}, {r['unit']}") for r in records]
