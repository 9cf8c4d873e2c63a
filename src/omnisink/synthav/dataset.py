"""Clips and questions as files: a folder of mp4 files with one JSON Lines file of questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from omnisink.errors import OmnisinkError
from omnisink.synthav.questions import CATEGORIES, Question, make_questions
from omnisink.synthav.render import render
from omnisink.synthav.scene import SPLITS, Scene, Split, make_scene, random_of

#: Shares of the categories among the questions of a split.
SHARES = {"visual": 4, "audio": 3, "existence": 1, "cross-modal": 3, "temporal": 2}
QUESTIONS = "questions.jsonl"


def draw_split(split: Split, count: int) -> list[tuple[Scene, list[Question]]]:
    """Draw the questions of a split, and the clips that they need.

    The scenes are gone through in order. Each gives two questions at most, of categories that still want some and of
    kinds that have been asked least.

    Parameters
    ----------
    split : {"train", "tune", "test"}
        Name of the split.
    count : int
        Number of questions. `SHARES` divides them among the categories.

    Returns
    -------
    list of (Scene, list of Question)
        Scenes in order, each with one or two questions.

    Raises
    ------
    OmnisinkError
        If there is no such split, or `count` is not positive.
    """
    if split not in SPLITS:
        raise OmnisinkError(f"SynthAV has no split {split!r}: use train, tune or test")
    if count < 1:
        raise OmnisinkError(f"the number of questions must be positive, got {count}")
    wanted, asked = _share_out(count), Counter[str]()
    drawn: list[tuple[Scene, list[Question]]] = []
    index = 0
    while any(wanted.values()):
        scene = make_scene(split, index)
        taken: list[Question] = []
        for question in sorted(_shuffled(scene), key=lambda q: asked[q.kind] / SHARES[q.category]):
            if wanted[question.category] and len(taken) < 2 and question.category not in {q.category for q in taken}:
                wanted[question.category] -= 1
                asked[question.kind] += 1
                taken.append(question)
        if taken:
            drawn.append((scene, taken))
        index += 1
    return drawn


def write_split(out: str | Path, split: Split, count: int) -> Iterator[Question]:
    """Render the clips of a split into a folder, with their questions beside them.

    Parameters
    ----------
    out : str or Path
        The folder; it is made if need be. Clips that are there already are left as they are.
    split, count
        See `draw_split`.

    Yields
    ------
    Question
        Each as its clip is there. The questions are in ``questions.jsonl``, one JSON object a line, once all are done.

    Raises
    ------
    OmnisinkError
        If the folder cannot be made or written to, or a clip cannot be rendered.
    """
    folder = Path(out)
    drawn = draw_split(split, count)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OmnisinkError(f"{folder} could not be made: {error.strerror or error}") from error
    for scene, questions in drawn:
        clip = folder / f"{scene.name}.mp4"
        if not clip.exists():
            part = clip.with_suffix(".part")
            render(scene, part)
            part.replace(clip)
        yield from questions
    lines = (json.dumps({"video": f"{q.clip}.mp4", **q.to_dict()}) for _, questions in drawn for q in questions)
    try:
        (folder / QUESTIONS).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise OmnisinkError(f"{folder / QUESTIONS} could not be written: {error.strerror or error}") from error


def _share_out(count: int) -> dict[str, int]:
    """Split a number over the categories; the largest remainders get what is over."""
    whole = sum(SHARES.values())
    exact = {c: count * SHARES[c] / whole for c in CATEGORIES}
    out = {c: int(exact[c]) for c in CATEGORIES}
    for c in sorted(CATEGORIES, key=lambda c: out[c] - exact[c])[: count - sum(out.values())]:
        out[c] += 1
    return out


def _shuffled(scene: Scene) -> list[Question]:
    """Return the scene's questions in an order of its own."""
    questions = make_questions(scene)
    return [questions[i] for i in random_of(scene.split, scene.index, 1_000_000_007).permutation(len(questions))]
