"""The methods of a run: those that are named, those that the name ``all`` stands for, and the controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.replay import share
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.asking import ask
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.media import FrameChoice
from omnisink.methods.base import Method
from omnisink.methods.controls_of_contrast import with_controls
from omnisink.methods.names import ALL, BASELINE
from omnisink.methods.registry import parse_method, parse_methods, registered_methods, split_methods
from omnisink.models.loaded import Loaded

#: Questions of one kind that are tried, until the baseline answers one.
_TRIES = 3
#: Tokens of an answer that a method is tried with: the prefill's, and one more.
_TOKENS = 2


@dataclass(frozen=True)
class LineUp:
    """The methods of a run.

    Attributes
    ----------
    methods : dict of str to Method or None
        By name, in order; None is the baseline.
    left_out : dict of str to str
        Methods that ``all`` does not stand for here, with the reason.
    """

    methods: dict[str, Method | None]
    left_out: dict[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """Say in one line which methods were left out, and why; nothing where none was."""
        said = "; ".join(f"{name} ({why})" for name, why in self.left_out.items())
        return f"{ALL} leaves out {len(self.left_out)}: {said}" if said else ""


def names_all(names: str) -> bool:
    """Whether a list of methods has the preset ``all`` in it, for which the model has to be there."""
    return ALL in split_methods(names)


def line_up(
    names: str,
    starts: Iterable[Method] = (),
    seed: int = 0,
    *,
    controls: bool = True,
    loaded: Loaded | None = None,
    instances: Sequence[Instance] = (),
    frames: FrameChoice | None = None,
) -> LineUp:
    """Read a list of methods, find out what ``all`` stands for, and add the controls.

    Parameters
    ----------
    names, starts, seed
        See `omnisink.methods.registry.parse_methods`.
    controls : bool
        Add those of contrastive methods: `omnisink.methods.controls_of_contrast.with_controls`.
    loaded : Loaded, optional
        The model; ``all`` needs it, and tries every method on it.
    instances : sequence of Instance
        The questions; ``all`` needs them.
    frames : FrameChoice, optional
        Which frames of them; None is the family's own rule.

    Returns
    -------
    LineUp
        The methods.

    Raises
    ------
    OmnisinkError
        As `parse_methods`; or if ``all`` is named without a model.
    """
    starts = list(starts)
    given = split_methods(names)
    if ALL not in given:
        found = parse_methods(names, starts, seed)
        return LineUp(with_controls(found) if controls else found)
    if loaded is None:
        raise OmnisinkError(f"{ALL} stands for the methods that a model admits, and there is no model here: name them")
    if given.count(ALL) > 1:
        raise OmnisinkError(f"the method {ALL} is named twice")
    rest = ",".join(name for name in given if name != ALL)
    named = parse_methods(rest, starts, seed) if rest else {}
    admitted, left_out = _admitted(starts, seed, loaded, instances, frames, set(named))
    found = {BASELINE: None, **admitted, **{name: one for name, one in named.items() if name != BASELINE}}
    return LineUp(with_controls(found) if controls else found, left_out)


def _admitted(
    starts: Sequence[Method],
    seed: int,
    loaded: Loaded,
    instances: Sequence[Instance],
    frames: FrameChoice | None,
    named: set[str],
) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the methods that can be run as they are, and why the others cannot."""
    found: dict[str, Method] = {}
    left_out: dict[str, str] = {}
    there = set().union(*(_modalities(one, loaded) for one in instances)) if instances else set()
    for one in registered_methods():
        if one.name in named:
            continue
        if required := [name for name, default in one.settings().items() if default == "required"]:
            left_out[one.name] = f"{' and '.join(required)} must be given"
            continue
        method = parse_method(one.name, starts, seed)
        if why := _uncalibrated(method) or _lacking(method, there):
            left_out[one.name] = why
            continue
        found[one.name] = method
    anatomy = read_anatomy(loaded.model)
    for instance, inputs in _examples(loaded, instances, frames):
        with share(anatomy):  # The towers run once.
            for name, method in list(found.items()):
                try:
                    ask(loaded, inputs, [instance], method, "generate")
                except OmnisinkError as error:  # noqa: PERF203  a handful of methods
                    left_out[name] = " ".join(str(error).split())
                    del found[name]
    return found, left_out


def _uncalibrated(method: Method) -> str:
    """Say which settings have to be found on a calibration set first; empty where there are none."""
    defaults = {one.name: one.default for one in fields(method) if one.default is not MISSING}
    open_ = [name for name in method.calibrated if name in defaults and getattr(method, name) == defaults[name]]
    return f"{' and '.join(open_)} must be calibrated" if open_ and method.profile is None else ""


def _lacking(method: Method, there: set[str]) -> str:
    """Say which modality no question has that the method acts on."""
    missing = next((some for some in method.acts_on if not there & set(some)), None)
    return f"no question has {' or '.join(missing)}" if missing else ""


def _modalities(instance: Instance, loaded: Loaded) -> frozenset[str]:
    """Return what a question has beside text, as far as the model takes it."""
    sound = isinstance(instance.audio, Path) or (instance.video is not None and instance.audio is None)
    has = {"video": instance.video is not None, "image": instance.image is not None, "audio": sound}
    return frozenset(name for name, given in has.items() if given and name in loaded.adapter.modalities)


def _examples(loaded: Loaded, instances: Sequence[Instance], frames: FrameChoice | None) -> list[tuple[Instance, Any]]:
    """Return the first question of each kind that the baseline answers, with its inputs."""
    kinds: dict[frozenset[str], list[Instance]] = {}
    for one in instances:
        same = kinds.setdefault(_modalities(one, loaded), [])
        if len(same) < _TRIES:
            same.append(replace(one, max_new_tokens=min(one.max_new_tokens, _TOKENS)))
    return [made for same in kinds.values() for made in _first_answered(loaded, same, frames)]


def _first_answered(
    loaded: Loaded, instances: Sequence[Instance], frames: FrameChoice | None
) -> list[tuple[Instance, Any]]:
    for one in instances:
        try:
            prompt = prompt_of(loaded, one, frames)
            media = loaded.adapter.read(loaded, [prompt])
            inputs = loaded.adapter.encode(loaded, [prompt], [found for found in media if found])
            ask(loaded, inputs, [one], None, "generate")
        except (OmnisinkError, OSError, ValueError):  # What is wrong with the question is a record of the run.
            continue
        return [(one, inputs)]
    return []
