"""What was loaded of a task: questions to be asked, and the rows that are not questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.odd import LeftOutError, OddRows
from omnisink.evaluation.tasks.rows import Bad, Left, Outcome, Row

#: How many items are done, how many there are, and what they are.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Questions:
    """What was loaded of a task.

    Attributes
    ----------
    instances : list of Instance
        In the order of the annotations.
    left_out : list of Left
        Rows that are not questions of the task, and why; all of them, whatever the limit.
    bad : list of Bad
        Rows that cannot be asked, and why; all of them, too.
    remarks : list of str
        A line for each kind of row that is left out, cannot be asked, or is odd and asked all the same: how many there
        are, and the first of them.
    """

    instances: list[Instance]
    left_out: list[Left]
    bad: list[Bad] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def files_of(instance: Instance) -> list[Path]:
    """Return the files that an instance names."""
    return [p for p in (instance.video, instance.audio, instance.image) if isinstance(p, Path)]


def with_own_id(row: Row, seen: Mapping[str, str], odd: OddRows) -> Outcome:
    """Return the row with an id that no row before it has: "7" is "7/2" the second time; or why there is none."""
    if row.id not in seen:
        return row
    try:
        odd.meet("repeated_id", f"the id {row.id!r} was used before, in {seen[row.id]}")
    except LeftOutError as error:
        return Left(row.where, str(error))
    except OmnisinkError as error:
        return Bad(row.where, str(error))
    number = next(n for n in count(2) if f"{row.id}/{n}" not in seen)
    return replace(row, id=f"{row.id}/{number}", odd=(*row.odd, *odd.taken()))


def matching(
    found: list[Any], where: Mapping[str, str] | None, limit: int | None, name: str, bad: Sequence[Bad]
) -> list[Any]:
    """Return those of the given groups, up to the limit."""
    for key, value in (where or {}).items():
        found = [f for f in found if value in f.groups.get(key, ())]
    if not found:
        why = f"; rows that cannot be asked: {len(bad):,}, the first being {bad[0].where}: {bad[0].why}" if bad else ""
        raise OmnisinkError(f"{name}: no question is left" + (f" with {dict(where)}" if where else "") + why)
    return found[:limit]
