"""Benchmarks: what a task is, and how its questions are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.odd import OddRows
from omnisink.evaluation.tasks.paths import StrayLinkError, find_file, has_sound, is_file
from omnisink.evaluation.tasks.protocol import Protocol
from omnisink.evaluation.tasks.questions import Progress, Questions, files_of, matching, with_own_id
from omnisink.evaluation.tasks.remarks import remarks
from omnisink.evaluation.tasks.rows import Bad, Left, Missing, Outcome, Row, Source
from omnisink.questions.letters import LETTERS


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
    odd_rows : mapping of str to str
        What is done with rows that are odd; see `omnisink.evaluation.tasks.odd`.
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
    odd_rows: Mapping[str, str] = field(default_factory=dict)

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

    def check_data(
        self, data: str | Path | None = None, protocol: str | None = None, split: str | None = None
    ) -> None:
        """Refuse unknown names, and a data folder without annotations, before anything is read.

        Parameters
        ----------
        data, protocol, split
            As for `read`.

        Raises
        ------
        OmnisinkError
            Says what is wrong.
        """
        self.protocol(protocol)
        split = self.check_split(split)
        if self.loader != "items" and not (self.loader == "synthav" and data is None):
            self._annotations(self.folder(data), split)

    def opens_clips(self, data: str | Path | None = None) -> bool:
        """Whether `read` opens videos, or renders some, which takes its time."""
        return self.sound == "if-there" or (self.loader == "synthav" and data is None)

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
        """Load questions. A row that cannot be asked is left out and told; it does not stop the others.

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
            Take questions whose files are missing all the same; asking one is then an error of its own. Questions
            whose annotations are missing, or whose files a link puts outside the folder, are left out.
        progress : callable, optional
            Called with how many are done, how many there are and what they are, where loading takes long.

        Returns
        -------
        Questions
            The instances, and rows that are none.

        Raises
        ------
        OmnisinkError
            If a name is unknown, the folder lacks the annotations, a file is missing, a link leads out of the folder,
            or there is no question that can be asked.
        """
        asked, split = self.protocol(protocol), self.check_split(split)
        if limit is not None and limit < 1:
            raise OmnisinkError(f"the number of questions must be positive, got {limit}")
        outcomes: list[Outcome | Instance]
        if self.loader == "items":
            from omnisink.evaluation.tasks.items import scan_own

            folder, outcomes = Path(self.fields["path"]).resolve().parent, list(scan_own(self, asked))
        elif data is None and self.loader == "synthav":
            from omnisink.evaluation.tasks.synthav_task import draw_rows

            folder, drawn = draw_rows(self, split, limit, progress)
            outcomes = [*drawn]
        else:
            folder = self.folder(data)
            outcomes = list(self.outcomes(folder, split))
        bad = [o for o in outcomes if isinstance(o, Bad)]
        if (absent := next((b for b in bad if isinstance(b, Missing)), None)) and not allow_missing:
            raise OmnisinkError(f"{absent.where}: {absent.why}")
        rows = matching([o for o in outcomes if isinstance(o, Row | Instance)], where, limit, self.name, bad)
        sounding: dict[Path, bool] = {}
        instances: list[Instance] = []
        for number, row in enumerate(rows):
            try:
                made = row if isinstance(row, Instance) else self.instance(row, asked, folder, sounding)
            except OmnisinkError as error:
                assert isinstance(row, Row)
                if isinstance(error, StrayLinkError) and not allow_missing:
                    raise OmnisinkError(f"{self.name}: {error}") from None
                bad.append(Bad(row.where, str(error)))
            else:
                instances.append(made)
            if progress is not None and self.sound == "if-there":
                progress(number + 1, len(rows), "videos looked at")
        if not instances:
            matching([], where, limit, self.name, bad)
        missing = list(dict.fromkeys(p for i in instances for p in files_of(i) if not is_file(p)))
        if missing and not allow_missing:
            named = str(self.fields["path"]) if self.loader == "items" else f"{self.name} --data DIR"
            raise OmnisinkError(
                f"{self.name}: {len(missing)} of its files are missing, the first being {missing[0]}. "
                f"`omnisink tasks check {named}` lists what is missing"
            )
        told = [o for o in outcomes if isinstance(o, Row | Left)]
        left = [o for o in outcomes if isinstance(o, Left)]
        return Questions(instances, left, bad, remarks(self, [*told, *bad]))

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
        """Yield what every row of the annotations is; an id that was used before makes a row odd.

        Raises
        ------
        OmnisinkError
            If there is no file of annotations, or it cannot be read at all.
        """
        from omnisink.evaluation.tasks.loaders import LOADERS

        file = self._annotations(folder, split)
        seen: dict[str, str] = {}
        odd = OddRows(self.odd_rows)
        loader = LOADERS["listed" if self.loader == "synthav" else self.loader]
        for outcome in loader(Source(folder, file, self.fields, odd)):
            found = with_own_id(outcome, seen, odd) if isinstance(outcome, Row) else outcome
            if isinstance(found, Row):
                seen[found.id] = found.where
            yield found

    def _annotations(self, folder: Path, split: str) -> Path | None:
        """Return the file of annotations of a split; None where there is none to be."""
        names = self.annotations[split]
        file = next((folder / name for name in names if is_file(folder / name)), None)
        if names and file is None:
            raise OmnisinkError(f"{folder}: the annotations of {self.name} are not there: {' or '.join(names)}")
        return file

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
        video, audio, image = (find_file(folder, n) if n else None for n in (row.video, row.audio, row.image))
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
