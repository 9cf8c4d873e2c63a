"""The third round of SmolOmni's training: what is drawn and played in other styles is still what the labels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omnisink.synthav.scene import SECONDS, Scene, Sound, Thing
from omnisink.synthav.sounds import RATE
from omnisink.synthav.vocabulary import COLOURS, OBJECTS
from tests.skips import needs
from training.clips import frame_times
from training.labels import HEARD, heard, sayings
from training.noises import play_varied, through_aac
from training.pictures import draw_varied

SQUARE = Thing("square", "red", "large", "still", 0.5, 0.5, 0.2)
BEEP = Sound("beep", 1.0, "low", "loud")


def scene(*things, sounds=(), layout="single"):
    return Scene("train", 0, layout, things, sounds, None, 0)


def near_red(frame):
    """Where a picture is redder than any background may be."""
    red, green, blue = (frame[..., i].astype(int) for i in range(3))
    return (red - np.maximum(green, blue)) > 80


@pytest.mark.parametrize("shape", OBJECTS)
def test_every_shape_is_drawn_as_the_tower_sees_it_and_the_same_again(shape):
    thing = replace(SQUARE, shape=shape)
    for seed in range(4):
        frames = draw_varied(scene(thing), 1, np.random.default_rng(seed))
        assert frames.shape == (2, 112, 112, 3)
        assert frames.dtype == np.uint8
        assert np.array_equal(frames, draw_varied(scene(thing), 1, np.random.default_rng(seed)))
        assert 150 < near_red(frames[0]).sum() < 4_000


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_what_moves_moves_as_its_label_says(motion, axis, sign):
    thing = replace(SQUARE, motion=motion, reach=0.55)
    for seed in range(6):
        first, second = draw_varied(scene(thing), 2, np.random.default_rng(seed))
        moved = np.argwhere(near_red(second)).mean(0) - np.argwhere(near_red(first)).mean(0)
        assert sign * moved[axis] > 3
        assert abs(moved[1 - axis]) < 1.5


def test_large_is_larger_than_small():
    areas = {
        size: [
            near_red(draw_varied(scene(replace(SQUARE, size=size)), 0, np.random.default_rng(seed))[0]).sum()
            for seed in range(20)
        ]
        for size in ("small", "large")
    }
    assert max(areas["small"]) < min(areas["large"])


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_stays_the_nearest_of_the_eight(colour):
    """Of the pixels in the middle of a square, averaged over its styles."""
    middles = [
        draw_varied(scene(replace(SQUARE, colour=colour)), 0, np.random.default_rng(seed))[0][50:62, 50:62].mean(
            (0, 1)
        )
        for seed in range(12)
    ]
    distance = {name: float(np.linalg.norm(np.mean(middles, axis=0) - value)) for name, value in COLOURS.items()}
    assert min(distance, key=distance.__getitem__) == colour


def test_what_is_not_on_screen_is_not_drawn():
    first = replace(SQUARE, begins=0.0, ends=SECONDS / 2)
    shown = [draw_varied(scene(first, layout="sequence"), pair, np.random.default_rng(3)) for pair in range(4)]
    assert [bool(near_red(frames).any()) for frames in shown] == [True, True, False, False]


@pytest.mark.parametrize("rate", [8, 24, 30])
def test_frames_are_those_of_a_clip_of_that_rate(rate):
    times = frame_times(rate)
    assert times.shape == (8,)
    assert (times[0], times[-1]) == (0, pytest.approx(SECONDS - 1 / rate))
    assert np.allclose(times * rate, (times * rate).round())


@pytest.mark.parametrize(("pitch", "low", "high"), [("low", 150, 730), ("high", 770, 3650)])
def test_a_beep_has_the_pitch_that_it_is_said_to_have(pitch, low, high):
    for seed in range(8):
        track, _ = play_varied(scene(SQUARE, sounds=(replace(BEEP, pitch=pitch),)), np.random.default_rng(seed))
        loudest = np.abs(np.fft.rfft(track)).argmax() / SECONDS
        assert low < loudest < high


def test_quiet_sounds_are_quieter_than_loud_ones():
    def peaks(loudness):
        sounds = (replace(BEEP, loudness=loudness),)
        return [
            np.abs(play_varied(scene(SQUARE, sounds=sounds), np.random.default_rng(s))[0]).max() for s in range(20)
        ]

    assert max(peaks("quiet")) < min(peaks("loud"))


@pytest.mark.parametrize("kind", ["beep", "buzz", "bell", "drum", "clock", "bird"])
def test_a_sound_begins_where_it_is_said_to_and_is_as_long_as_it_is_labelled(kind):
    sounds = (replace(BEEP, kind=kind), replace(BEEP, kind=kind, begins=2.5))
    track, lengths = play_varied(scene(SQUARE, sounds=sounds), np.random.default_rng(1))
    assert lengths[0] == lengths[1], "sounds of one kind in one clip are alike"
    loud = np.abs(track) > 0.05
    assert not loud[: RATE - 1].any()
    assert loud[RATE : int((1 + lengths[0]) * RATE)].any()
    assert not loud[int((1 + lengths[0]) * RATE) + 1 : int(2.5 * RATE) - 1].any()


@needs("espeak-ng")
def test_a_word_is_labelled_to_its_end():
    said = Sound("voice", 1.0, "high", "loud", "triangle", "f2")
    _, lengths = play_varied(scene(SQUARE, sounds=(said,)), np.random.default_rng(2))
    labels = heard(scene(SQUARE, sounds=(said,)), lengths)
    ends = int(np.ceil((1 + lengths[0]) * 25))
    assert [sayings(HEARD)[i] for i in labels[24:26]] == ["silence", "voice"]
    assert sayings(HEARD)[labels[ends - 1]] == "says triangle"
    assert not labels[ends:].any()


def test_aac_changes_a_track_a_little_and_keeps_its_length():
    track, _ = play_varied(scene(SQUARE, sounds=(BEEP,)), np.random.default_rng(4))
    coded = through_aac(track, 64)
    assert coded.shape == track.shape
    assert 0 < np.abs(coded - track).max() < 0.3
    assert np.corrcoef(coded, track)[0, 1] > 0.97
