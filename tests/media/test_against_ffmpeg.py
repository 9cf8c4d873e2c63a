"""The frames, their times and the sound of files of many kinds are those that the ffmpeg program gives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from omnisink.media import ByFps, MediaError, Uniform, read_audio, read_clip
from tests.skips import needs

pytestmark = needs("ffmpeg")

PICTURE = "-f lavfi -i testsrc2=s=160x120:r=25:d=4"
SOUND = "-f lavfi -i aevalsrc='sin(2*PI*(300+150*t)*t)*0.5':s=48000:d=4"
H264 = "-c:v libx264 -preset ultrafast -bf 2 -g 25 -pix_fmt yuv420p"
#: Name of the file -> the ffmpeg commands that make it; several are run one after the other, `{}` is the folder.
VIDEOS = {
    "cut.mp4": [f"{PICTURE} {H264} {{}}/base.mp4", "-ss 1.3 -i {}/base.mp4 -c copy"],
    "cut.mov": [f"{PICTURE} {H264} {{}}/base.mp4", "-ss 1.3 -i {}/base.mp4 -c copy"],
    "cut-turned.mp4": [
        f"{PICTURE} {H264} {{}}/base.mp4",
        "-ss 0.7 -i {}/base.mp4 -c copy -metadata:s:v rotate=90",
    ],
    "broadcast.ts": [f"{PICTURE} {H264}"],
    "one-key.ts": [f"{PICTURE} -c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p"],
    "open-groups.ts": [f"{PICTURE} {H264} -x264-params open-gop=1"],
    "cut-open-groups.ts": [
        f"{PICTURE} {H264} -x264-params open-gop=1 {{}}/whole.ts",
        "-ss 1.7 -i {}/whole.ts -c copy",
    ],
    "disc.mpg": [f"{PICTURE} -c:v mpeg2video -g 12 -bf 2"],
    "disc.vob": [f"{PICTURE} -c:v mpeg2video -g 12 -bf 2 -f vob"],
    "mpeg2.ts": [f"{PICTURE} -c:v mpeg2video -g 12 -bf 2"],
    "raw.h264": [f"{PICTURE} {H264}"],
    "raw.h265": [f"{PICTURE} -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p"],
    "raw.m4v": [f"{PICTURE} -c:v mpeg4 -bf 2 -f m4v"],
    "raw.mjpeg": [f"{PICTURE} -c:v mjpeg"],
    "raw.m2v": [f"{PICTURE} -c:v mpeg2video -bf 2"],
    "b-frames.avi": [f"{PICTURE} -c:v mpeg4 -bf 2 -g 12"],
    "with-sound.avi": [f"{PICTURE} {SOUND} -c:v mpeg4 -g 12 -c:a libmp3lame"],
    "h264.avi": [f"{PICTURE} {H264}"],
    "fragments.mp4": [f"{PICTURE} {H264} -movflags frag_keyframe+empty_moov"],
    "live.mkv": [f"{PICTURE} {H264} -live 1"],
    "negative.mp4": [f"-itsoffset -0.5 {PICTURE} {H264} -avoid_negative_ts disabled -use_editlist 1"],
    "late.mkv": [f"{PICTURE} {H264} -output_ts_offset 7"],
    "vp8.webm": [f"{PICTURE} -c:v libvpx -auto-alt-ref 1 -lag-in-frames 10 -b:v 200k"],
    "vp9.webm": [f"{PICTURE} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 10"],
    "flash.flv": [f"{PICTURE} {H264}"],
    "windows.wmv": [f"{PICTURE} -c:v wmv2"],
    "film.ogv": [f"{PICTURE} -c:v libtheora"],
    "ten-bit.mp4": [f"{PICTURE} -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"],
    "full-colour.mkv": [f"{PICTURE} -c:v libx264 -preset ultrafast -pix_fmt yuv444p"],
    "grey.mkv": [f"{PICTURE} -c:v libx264 -preset ultrafast -pix_fmt gray"],
    "rgb.mkv": [f"{PICTURE} -c:v libx264rgb -preset ultrafast -pix_fmt rgb24"],
    "bt709.mp4": [f"{PICTURE} {H264} -colorspace bt709 -color_primaries bt709 -color_trc bt709"],
    "interlaced.ts": [f"{PICTURE} {H264} -flags +ildct+ilme -x264-params tff=1"],
    "film.mxf": [f"{PICTURE} -c:v mpeg2video -pix_fmt yuv420p -g 12 -bf 2"],
    "varying.mkv": [f"{PICTURE} -vf select='not(mod(n\\,3))+lt(n\\,30)' -vsync vfr {H264}"],
}

#: torchcodec's seeks do not reach every frame of these.
BROADCAST = ["broadcast.ts", "disc.mpg"]


def ffmpeg(command: str, *more: str) -> bytes:
    import shlex

    done = subprocess.run(["ffmpeg", "-v", "error", "-y", *shlex.split(command), *more], capture_output=True)
    assert not done.returncode, done.stderr.decode()
    return done.stdout


def make(folder: Path, name: str, commands: list[str]) -> Path:
    for command in commands[:-1]:
        ffmpeg(command.format(folder))
    ffmpeg(commands[-1].format(folder), str(folder / name))
    return folder / name


def frames_of(path: Path, size: tuple[int, int]) -> np.ndarray:
    raw = ffmpeg(f"-i {path} -an -vsync passthrough -f rawvideo -pix_fmt rgb24 -sws_flags bicubic", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


def times_of(path: Path) -> list[float | None]:
    probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-of", "json"]
    probe += ["-show_entries", "frame=best_effort_timestamp_time"]
    done = subprocess.run([*probe, str(path)], capture_output=True, check=True)
    said = [f.get("best_effort_timestamp_time") for f in json.loads(done.stdout)["frames"]]
    return [None if t is None else float(t) for t in said]


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_and_times_are_those_of_ffmpeg(tmp_path, name):
    path = make(tmp_path, name, VIDEOS[name])
    clip = read_clip(path, frames=Uniform(10_000))
    assert clip.frames is not None
    assert clip.times is not None
    expected = frames_of(path, clip.frames.shape[1:3])
    assert len(clip.frames) == len(expected)
    assert clip.record.frames_damaged == 0
    # Both decode to the bit; only the conversion of colours differs in another release of FFmpeg. A neighbouring frame
    # of this test picture differs by more than that.
    thumbnails = expected.astype(np.int16)
    for number, frame in enumerate(clip.frames):
        near = range(max(0, number - 2), min(len(expected), number + 3))
        differences = {other: np.abs(thumbnails[other] - frame).mean() for other in near}
        assert min(differences, key=differences.__getitem__) == number
        assert differences[number] < 7
    times = times_of(path)
    assert clip.record.times_from_rate == name.startswith("raw")
    if None in times or name.startswith("raw"):
        times = [i / 25 for i in range(len(times))]
    np.testing.assert_allclose(clip.times, np.array(times) - times[0], atol=2e-3)  # type: ignore[operator]
    for choice in (ByFps(2), Uniform(4), Uniform(1)):
        few = read_clip(path, frames=choice)
        chosen = choice.select(clip.times)
        assert few.frames is not None
        assert np.array_equal(few.frames, clip.frames[chosen])
        assert few.record.frames_damaged == 0


def test_a_broadcast_that_begins_inside_a_group_begins_with_its_first_whole_frame(tmp_path):
    path = make(tmp_path, "whole.ts", [f"{PICTURE} {H264} -g 10"])
    path.write_bytes(path.read_bytes()[188 * 90 :])
    clip = read_clip(path, frames=Uniform(1000))
    assert clip.frames is not None
    expected = frames_of(path, clip.frames.shape[1:3])
    assert len(clip.frames) == len(expected) < 100
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(clip.frames, expected, strict=True)) < 3
    # What came before is not shown and not silently left out either.
    assert clip.record.frames_damaged > 0


@needs("torchcodec")
@pytest.mark.parametrize("name", ["cut.mp4", "cut-turned.mp4", "b-frames.avi", "raw.h264", "vp9.webm", *BROADCAST])
def test_torchcodec_gives_the_same_frames_or_says_that_it_cannot(tmp_path, name):
    path = make(tmp_path, name, VIDEOS[name])
    ours = read_clip(path, frames=Uniform(5))
    if name in BROADCAST:
        with pytest.raises(MediaError, match="use the pyav backend"):
            read_clip(path, frames=Uniform(5), backend="torchcodec")
        return
    theirs = read_clip(path, frames=Uniform(5), backend="torchcodec")
    assert ours.frames is not None
    assert theirs.frames is not None
    assert np.abs(ours.frames.astype(int) - theirs.frames).mean() < 2
    keys = ("width", "height", "rotation", "frames_total", "frames_kept")
    assert [ours.record.to_dict()[k] for k in keys] == [theirs.record.to_dict()[k] for k in keys]


SOUNDS = {
    "mono.wav": f"{SOUND} -c:a pcm_s16le",
    "eight-bit.wav": f"{SOUND} -c:a pcm_u8",
    "24-bit.wav": f"{SOUND} -c:a pcm_s24le",
    "32-bit.wav": f"{SOUND} -c:a pcm_s32le",
    "double.wav": f"{SOUND} -c:a pcm_f64le",
    "law.wav": f"{SOUND} -ar 8000 -c:a pcm_mulaw",
    "surround.wav": f"{SOUND} -ac 6 -c:a pcm_s16le",
    "seven.flac": f"{SOUND} -ac 8 -c:a flac",
    "aac.m4a": f"{SOUND} -c:a aac",
    "aac.aac": f"{SOUND} -c:a aac",
    "aac.ts": f"{SOUND} -c:a aac",
    "stereo.mp3": f"{SOUND} -ac 2 -c:a libmp3lame",
    "no-header.mp3": f"{SOUND} -c:a libmp3lame -q:a 4 -write_xing 0",
    "opus.opus": f"{SOUND} -c:a libopus",
    "opus.webm": f"{SOUND} -c:a libopus",
    "vorbis.ogg": f"{SOUND} -c:a libvorbis",
    "apple.aiff": f"{SOUND} -c:a pcm_s16be",
    "apple.caf": f"{SOUND} -c:a alac",
    "windows.wma": f"{SOUND} -c:a wmav2",
    "film.ac3": f"{SOUND} -c:a ac3",
    "studio.w64": f"{SOUND} -ar 96000 -c:a pcm_s24le",
    "wave.wv": f"{SOUND} -c:a wavpack",
}


def samples_of(path: Path) -> np.ndarray:
    # The mean over the channels, as omnisink takes it.
    info = subprocess.run(["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)], capture_output=True)
    channels = json.loads(info.stdout)["streams"][0]["channels"]
    raw = np.frombuffer(ffmpeg(f"-i {path} -vn -f f32le -c:a pcm_f32le", "-"), np.float32).reshape(-1, channels)
    return raw.mean(axis=1)


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_that_of_ffmpeg(tmp_path, name):
    path = make(tmp_path, name, [SOUNDS[name]])
    _check_sound(path)


def test_the_sound_of_a_cut_m4a_begins_where_a_player_begins(tmp_path):
    path = make(tmp_path, "cut.m4a", [f"{SOUND} -c:a aac {{}}/whole.m4a", "-ss 1.37 -i {}/whole.m4a -c copy"])
    _check_sound(path)


def _check_sound(path: Path) -> None:
    expected = samples_of(path)
    rate = int(read_audio(path)[1].audio_rate or 0)
    samples, record = read_audio(path, rate)
    assert record.samples_damaged == 0
    # Another release of FFmpeg may drop the encoder's padding at the end, which this one keeps.
    assert len(samples) == pytest.approx(len(expected), abs=1200)
    n = min(len(samples), len(expected)) - 1200
    assert np.abs(samples[:n] - expected[:n]).max() < 2e-2
