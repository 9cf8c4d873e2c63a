"""Clips as files: real mp4, with the picture and the sound that the scene says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.synthav import sounds
from omnisink.synthav.dataset import QUESTIONS, write_split
from omnisink.synthav.draw import FPS, SIDE, draw
from omnisink.synthav.render import render
from omnisink.synthav.scene import SECONDS, Scene, Sound, make_scene
from omnisink.synthav.sounds import RATE, play
from omnisink.synthav.vocabulary import SOUNDS, VOICE
from tests.skips import needs


def quiet_scene(**changes: object) -> Scene:
    """Return a scene without a voice, which needs no program beside Python."""
    scene = next(s for s in (make_scene("train", i) for i in range(100)) if VOICE not in s.kinds)
    return replace(scene, **changes)  # type: ignore[arg-type]


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    with av.open(str(path)) as file:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    with av.open(str(path)) as file:
        parts = [f.to_ndarray() for f in file.decode(audio=0)]
        rate = file.streams.audio[0].rate
    return np.stack(frames), np.concatenate(parts, axis=1)[0], rate


def test_a_clip_holds_what_was_drawn_and_played(tmp_path: Path) -> None:
    scene = quiet_scene()
    render(scene, tmp_path / "clip.mp4")
    frames, samples, rate = decoded(tmp_path / "clip.mp4")
    drawn = draw(scene, np.arange(int(SECONDS * FPS)) / FPS)
    assert frames.shape == drawn.shape == (32, SIDE, SIDE, 3)
    assert np.abs(frames.astype(int) - drawn).mean() < 8
    assert rate == RATE
    played = play(scene)
    assert abs(len(samples) / rate - SECONDS) < 0.1
    lag = np.correlate(samples[: len(played)], played, mode="same").argmax() - len(played) // 2
    assert abs(lag) / rate < 0.05, "the sound is where it should be"


@pytest.mark.parametrize("kind", [s for s in SOUNDS if s != VOICE])
def test_a_sound_is_heard_when_it_is_played_and_no_longer(kind: str) -> None:
    track = play(quiet_scene(sounds=(Sound(kind, 1.5),)))
    loudness = np.abs(track.reshape(-1, RATE // 10)).max(axis=1)
    assert loudness[15:17].max() > 0.3
    assert loudness[:15].max() < 0.02
    assert loudness[23:].max() < 0.02


def test_loud_is_louder_and_high_is_higher() -> None:
    def peak(**changes: str) -> tuple[float, float]:
        track = play(quiet_scene(sounds=(Sound("beep", 1.0, **changes),)))
        spectrum = np.abs(np.fft.rfft(track))
        return float(np.abs(track).max()), float(spectrum.argmax() / SECONDS)

    assert peak(loudness="loud")[0] > 4 * peak(loudness="quiet")[0]
    assert peak(pitch="high")[1] > 2 * peak(pitch="low")[1]


@needs("espeak-ng")
def test_the_voice_says_different_words_differently() -> None:
    red, blue = sounds.speak("red", "f2"), sounds.speak("blue", "f2")
    assert 0.2 < len(red) / RATE < 1.2
    assert np.abs(red).max() == pytest.approx(1)
    n = min(len(red), len(blue))
    assert abs(float(np.corrcoef(red[:n], blue[:n])[0, 1])) < 0.5


def test_a_voice_without_its_program_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds.shutil, "which", lambda _: None)
    with pytest.raises(OmnisinkError, match="need the program espeak-ng"):
        sounds.speak("red", "nobody")


@needs("espeak-ng")
def test_a_split_is_written_once_and_the_same_again(tmp_path: Path) -> None:
    made = list(write_split(tmp_path / "a", "test", 6))
    assert len(made) == 6
    lines = [json.loads(line) for line in (tmp_path / "a" / QUESTIONS).read_text().splitlines()]
    assert [(line["text"], line["answer"]) for line in lines] == [(q.text, q.answer) for q in made]
    assert all((tmp_path / "a" / line["video"]).stat().st_size > 5_000 for line in lines)
    clip = tmp_path / "a" / lines[0]["video"]
    before = clip.stat().st_mtime_ns
    assert list(write_split(tmp_path / "a", "test", 6)) == made
    assert clip.stat().st_mtime_ns == before, "a clip that is there is kept"
    other = tmp_path / "b"
    render(make_scene("test", int(clip.stem.split("-")[1])), other.with_suffix(".mp4"))
    assert np.array_equal(decoded(clip)[0], decoded(other.with_suffix(".mp4"))[0])


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OmnisinkError, match="could not be made"):
        list(write_split(tmp_path / "file" / "below", "test", 1))
