"""Benchmarks: what a task is, and how its questions are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.loaders import LOADERS
from omnisink.evaluation.tasks.loaders.base import Loader, Request
from omnisink.evaluation.tasks.paths import StrayLinkError, find_file, has_sound, is_file
from omnisink.evaluation.tasks.protocol import Protocol
from omnisink.evaluation.tasks.questions import Progress, Questions, files_of, matching
from omnisink.evaluation.tasks.remarks import remarks
from omnisink.evaluation.tasks.rows import Bad, Left, Missing, Outcome, Row
from omnisink.questions.letters import LETTERS

if TYPE_CHECKING:
    from omnisink.models.loaded import Loaded


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
        Modalities, of ``"text"``, ``"video"``, ``"audio"`` and ``"image"``.
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
    def source(self) -> Loader:
        """Where the questions come from."""
        return LOADERS[self.loader]

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
        self,
        data: str | Path | None = None,
        protocol: str | None = None,
        split: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse unknown names, and a data folder without annotations, before anything is read.

        Parameters
        ----------
        data, protocol, split, settings
            As for `read`.

        Raises
        ------
        OmnisinkError
            Says what is wrong.
        """
        self.protocol(protocol)
        self.source.check_settings(self, settings or {})
        self.source.check_data(self, data, self.check_split(split))

    def is_slow(self, data: str | Path | None = None) -> bool:
        """Tell whether `read` takes its time: it opens videos, renders some, or needs the model that is asked."""
        return self.sound == "if-there" or self.source.is_slow(data)

    @property
    def needs_model(self) -> bool:
        """Whether `read` needs the model that is going to be asked."""
        return self.source.needs_model

    def facts(
        self, protocol: str | None = None, split: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what a record of a run says of the task, as plain data.

        Parameters
        ----------
        protocol, split : str, optional
            Names; None is the default.
        settings : mapping, optional
            As for `read`.

        Returns
        -------
        dict
            Names of the task, its split and its protocol, with the protocol in full, and how its number is made.
        """
        asked = self.protocol(protocol)
        chosen = self.source.check_settings(self, settings or {})
        return {
            "name": self.name,
            "title": self.title,
            "split": self.check_split(split),
            "protocol": asked.name,
            "prompt": asdict(asked),
            "metric": self.metric,
            "mean_over": self.mean_over,
            "breakdowns": list(self.breakdowns),
            **({"settings": chosen} if chosen else {}),
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
        settings: Mapping[str, Any] | None = None,
        model: Loaded | None = None,
        progress: Progress | None = None,
    ) -> Questions:
        """Load questions. A row that cannot be asked is left out and told; it does not stop the others.

        Parameters
        ----------
        data : str or Path, optional
            The data folder. Tasks whose questions are made need none; of SynthAV the clips are then rendered into the
            cache.
        protocol, split : str, optional
            Names; None is the default.
        limit : int, optional
            The number of questions: the first in the order of the annotations, of those that `where` names. A task
            that makes its questions makes this number, spread over SynthAV's categories or over the lengths.
        where : mapping of str to str, optional
            Only questions of these groups, as ``{"task": "AV Matching"}``.
        allow_missing : bool
            Take questions whose files are missing all the same; asking one is then an error of its own. Questions
            whose annotations are missing, or whose files a link puts outside the folder, are left out.
        settings : mapping, optional
            What the task lets a user choose, as ``{"lengths": (1024, 4096)}``; see `Loader.settings`.
        model : Loaded, optional
            What is going to be asked, for tasks whose questions depend on it: `Loader.needs_model`.
        progress : callable, optional
            Called with how many are done, how many there are and what they are, where loading takes long.

        Returns
        -------
        Questions
            The instances, and rows that are none.

        Raises
        ------
        OmnisinkError
            If a name or setting is unknown, the folder lacks the annotations, a file is missing, a link leads out of
            the folder, a model is needed, or there is no question that can be asked.
        """
        asked, split = self.protocol(protocol), self.check_split(split)
        if limit is not None and limit < 1:
            raise OmnisinkError(f"the number of questions must be positive, got {limit}")
        chosen = self.source.check_settings(self, settings or {})
        folder, outcomes = self.source.draw(
            self, Request(asked, split, data, limit, where or {}, chosen, model, progress)
        )
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
            raise OmnisinkError(
                f"{self.name}: {len(missing)} of its files are missing, the first being {missing[0]}. "
                f"`omnisink tasks check {self.source.data_words(self)}` lists what is missing"
            )
        told = [o for o in outcomes if isinstance(o, Row | Left)]
        left = [o for o in outcomes if isinstance(o, Left)]
        return Questions(instances, left, bad, remarks(self, [*told, *bad]))

    def outcomes(self, folder: Path, split: str) -> Iterable[Outcome]:
        """Yield what every row of the annotations in a folder is; errors as for `Loader.draw`."""
        return self.source.outcomes(self, folder, split)

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
