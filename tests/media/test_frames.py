"""The right frames at the right times, from every kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnisink.media import AtTimes, ByFps, MediaError, Uniform, read_clip, read_image
from omnisink.media.kind import kind_of
from omnisink.media.sheet import contact_sheet
from tests.media.media_files import HEIGHT, WIDTH, numbered, numbers, sine, sound, video
from tests.skips import needs

CHOICES = [Uniform(7), Uniform(1), ByFps(2.0), ByFps(25.0, 5), AtTimes((0.0, 1.33, 1.34, 3.9, 50.0))]
FILES: dict[str, dict[str, Any]] = {
    "b-frames.mp4": {"options": {"g": "30", "bf": "3"}},
    "b-frames.mkv": {"options": {"g": "30", "bf": "3"}},
    "open-gop.mp4": {"options": {"g": "30", "bf": "3", "x264-params": "open-gop=1"}},
    "old.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "one-key.mp4": {"options": {"g": "999"}},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("video")
    return {name: video(folder / name, 120, **how) for name, how in FILES.items()}


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_the_chosen_frames_are_read_with_and_without_jumping(files, name, choice):
    expected = list(choice.select(np.arange(120) / 25))
    jumped, straight = read_clip(files[name], frames=choice), read_clip(files[name], frames=choice, jump=False)
    assert numbers(jumped.frames) == expected
    assert np.array_equal(jumped.frames, straight.frames)
    assert jumped.times == pytest.approx([i / 25 for i in expected], abs=2e-3)
    record = jumped.record
    assert (record.frames_total, record.frames_kept, record.frames_damaged) == (120, len(expected), 0)
    assert record.average_fps == pytest.approx(25, rel=1e-3)


def test_a_choice_of_ones_own_may_repeat_frames(files):
    class Mine:
        def select(self, times):
            return np.array([3, 3, 3, 90, 90])

    assert numbers(read_clip(files["b-frames.mp4"], frames=Mine()).frames) == [3, 3, 3, 90, 90]


def test_times_are_true_where_the_rate_varies(tmp_path):
    def time(i: int) -> int:
        return 40 * i + (300 if i >= 30 else 0) + 13 * (i % 3)

    path = video(tmp_path / "v.mp4", 60, times=time, options={"g": "20", "bf": "2"})
    clip = read_clip(path, frames=Uniform(60))
    assert clip.times == pytest.approx([time(i) / 1000 for i in range(60)], abs=1.1e-3)
    assert numbers(read_clip(path, frames=AtTimes((1.2, 1.45, 1.5))).frames) == [29, 29, 30]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_frames_come_upright(tmp_path, degrees):
    straight = read_clip(video(tmp_path / "a.mp4", 4), frames=Uniform(1)).frames
    clip = read_clip(video(tmp_path / "b.mp4", 4, rotate=degrees), frames=Uniform(1))
    assert straight is not None
    assert clip.frames is not None
    assert np.array_equal(clip.frames[0], np.rot90(straight[0], clip.record.rotation // 90))
    assert clip.record.rotation in (degrees, 360 - degrees)
    turned = degrees != 180
    assert (clip.record.width, clip.record.height) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))


def test_odd_sizes_and_smaller_ones(tmp_path):
    path = video(tmp_path / "odd.mkv", 5, size=(67, 41), codec="ffv1", pix_fmt="yuv444p")
    clip = read_clip(path, frames=Uniform(5))
    assert clip.frames is not None
    assert clip.frames.shape == (5, 41, 67, 3)
    small = read_clip(path, frames=Uniform(2), max_side=20).frames
    assert small is not None
    assert small.shape == (2, 12, 20, 3)


@pytest.mark.parametrize("name", ["clip.txt", "clip.png", "clip"])
def test_the_name_of_a_file_does_not_matter(tmp_path, name):
    path = video(tmp_path / "right.mp4", 10).rename(tmp_path / name)
    assert read_clip(path, frames=Uniform(2)).record.frames_total == 10


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_still_image_is_a_video_of_one_frame(tmp_path, suffix):
    from PIL import Image

    path = tmp_path / f"still.{suffix}"
    Image.fromarray(numbered(5)).save(path)
    clip = read_clip(path)
    assert numbers(clip.frames) == [5]
    assert list(clip.times) == [0.0]  # type: ignore[arg-type]
    pixels, record = read_image(path)
    assert numbers([pixels]) == [5]
    assert (record.width, record.height) == (WIDTH, HEIGHT)
    assert kind_of(path) == "image"


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(numbered(5)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels, _ = read_image(tmp_path / "turned.jpg")
    assert pixels.shape == (WIDTH, HEIGHT, 3)
    clip = read_clip(tmp_path / "turned.jpg")
    assert np.array_equal(clip.frames[0], pixels)  # type: ignore[index]


def test_kinds_of_files(tmp_path, files):
    assert kind_of(files["old.avi"]) == "video"
    assert kind_of(sound(tmp_path / "s.wav", sine(300, 0.2, 8000)[None], 8000)) == "audio"


@needs("torchcodec")
@pytest.mark.parametrize("name", ["b-frames.mp4", "open-gop.mp4"])
def test_the_other_decoder_gives_the_same_frames(files, name):
    ours, theirs = (read_clip(files[name], frames=Uniform(6), backend=b) for b in ("pyav", "torchcodec"))
    assert numbers(theirs.frames) == numbers(ours.frames)
    assert np.abs(theirs.frames.astype(int) - ours.frames).mean() < 2  # type: ignore[union-attr]
    assert theirs.record.backend == "torchcodec"
    small = read_clip(files[name], frames=Uniform(2), backend="torchcodec", max_side=80).frames
    assert small is not None
    assert small.shape == (2, 48, 80, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ByFps(0),
        lambda: ByFps(float("nan")),
        lambda: ByFps(1.0, 0),
        lambda: Uniform(0),
        lambda: AtTimes(()),
        lambda: AtTimes((2.0, 1.0)),
        lambda: AtTimes((-1.0,)),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused_when_it_is_made(make):
    with pytest.raises(ValueError):
        make()


def test_a_contact_sheet_holds_every_frame(tmp_path, files):
    from PIL import Image

    clip = read_clip(files["old.avi"], frames=Uniform(6))
    assert clip.frames is not None
    assert clip.times is not None
    contact_sheet(clip.frames, clip.times, tmp_path / "sheet.png", columns=3, side=80)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 86 + 6, 2 * (48 + 22) + 6)
    with pytest.raises(MediaError, match="cannot be written"):
        contact_sheet(clip.frames, clip.times, tmp_path / "absent" / "sheet.png")
    with pytest.raises(MediaError, match="cannot be written"):
        contact_sheet(clip.frames, clip.times, tmp_path / "sheet.nothing")
