"""Questions about a scene, with their answers, from what the scene is known to hold.

Five categories. ``visual`` and ``audio`` have four choices. ``existence`` is yes or no about one of the two.
``cross-modal`` is yes or no about both, in the manner of AVHBench: does the thing that sounds show, does the thing
that shows sound, do they match. ``temporal`` has four choices, in the manner of Daily-Omni: what is on screen
when the bell sounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.random import Generator

from omnisink.synthav.scene import HALF, Scene, Sound, Thing, random_of
from omnisink.synthav.vocabulary import (
    COLOURS,
    DIRECTIONS,
    LOUDNESS,
    NUMBERS,
    OBJECTS,
    PITCHES,
    SIZES,
    SOUNDING,
    SOUNDS,
    SPOKEN,
    TONES,
    VOICE,
    article,
    plural,
)

CATEGORIES = ("visual", "audio", "existence", "cross-modal", "temporal")
LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """One question about one clip.

    Attributes
    ----------
    clip : str
        Name of the clip.
    category, kind : str
        Group and kind of the question, such as ``"visual"`` and ``"colour"``.
    text : str
        The question, without its choices.
    choices : tuple of str
        Four, or empty for a question to be answered by yes or no.
    answer : str
        The letter, or ``"yes"`` or ``"no"``.
    held_out : bool
        Whether the clip holds a combination that training never shows.
    """

    clip: str
    category: str
    kind: str
    text: str
    choices: tuple[str, ...]
    answer: str
    held_out: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "choices": list(self.choices)}


def make_questions(scene: Scene, salt: int = 0) -> list[Question]:
    """Make every question that a scene has an answer to.

    Parameters
    ----------
    scene : Scene
        The scene.
    salt : int
        Another salt gives other distractors, other orders of the choices and other wordings.

    Returns
    -------
    list of Question
        The questions in no particular order, at most one of every kind.
    """
    writer = _Writer(scene, random_of(scene.split, scene.index, 2 + salt))
    _visual(writer)
    _audio(writer)
    _cross_modal(writer)
    _temporal(writer)
    return writer.questions


class _Writer:
    def __init__(self, scene: Scene, rng: Generator) -> None:
        self.scene, self.rng = scene, rng
        self.questions: list[Question] = []

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def coin(self) -> bool:
        return bool(self.rng.random() < 0.5)

    def choose(self, category: str, kind: str, text: str, right: str, wrong: Iterable[str], must: str = "") -> None:
        """Ask with four choices; `must` is a wrong one that is always among them."""
        others = [w for w in dict.fromkeys(wrong) if w not in (right, must)]
        drawn = [others[i] for i in self.rng.permutation(len(others))]
        choices = [right, must, *drawn][:4] if must else [right, *drawn][:4]
        choices = [choices[i] for i in self.rng.permutation(4)]
        self._add(category, kind, text, tuple(choices), LETTERS[choices.index(right)])

    def decide(self, category: str, kind: str, text: str, truth: bool) -> None:
        """Ask for yes or no."""
        self._add(category, kind, text, (), "yes" if truth else "no")

    def _add(self, category: str, kind: str, text: str, choices: tuple[str, ...], answer: str) -> None:
        scene = self.scene
        self.questions.append(Question(scene.name, category, kind, text, choices, answer, scene.held_out))


def _visual(w: _Writer) -> None:
    things, layout = w.scene.things, w.scene.layout
    thing: Thing = w.pick(things)
    shapes, colours = {t.shape for t in things}, {t.colour for t in things}
    seen = next((t.colour for t in things if t.colour != thing.colour), "")
    w.choose("visual", "colour", f"What colour is the {thing.shape}?", thing.colour, COLOURS, seen)
    seen = next((t.shape for t in things if t.shape != thing.shape), "")
    w.choose("visual", "object", f"Which object is {thing.colour}?", thing.shape, OBJECTS, seen)
    if layout in ("many", "single", "pair"):
        same = [t for t in things if t.shape == thing.shape]
        if layout == "many" or w.rng.random() < 0.2:
            w.choose("visual", "count", f"How many {plural(thing.shape)} are there?", NUMBERS[len(same) - 1], NUMBERS)
    if layout == "single":
        if thing.motion != "still":
            w.choose("visual", "motion", f"Which way does the {thing.shape} move?", thing.motion, DIRECTIONS)
        w.decide("existence", "moving", f"Does the {thing.shape} move?", thing.motion != "still")
    if layout in ("single", "pair", "sequence"):
        colour = w.pick([c for c in COLOURS if c != thing.colour])
        looks = [f"{size} {c}" for size in SIZES for c in (thing.colour, colour)]
        w.choose("visual", "size", f"How does the {thing.shape} look?", f"{thing.size} {thing.colour}", looks)
    if layout == "sequence":
        first = w.coin()
        right, wrong = (things[0], things[1]) if first else (things[1], things[0])
        w.choose(
            "visual",
            "order",
            f"Which object appears {'first' if first else 'last'}?",
            right.shape,
            OBJECTS,
            wrong.shape,
        )
    if layout == "overlap":
        front = w.coin()
        right, wrong = (things[1], things[0]) if front else (things[0], things[1])
        w.choose(
            "visual",
            "depth",
            f"Which object is {'in front' if front else 'behind'}?",
            right.shape,
            OBJECTS,
            wrong.shape,
        )
    truth = w.coin()
    if truth:
        name = thing.name
    elif w.coin():
        name = f"{thing.colour} {w.pick([s for s in OBJECTS if s not in shapes])}"
    else:
        name = f"{w.pick([c for c in COLOURS if c not in colours])} {thing.shape}"
    w.decide("existence", "visible", f"Is there {article(name)} in the video?", truth)


def _audio(w: _Writer) -> None:
    sounds, kinds = w.scene.sounds, w.scene.kinds
    sound: Sound = w.pick(sounds)
    absent = [k for k in SOUNDS if k not in kinds]
    if len(kinds) == 1:
        w.choose("audio", "sound", "Which sound is heard?", sound.kind, SOUNDS)
        if sound.kind != VOICE:
            w.choose(
                "audio", "count", f"How many times does the {sound.kind} sound?", NUMBERS[len(sounds) - 1], NUMBERS
            )
    else:
        first = w.coin()
        right, wrong = (kinds[0], kinds[1]) if first else (kinds[1], kinds[0])
        w.choose("audio", "order", f"Which sound comes {'first' if first else 'last'}?", right, SOUNDS, wrong)
    for spoken in (s for s in sounds if s.kind == VOICE):
        group = list(COLOURS) if spoken.word in COLOURS else list(OBJECTS)
        w.choose("audio", "word", "Which word does the voice say?", spoken.word, group if w.coin() else SPOKEN)
    if sound.kind in TONES:
        manner = [f"{p} and {q}" for p in PITCHES for q in LOUDNESS]
        w.choose("audio", "manner", f"How does the {sound.kind} sound?", f"{sound.pitch} and {sound.loudness}", manner)
    truth = w.coin()
    kind = sound.kind if truth else w.pick(absent)
    w.decide("existence", "audible", f"Is there {article(kind)} in the audio?", truth)


def _cross_modal(w: _Writer) -> None:
    things, kinds = w.scene.things, w.scene.kinds
    shapes = [t.shape for t in things]
    heard = [k for k in kinds if k in SOUNDING]
    if len(kinds) == 1 and kinds[0] != VOICE:
        if heard:
            w.decide(
                "cross-modal",
                "sounding thing visible",
                "Is the thing that makes the sound visible?",
                heard[0] in shapes,
            )
        w.decide("cross-modal", "match", "Do the video and the audio match?", kinds[0] in shapes)
    mute = [s for s in shapes if s in SOUNDING]
    if mute:
        shape = w.pick(mute)
        w.decide(
            "cross-modal", "visible thing sounding", f"Is the {shape} in the video making a sound?", shape in kinds
        )
    for spoken in (s for s in w.scene.sounds if s.kind == VOICE):
        if spoken.word in COLOURS:
            text, truth = "Is the colour that the voice says visible?", spoken.word in {t.colour for t in things}
        else:
            text, truth = "Is the object that the voice says visible?", spoken.word in shapes
        w.decide("cross-modal", "said thing visible", text, truth)


def _temporal(w: _Writer) -> None:
    scene = w.scene
    if scene.layout != "sequence":
        return
    once = [s for s in scene.sounds if sum(o.kind == s.kind for o in scene.sounds) == 1 and _whole(s)]
    if not once:
        return
    sound: Sound = w.pick(once)
    shown = next(t for t in scene.things if t.visible(sound.begins))
    other = next(t for t in scene.things if t is not shown)
    what = "voice speaks" if sound.kind == VOICE else f"{sound.kind} sounds"
    w.choose("temporal", "seen when heard", f"What is on screen when the {what}?", shown.shape, OBJECTS, other.shape)
    halves = {s.begins < HALF for s in scene.sounds}
    if len(scene.sounds) == len(scene.kinds) == len(halves) == 2 and all(map(_whole, scene.sounds)):
        thing: Thing = w.pick(scene.things)
        during = next(s for s in scene.sounds if thing.visible(s.begins))
        rest = next(s for s in scene.sounds if s is not during)
        text = f"Which sound is heard while the {thing.shape} is on screen?"
        w.choose("temporal", "heard when seen", text, during.kind, SOUNDS, rest.kind)


def _whole(sound: Sound) -> bool:
    """Tell whether a sound is over before the picture changes, or begins after."""
    return not HALF - 0.7 < sound.begins < HALF
