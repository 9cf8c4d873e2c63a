"""Files that cannot be used, one clear error each; and damage that is never silent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omnisink.media import MediaError, Uniform, read_audio, read_clip, read_image
from tests.media.media_files import sine, sound, video


def refused(path: Path, match: str, **how) -> None:
    with pytest.raises(MediaError, match=match) as caught:
        read_clip(path, **how)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_empty(tmp_path):
    refused(tmp_path / "absent.mp4", "there is no such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "the file is empty")


@pytest.mark.parametrize("content", [b"\x00" * 5000, bytes(range(256)) * 40, b"no media, only words\n" * 200])
def test_what_is_not_media(tmp_path, content):
    for name in ("thing.mp4", "thing.txt", "thing.wav"):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, "not a media file|cut off or damaged|has neither|cannot be decoded|has no video")
    (tmp_path / "thing.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"thing\.png: not an image"):
        read_image(tmp_path / "thing.png")


def test_lists_of_other_files_are_not_followed(tmp_path):
    target = video(tmp_path / "target.mp4", 10)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target.name}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {target.name}\n")
    for name in ("list.m3u8", "list.ffconcat"):
        refused(tmp_path / name, "not a media file")


@pytest.mark.parametrize("front", [False, True], ids=["index at the end", "index in front"])
def test_a_video_that_is_cut_off(tmp_path, front):
    options = {"movflags": "faststart"} if front else {}
    path = video(tmp_path / "v.mp4", 120, audio=sine(400, 4.8, 16_000), container=options)
    data = path.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    refused(cut, "cut off", frames=Uniform(4), audio_rate=16_000)


@pytest.mark.parametrize(("name", "codec"), [("s.wav", "pcm_s16le"), ("s.flac", "flac")])
def test_a_sound_that_is_cut_off(tmp_path, name, codec):
    path = sound(tmp_path / name, sine(400, 4.0, 16_000)[None], 16_000, codec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        read_audio(path)


@pytest.mark.parametrize(
    "name", ["v.flv", "v.wmv", "v.mkv", "v.avi", "v.mov", "s.w64", "s.caf", "s.aiff", "s.au", "s.mp3"]
)
def test_every_container_that_says_how_long_it_is_is_held_to_it(tmp_path, name):
    path = tmp_path / name
    tone = sine(400, 4.0, 16_000)
    if name[0] == "v":
        codec = "wmv2" if name.endswith("wmv") else "mpeg4" if name.endswith("avi") else "libx264"
        container = {"movflags": "faststart"} if name.endswith("mov") else {}
        video(path, 100, codec=codec, audio=tone, container=container)
    else:
        codec, fmt = {"mp3": ("libmp3lame", "s16p"), "aiff": ("pcm_s16be", "s16"), "au": ("pcm_s16be", "s16")}.get(
            name[2:], ("pcm_s16le", "s16")
        )
        sound(path, tone[None], 16_000, codec, fmt=fmt)
    assert read_audio(path)[1].samples_damaged == 0
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=f"{name}: the file is cut off"):
        read_audio(path)
    if name[0] == "v":
        refused(path, "the file is cut off", frames=Uniform(4))


def test_a_cut_image(tmp_path):
    from PIL import Image

    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MediaError, match=r"cut\.png: the image is cut off or damaged"):
        read_image(path)


def test_longer_than_the_limit(tmp_path):
    path = video(tmp_path / "v.mp4", 75)
    refused(path, r"lasts 3 s, longer than the limit of 2 s", max_seconds=2.0)
    assert read_clip(path, max_seconds=None).record.frames_total == 75


def test_words_that_are_not_known(tmp_path):
    path = video(tmp_path / "v.mp4", 5)
    with pytest.raises(MediaError, match="unknown backend 'decord'"):
        read_clip(path, backend="decord")
    with pytest.raises(MediaError, match="unknown audio_span 'half'"):
        read_clip(path, audio_span="half")

    class Nothing:
        def select(self, times):
            return np.zeros(0, dtype=np.int64)

    refused(path, "no frame was chosen", frames=Nothing())


def test_damage_is_counted_or_refused(tmp_path):
    path = video(tmp_path / "v.mp4", 120, options={"g": "30"}, audio=sine(400, 4.8, 16_000))
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    noise = np.random.default_rng(1).integers(0, 256, 400, dtype=np.uint8).tobytes()
    middle = begin + (len(data) - begin) // 4
    data[middle : middle + 400] = noise
    path.write_bytes(bytes(data))
    refusal, counted = "", 0
    try:
        record = read_clip(path, frames=Uniform(120), audio_rate=16_000).record
        counted = record.frames_damaged + record.samples_damaged
    except MediaError as error:
        refusal = str(error)
    assert counted > 0 or path.name in refusal


_PEAK = """
import resource, sys
from omnisink.media import Uniform, read_clip
clip = read_clip(sys.argv[1], frames=Uniform(8))
assert clip.frames.shape[0] == 8
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_is_bounded_by_the_frames_kept_and_not_by_the_file(tmp_path):
    """All frames of the longer file would be 550 MB."""

    def peak(frames: int) -> float:
        path = video(tmp_path / f"{frames}.mp4", frames, size=(640, 480), options={"preset": "ultrafast", "g": "25"})
        done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024

    assert peak(600) - peak(30) < 40
