"""Clips that SmolOmni was not trained on: they hold what they say, and the card says what the model makes of them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import omnisink
from benchmarks.plain_clips import COLOURS, GREY, RATE, SHAPES, SIDE, SIZE, PlainClip, answers, plain_clips
from omnisink.cli.demo import STYLE

#: Share of its square of 52 pixels that a shape covers; a regular star of five points in a circle covers 1.123 r².
AREAS = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5, "star": 1.1226 / 4}


def test_every_shape_is_there_in_every_colour() -> None:
    clips = plain_clips()
    assert {(clip.shape, clip.colour) for clip in clips} == {(s, c) for s in SHAPES for c in COLOURS}
    assert len(clips) == 32


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_a_shape_has_its_area_and_moves(shape: str, motion: str, axis: int, sign: int) -> None:
    frames = PlainClip(shape, "blue", motion, 250).frames()[::33].astype(float)
    paint = np.array(COLOURS["blue"])
    cover = (frames[..., 2] - GREY) / (paint[2] - GREY)
    assert cover.sum(axis=(1, 2)) == pytest.approx(AREAS[shape] * SIZE**2, rel=0.02)
    assert (frames[0, 0, 0] == GREY).all()
    assert (frames.max(axis=(1, 2)) == [GREY, GREY, paint[2]]).all()
    middle = [np.argwhere(one > 0.5).mean(axis=0)[axis] for one in cover]
    assert all(sign * (b - a) > 0.15 * SIDE for a, b in pairwise(middle))


def test_the_tone_has_its_pitch() -> None:
    sound = PlainClip("star", "red", "up", 700).sound()
    assert np.abs(np.fft.rfft(sound)).argmax() / (sound.size / RATE) == pytest.approx(700, abs=3)
    assert (sound[:RATE] == 0).all()


def test_the_demo_says_what_the_card_measures() -> None:
    card = (Path(omnisink.__file__).parent / "models" / "smolomni.md").read_text(encoding="utf-8")
    measured = dict(re.findall(r"^\| (colour|shape) \| (\d+ \| 64) \|", card, re.M))
    said = {what: f"{right} | {of}" for right, of, what in re.findall(r"(\d+) of (\d+) (\w+)s\b", STYLE)}
    assert said == measured


@pytest.mark.real
@pytest.mark.slow
def test_smolomni_knows_plain_shapes_colours_and_tones(smolomni) -> None:
    records = answers(smolomni, plain_clips()[::4])
    right = Counter(r["what"] for r in records if r["said"] == r["right"])
    assert right["colour"] >= 7
    assert right["shape"] >= 6
    assert right["sound"] >= 7
