"""Scenes and questions: the same for the same seed, apart for different splits, and true to what is in them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.synthav.dataset import SHARES, draw_split
from omnisink.synthav.draw import FPS, SIDE, draw
from omnisink.synthav.questions import CATEGORIES, LETTERS, make_questions
from omnisink.synthav.scene import HALF, SECONDS, Scene, make_scene, random_of
from omnisink.synthav.vocabulary import COLOURS, HELD_OUT_OBJECTS, HELD_OUT_SOUNDS, OBJECTS, SOUNDS, VOICE


def scenes(split: str, count: int) -> list[Scene]:
    return [make_scene(split, i) for i in range(count)]  # type: ignore[arg-type]


def test_a_scene_is_a_function_of_its_split_and_index() -> None:
    assert scenes("train", 30) == scenes("train", 30)
    assert len({(s.things, s.sounds) for split in ("train", "tune", "test") for s in scenes(split, 200)}) == 600


def test_no_two_splits_share_random_numbers() -> None:
    first = {random_of(split, i, 0).integers(2**62) for split in ("train", "tune", "test") for i in range(500)}  # type: ignore[arg-type]
    assert len(first) == 1500


def test_only_the_test_split_holds_held_out_combinations() -> None:
    for split in ("train", "tune"):
        for scene in scenes(split, 500):
            assert not {(t.colour, t.shape) for t in scene.things} & HELD_OUT_OBJECTS
            assert not {(t.shape, s.kind) for t in scene.things for s in scene.sounds} & HELD_OUT_SOUNDS
    assert sum(s.held_out for s in scenes("test", 200)) == 100


def test_what_is_held_out_is_still_met_in_other_combinations() -> None:
    assert Counter(c for c, _ in HELD_OUT_OBJECTS) == Counter(dict.fromkeys(COLOURS, 1))
    assert Counter(s for _, s in HELD_OUT_OBJECTS) == Counter(dict.fromkeys(OBJECTS, 1))
    assert all(thing != sound for thing, sound in HELD_OUT_SOUNDS), "its own sound would give the match away"


def test_things_stay_inside_the_frame_and_sounds_inside_the_clip() -> None:
    for scene in scenes("train", 400):
        for thing in scene.things:
            for time in (thing.begins, (thing.begins + thing.ends) / 2, thing.ends):
                assert all(0.0 < v < 1.0 for v in thing.centre(time)), scene
        for sound in scene.sounds:
            assert 0 <= sound.begins <= SECONDS - 0.5, scene
        assert list(scene.sounds) == sorted(scene.sounds, key=lambda s: s.begins)


def answer_text(question: object) -> str:
    choices = question.choices  # type: ignore[attr-defined]
    answer = question.answer  # type: ignore[attr-defined]
    return choices[LETTERS.index(answer)] if choices else answer


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_are_true_to_the_scene(split: str) -> None:
    """The answers are worked out a second time, from the scene alone, in another way."""
    seen_kinds = set()
    for scene in scenes(split, 600):
        shapes = [t.shape for t in scene.things]
        times = {s.kind: [o.begins for o in scene.sounds if o.kind == s.kind] for s in scene.sounds}
        for q in make_questions(scene):
            seen_kinds.add(q.kind)
            said, subject = answer_text(q), q.text.rstrip("?").split()
            truth: object = said
            if q.kind == "colour":
                truth = next(t.colour for t in scene.things if t.shape == subject[-1])
            elif q.kind == "object":
                truth = next(t.shape for t in scene.things if t.colour == subject[-1])
            elif q.kind == "count" and q.category == "visual":
                truth = ["one", "two", "three", "four"][shapes.count(subject[2][:-1]) - 1]
            elif q.kind == "count":
                truth = ["one", "two", "three", "four"][len(times[subject[5]]) - 1]
            elif q.kind == "motion":
                truth = scene.things[0].motion
            elif q.kind == "depth":
                truth = shapes[-1] if "front" in q.text else shapes[0]
            elif q.kind == "order" and q.category == "visual":
                truth = shapes[0] if subject[-1] == "first" else shapes[1]
            elif q.kind == "order":
                by_time = sorted(times, key=lambda k: times[k][0])
                truth = by_time[0] if subject[-1] == "first" else by_time[-1]
            elif q.kind == "sound":
                truth = next(iter(times))
            elif q.kind == "word":
                truth = next(s.word for s in scene.sounds if s.kind == VOICE)
            elif q.kind == "seen when heard":
                kind = VOICE if VOICE in q.text else subject[-2]
                truth = shapes[0] if times[kind][0] < HALF else shapes[1]
            elif q.kind == "heard when seen":
                first = subject[-4] == shapes[0]
                truth = next(k for k in times if (times[k][0] < HALF) == first)
            elif q.kind == "match":
                truth = "yes" if set(times) & set(shapes) else "no"
            elif q.kind == "audible":
                truth = "yes" if subject[3] in times else "no"
            elif q.kind == "visible":
                truth = "yes" if tuple(subject[3:5]) in {(t.colour, t.shape) for t in scene.things} else "no"
            elif q.kind == "visible thing sounding":
                truth = "yes" if subject[2] in times else "no"
            assert said == truth, (q, scene)
    assert len(seen_kinds) == 19


def test_choices_are_four_and_distinct_and_the_letters_are_even() -> None:
    letters: Counter[str] = Counter()
    for scene in scenes("train", 400):
        for q in make_questions(scene):
            if q.choices:
                assert len(set(q.choices)) == 4, q
                letters[q.answer] += 1
            else:
                assert q.answer in ("yes", "no")
    assert min(letters.values()) / max(letters.values()) > 0.85


def test_yes_is_no_better_a_guess_than_no_across_modalities() -> None:
    answers: Counter[tuple[str, str]] = Counter()
    for scene in scenes("test", 2000):
        answers.update((q.kind, q.answer) for q in make_questions(scene) if q.category == "cross-modal")
    for kind in {kind for kind, _ in answers}:
        yes, no = answers[kind, "yes"], answers[kind, "no"]
        assert 0.35 < yes / (yes + no) < 0.65, (kind, yes, no)


def test_another_salt_asks_otherwise() -> None:
    scene = make_scene("train", 1)
    assert make_questions(scene, 1) == make_questions(scene, 1)
    assert make_questions(scene, 1) != make_questions(scene, 2)


def test_a_split_shares_its_questions_out() -> None:
    drawn = draw_split("test", 130)
    counts = Counter(q.category for _, questions in drawn for q in questions)
    assert counts == Counter({c: 10 * SHARES[c] for c in CATEGORIES})
    assert [s.index for s, _ in drawn] == sorted({s.index for s, _ in drawn})
    with pytest.raises(OmnisinkError, match="no split 'dev'"):
        draw_split("dev", 5)  # type: ignore[arg-type]
    with pytest.raises(OmnisinkError, match="must be positive, got 0"):
        draw_split("test", 0)


def test_the_picture_shows_the_thing_in_its_colour_where_it_is() -> None:
    shown = 0
    for scene in scenes("train", 60):
        frame = draw(scene, np.array([0.5]))[0]
        assert frame.shape == (SIDE, SIDE, 3)
        for thing in scene.things[-1:]:
            if not thing.visible(0.5) or thing.shape in ("drum", "clock") or scene.bar is not None:
                continue  # Their centres are of another colour, or behind something.
            x, y = (int(v * SIDE) for v in thing.centre(0.5))
            assert tuple(frame[y, x]) == COLOURS[thing.colour], scene
            shown += 1
    assert shown > 15


def test_things_move_the_way_they_say() -> None:
    for scene in scenes("train", 200):
        thing = scene.things[0]
        (x0, y0), (x1, y1) = thing.centre(0.0), thing.centre(SECONDS)
        way = {"left": x0 > x1, "right": x1 > x0, "up": y0 > y1, "down": y1 > y0, "still": (x0, y0) == (x1, y1)}
        assert way[thing.motion]


def test_every_sound_occurs() -> None:
    assert {s.kind for scene in scenes("train", 300) for s in scene.sounds} == set(SOUNDS)
    assert FPS * SECONDS == 32
