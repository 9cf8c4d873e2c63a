"""Several processes at one run: which questions are whose, and one set of records in the end.

`torchrun` starts the processes and gives each its rank. Nothing is sent between them: every rank writes records in a
folder of its own inside the run's, and whoever reads the run reads them all.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.results.records import RECORDS, read_records
from omnisink.results.schema import EVALUATION_KEY, EvaluationRecord

#: Seconds between checks that the launcher still runs.
_LOOK = 1.0


@dataclass(frozen=True)
class Rank:
    """Which of several processes this is.

    Attributes
    ----------
    rank, world : int
        Its number, and how many there are.
    local : int
        Its number on its machine, which is that of its accelerator.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """Read what `torchrun` says; without it there is one process.

        Raises
        ------
        OmnisinkError
            If the numbers make no sense.
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return cls()
        said = [environment.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        if not all(word.isdecimal() for word in said) or int(said[0]) >= int(said[1]):
            raise OmnisinkError(f"RANK, WORLD_SIZE and LOCAL_RANK say {', '.join(said)}, which is not a valid rank")
        return cls(*map(int, said))

    @property
    def first(self) -> bool:
        """Whether this one begins the run for all."""
        return self.rank == 0

    def device(self, given: str | None = None) -> str | None:
        """Return its model's device: the given one, else an accelerator of its own where there are several ranks."""
        if given is not None or self.world == 1:
            return given
        import torch

        return f"cuda:{self.local}" if torch.cuda.is_available() else None

    def folder(self, run: str | Path) -> Path:
        """Return where this rank's records are: in the run's own folder where it is the only one."""
        return Path(run) if self.world == 1 else Path(run) / f"part-{self.rank}-of-{self.world}"

    def share(self, instances: Sequence[Instance]) -> list[Instance]:
        """Return this rank's questions. Those about one video stay together, so that it is read once."""
        numbers: dict[str, int] = {}
        for instance in instances:
            numbers.setdefault(instance.cluster, len(numbers))
        return [instance for instance in instances if numbers[instance.cluster] % self.world == self.rank]


@dataclass(frozen=True)
class Picked:
    """Questions that somebody else has picked for this process.

    Attributes
    ----------
    name : str
        Name of the process, unique in the run.
    ids : frozenset of str
        The questions' ids.
    """

    name: str
    ids: frozenset[str]
    first = False

    def folder(self, run: str | Path) -> Path:
        """Return where this process's records are."""
        return Path(run) / f"part-{self.name}-of-many"

    def share(self, instances: Sequence[Instance]) -> list[Instance]:
        """Return the picked questions."""
        return [instance for instance in instances if instance.id in self.ids]


def read_parts(run: str | Path) -> list[EvaluationRecord]:
    """Read the records of a run, those of all its ranks, each question, method and attempt once.

    A question that two ranks answered, as can happen where a run is taken up by another number of ranks while some of
    the old still live, counts once: the record of the folder that comes first by name.

    Raises
    ------
    OmnisinkError
        If there are none, or a line is no record of an evaluation, or repeats the key of another in its file.
    """
    folders = [folder for folder in (Path(run), *sorted(Path(run).glob("part-*-of-*"))) if (folder / RECORDS).exists()]
    if not folders:
        raise OmnisinkError(f"{run} holds no records")
    found: dict[tuple[str, str, int], EvaluationRecord] = {}
    for folder in folders:
        for record in read_records(folder, EVALUATION_KEY, EvaluationRecord):
            found.setdefault((record["id"], record["method"], record["attempt"]), record)
    return list(found.values())


def failures(run: str | Path) -> list[EvaluationRecord]:
    """Return the last attempts that ended in an error, in the order of the records."""
    last: dict[tuple[str, str], EvaluationRecord] = {}
    for record in read_parts(run):
        there = last.get(key := (record["id"], record["method"]))
        if there is None or there["attempt"] < record["attempt"]:
            last[key] = record
    return [record for record in last.values() if record["error"] is not None]


def whole(run: str | Path, count: int) -> bool:
    """Return whether a run has records of `count` questions times methods, errors included."""
    return len({(record["id"], record["method"]) for record in read_parts(run)}) >= count


def end_with_launcher() -> None:
    """End this process when the one that started it is gone: `torchrun` that is killed leaves its ranks behind.

    What is lost is the batch that was with the model.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="omnisink-launcher", daemon=True).start()
