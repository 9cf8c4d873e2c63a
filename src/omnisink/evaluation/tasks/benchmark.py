"""Benchmarks: what a task is, and how its questions are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.places import find_file, has_sound
from omnisink.evaluation.tasks.protocol import Protocol
from omnisink.evaluation.tasks.rows import LETTERS, Bad, Left, Outcome, Row, Source

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
        Rows that are no questions of the task, and why; all of them, whatever the limit.
    """

    instances: list[Instance]
    left_out: list[Left]


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes
    ----------
    name, title : str
        For the command line, and for people.
    paper, licence : str
        Where it is described; on what terms it may be used.
    size : str
        Questions and videos, in words.
    needs : tuple of str
        Modalities, of ``"video"``, ``"audio"`` and ``"image"``.
    sources : tuple of str
        Where its annotations and media are.
    layout : str
        What the data folder holds.
    loader : str
        Name of a loader.
    fields : mapping
        What the loader is told.
    annotations : mapping of str to tuple of str
        For each split, names of its file, the likeliest first; the first split is the default.
    sound : {"always", "never", "if-there", "own"}
        Of videos: given to the model, left out, given where the video has any, or in a file of its own or not at all.
    metric : str
        Name of a metric; see `omnisink.evaluation.tasks.metrics`.
    mean_over : str
        The field of groups that the metric averages over; empty where it averages over questions.
    breakdowns : tuple of str
        Fields of groups that results are reported by.
    counts : mapping
        For each split, how many questions there should be: ``questions``, ``videos``, and by fields of groups.
    protocols : mapping of str to Protocol
        The ways of asking.
    default : str
        The protocol that is used where none is named.
    notes : tuple of str
        What is particular about the data.
    """

    name: str
    title: str
    paper: str
    licence: str
    size: str
    needs: tuple[str, ...]
    sources: tuple[str, ...]
    layout: str
    loader: str
    fields: Mapping[str, Any]
    annotations: Mapping[str, tuple[str, ...]]
    sound: Literal["always", "never", "if-there", "own"]
    metric: str
    breakdowns: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    default: str
    mean_over: str = ""
    counts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits; the first is the default."""
        return tuple(self.annotations)

    def protocol(self, name: str | None = None) -> Protocol:
        """Return a protocol by its name, or the default; an `OmnisinkError` names those there are."""
        name = name or self.default
        if name not in self.protocols:
            raise OmnisinkError(f"{self.name} has no protocol {name!r}: use {', '.join(self.protocols)}")
        return self.protocols[name]

    def check_split(self, split: str | None = None) -> str:
        """Return the name of a split, or of the default; an `OmnisinkError` names those there are."""
        split = split or self.splits[0]
        if split not in self.annotations:
            raise OmnisinkError(f"{self.name} has no split {split!r}: use {', '.join(self.splits)}")
        return split

    def facts(self, protocol: str | None = None, split: str | None = None) -> dict[str, Any]:
        """Return what a record of a run says of the task, as plain data.

        Parameters
        ----------
        protocol, split : str, optional
            Names; None is the default.

        Returns
        -------
        dict
            Names of the task, its split and its protocol, with the protocol in full, and how its number is made.
        """
        asked = self.protocol(protocol)
        return {
            "name": self.name,
            "title": self.title,
            "split": self.check_split(split),
            "protocol": asked.name,
            "prompt": asdict(asked),
            "metric": self.metric,
            "mean_over": self.mean_over,
            "breakdowns": list(self.breakdowns),
        }

    def load(self, data: str | Path | None = None, protocol: str | None = None, **options: Any) -> list[Instance]:
        """Return the instances of `read`, and nothing else."""
        return self.read(data, protocol, **options).instances

    def read(
        self,
        data: str | Path | None = None,
        protocol: str | None = None,
        *,
        split: str | None = None,
        limit: int | None = None,
        where: Mapping[str, str] | None = None,
        allow_missing: bool = False,
        progress: Progress | None = None,
    ) -> Questions:
        """Load questions.

        Parameters
        ----------
        data : str or Path, optional
            The data folder. SynthAV needs none: without one, its clips are rendered into the cache.
        protocol, split : str, optional
            Names; None is the default.
        limit : int, optional
            The first so many questions, in the order of the annotations, of those that `where` names. For SynthAV
            without a folder: a draw of so many questions, spread over its categories.
        where : mapping of str to str, optional
            Only questions of these groups, as ``{"task": "AV Matching"}``.
        allow_missing : bool
            Take questions whose files are missing all the same; asking one is then an error of its own.
        progress : callable, optional
            Called with how many are done, how many there are and what they are, where loading takes long.

        Returns
        -------
        Questions
            The instances, and rows that are no questions.

        Raises
        ------
        OmnisinkError
            If a name is unknown, the folder lacks the annotations, a row is wrong, an id is there twice, a file is
            missing or outside the folder, or there is no question.
        """
        asked, split = self.protocol(protocol), self.check_split(split)
        if limit is not None and limit < 1:
            raise OmnisinkError(f"the number of questions must be positive, got {limit}")
        if self.loader == "items":
            from omnisink.evaluation.tasks.own import read_own

            return Questions(_matching(read_own(self, asked), where, limit, self.name), [])
        if data is None and self.loader == "synthav":
            from omnisink.evaluation.tasks.synthav_task import draw_rows

            folder, outcomes = draw_rows(self, split, limit, progress)
        else:
            folder = self.folder(data)
            outcomes = list(self.outcomes(folder, split))
        _refuse_bad(self.name, outcomes)
        rows = _matching([o for o in outcomes if isinstance(o, Row)], where, limit, self.name)
        sounding: dict[Path, bool] = {}
        instances, missing = [], []
        for number, row in enumerate(rows):
            instance = self.instance(row, asked, folder, sounding)
            missing += [p for p in files_of(instance) if not p.is_file()]
            instances.append(instance)
            if progress is not None and self.sound == "if-there":
                progress(number + 1, len(rows), "videos looked at")
        if missing and not allow_missing:
            missing = list(dict.fromkeys(missing))
            raise OmnisinkError(
                f"{self.name}: {len(missing)} of its files are missing, the first being {missing[0]}. "
                f"`omnisink tasks check {self.name} --data DIR` lists what is missing"
            )
        return Questions(instances, [o for o in outcomes if isinstance(o, Left)])

    def folder(self, data: str | Path | None) -> Path:
        """Return the data folder, resolved; an `OmnisinkError` says what it should be."""
        if data is None and self.loader == "synthav":
            raise OmnisinkError(
                f"{self.name} needs no folder, its clips are rendered when they are asked about; to check one, give "
                "it with --data"
            )
        if data is None:
            raise OmnisinkError(f"{self.name} needs its data: give the folder with --data. It holds: {self.layout}")
        path = Path(data)
        if not path.is_dir():
            raise OmnisinkError(f"{data}: there is no such folder")
        return path.resolve()

    def outcomes(self, folder: Path, split: str) -> Iterable[Outcome]:
        """Yield what every row of the annotations is; an id that was used before makes a row wrong.

        Raises
        ------
        OmnisinkError
            If there is no file of annotations, or it cannot be read at all.
        """
        from omnisink.evaluation.tasks.loaders import LOADERS

        names = self.annotations[split]
        file = next((folder / name for name in names if (folder / name).is_file()), None)
        if names and file is None:
            raise OmnisinkError(f"{folder}: the annotations of {self.name} are not there: {' or '.join(names)}")
        seen: dict[str, str] = {}
        for outcome in LOADERS["listed" if self.loader == "synthav" else self.loader](
            Source(folder, file, self.fields)
        ):
            if isinstance(outcome, Row):
                if outcome.id in seen:
                    yield Bad(outcome.where, f"the id {outcome.id!r} was used before, in {seen[outcome.id]}")
                    continue
                seen[outcome.id] = outcome.where
            yield outcome

    def instance(self, row: Row, protocol: Protocol, folder: Path, sounding: dict[Path, bool]) -> Instance:
        """Put a row into words.

        Parameters
        ----------
        row : Row
            The question.
        protocol : Protocol
            How it is asked.
        folder : Path
            The data folder, resolved.
        sounding : dict of Path to bool
            Which videos have sound, as far as is known; it is added to.

        Returns
        -------
        Instance
            The question as it is asked.

        Raises
        ------
        OmnisinkError
            If a file is outside the folder.
        """
        try:
            video, audio, image = (find_file(folder, n) if n else None for n in (row.video, row.audio, row.image))
        except OmnisinkError as error:
            raise OmnisinkError(f"{row.where}: {error}") from None
        heard: Path | Literal[False] | None = audio
        if audio is None and (video is None or not self._hears(video, sounding)):
            heard = False
        asked = protocol.of_kind(row.kind)
        answers = {"choice": tuple(LETTERS[: len(row.options)]), "yes-no": ("yes", "no"), "words": row.words}
        first = next(iter((*row.video, *row.audio, *row.image)), row.id)
        return Instance(
            id=row.id,
            text=asked.words(row, heard is not False),
            gold=row.gold,
            answers=answers.get(row.kind, ()),
            parser=asked.parser,
            cluster=row.cluster or first,
            video=video,
            image=image,
            audio=heard,
            system=asked.system,
            text_first=asked.text_first,
            reply=asked.reply,
            max_new_tokens=asked.max_new_tokens,
            options=row.options,
            groups=row.groups,
        )

    def _hears(self, video: Path, sounding: dict[Path, bool]) -> bool:
        if self.sound == "if-there":
            if video not in sounding:
                sounding[video] = has_sound(video)
            return sounding[video]
        return self.sound == "always"


def files_of(instance: Instance) -> list[Path]:
    """Return the files that an instance names."""
    return [p for p in (instance.video, instance.audio, instance.image) if isinstance(p, Path)]


def _refuse_bad(name: str, outcomes: Iterable[Outcome]) -> None:
    bad = [o for o in outcomes if isinstance(o, Bad)]
    if bad:
        more = f", and {len(bad) - 1} more rows; `omnisink tasks check {name} --data DIR` lists all" if bad[1:] else ""
        raise OmnisinkError(f"{bad[0].where}: {bad[0].why}{more}")


def _matching(found: list[Any], where: Mapping[str, str] | None, limit: int | None, name: str) -> list[Any]:
    """Return those of the given groups, up to the limit."""
    for key, value in (where or {}).items():
        found = [f for f in found if value in f.groups.get(key, ())]
    if not found:
        raise OmnisinkError(f"{name}: no question is left" + (f" with {dict(where)}" if where else ""))
    return found[:limit]
