"""Clips of another program than SynthAV's: they hold what they say, and SmolOmni knows what is in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.matplotlib_clips import COLOURS, TONES, WORDS, MatplotlibClip, matplotlib_clips, say
from benchmarks.plain_clips import RATE, SECONDS, SHAPES, answers
from benchmarks.plain_clips import TONES as OTHER_TONES
from omnisink.synthav.vocabulary import OBJECTS, SPOKEN
from tests.skips import needs

pytest.importorskip("matplotlib")
RED_SQUARE = MatplotlibClip("square", "red", "left", 440, fps=8, share=0.4, grey=0.0, side=180)


def test_every_shape_is_there_in_every_colour_with_a_tone_and_with_a_voice() -> None:
    clips = matplotlib_clips()
    assert {(c.shape, c.colour, c.heard) for c in clips} == {
        (s, c, h) for s in SHAPES for c in COLOURS for h in ("beep", "voice")
    }
    assert len(clips) == 64
    assert {c.codec for c in clips} == {"libx264", "mpeg4"}
    assert {c.tone for c in clips if c.heard == "beep"} == set(TONES)
    assert not set(TONES) & set(OTHER_TONES)
    assert not set(WORDS) & set(SPOKEN)


#: Share of its square that a shape covers: a regular triangle of radius 1.15 r, a star with an inner circle of 0.42.
AREAS = {
    "circle": np.pi / 4,
    "square": 1.0,
    "triangle": 1.299 * 1.15**2 / 4,
    "star": 10 * 0.42 * 0.5878 / 2 * 1.05**2 / 4,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_a_shape_has_its_area_and_moves(shape: str, motion: str, axis: int, sign: int) -> None:
    frames = replace(RED_SQUARE, shape=shape, motion=motion).frames()
    assert frames.shape == (SECONDS * 8, 180, 180, 3)
    red = frames[..., 0] / 220.0  # crimson
    assert red.sum(axis=(1, 2)) == pytest.approx(AREAS[shape] * (0.4 * 180) ** 2, rel=0.02)
    first, last = (np.argwhere(one > 0.5).mean(axis=0)[axis] for one in (red[0], red[-1]))
    assert sign * (last - first) == pytest.approx(0.56 * 180, abs=2)


def test_an_edge_is_black_and_the_background_is_grey() -> None:
    clip = replace(RED_SQUARE, grey=0.5, edge=True)
    frame = clip.frames()[0].astype(int)
    assert abs(frame[0, 0] - 127).max() <= 1
    assert (frame.max(axis=-1) < 60).any()
    assert not (replace(clip, edge=False).frames()[0].max(axis=-1) < 60).any()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_file_has_its_codec_and_its_rate(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    replace(RED_SQUARE, codec=codec, fps=12).write(path)
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        assert video.codec_context.name == codec.removeprefix("libx").replace("264", "h264")
        assert (video.frames, float(video.average_rate or 0)) == (48, 12.0)
        assert file.streams.audio[0].codec_context.name == "aac"


def test_the_tone_has_its_pitch() -> None:
    sound = RED_SQUARE.sound()
    assert np.abs(np.fft.rfft(sound)).argmax() / (sound.size / RATE) == pytest.approx(440, abs=3)


@needs("espeak-ng")
def test_the_voice_says_its_word() -> None:
    sound = replace(RED_SQUARE, word="window").sound()
    assert np.abs(sound[RATE:]).max() == pytest.approx(0.5, abs=1e-4)
    assert not sound[:RATE].any()
    assert not np.array_equal(say("window")[:2000], say("kitchen")[:2000])


def test_questions_have_the_right_answer_among_four_choices() -> None:
    for clip in matplotlib_clips()[::7]:
        for _, _, choices, right in clip.questions(np.random.default_rng(0)):
            assert right in choices
            assert len(set(choices)) == 4
    asked = [
        choices for clip in matplotlib_clips() for what, _, choices, _ in clip.questions(np.random.default_rng(1))
    ]
    assert set(OBJECTS) <= {word for choices in asked for word in choices}


@pytest.mark.real
@pytest.mark.slow
@needs("espeak-ng")
def test_smolomni_knows_shapes_colours_and_sounds_of_another_hand(smolomni) -> None:
    """A quarter of the clips; the model card has the figures of all 64."""
    records = answers(smolomni, matplotlib_clips()[::4])
    right = Counter(r["what"] for r in records if r["said"] == r["right"])
    assert right["colour"] >= 0.9 * 16 - 1
    assert right["shape"] >= 0.8 * 16 - 1
    assert right["sound"] >= 0.8 * 16
