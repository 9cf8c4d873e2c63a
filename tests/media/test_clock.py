"""Sound stays in time with the picture: pauses, tracks that begin early or late, and several tracks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from omnisink.media import MediaError, Uniform, read_audio, read_clip
from tests.media.media_files import pitch
from tests.skips import needs

pytestmark = needs("ffmpeg")
H264, VP8 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p", "-c:v libvpx -deadline realtime"


def ffmpeg(path: Path, *arguments: str) -> Path:
    words = [word for argument in arguments for word in (argument.split() if argument.startswith("-") else [argument])]
    done = subprocess.run(["ffmpeg", "-v", "error", "-y", *words, str(path)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return path


PICTURE = "-f lavfi -i testsrc2=s=160x120:r=25:d=4"


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("pause.webm", f"{VP8} -c:a libopus"),
        ("pause-vorbis.webm", f"{VP8} -c:a libvorbis"),
        ("pause.mkv", f"{H264} -c:a aac"),
        ("pause.mp4", f"{H264} -c:a aac"),
        ("pause.mov", f"{H264} -c:a aac"),
        ("pause.ts", f"{H264} -c:a aac"),
        ("pause.flv", f"{H264} -c:a aac -ar 44100"),
        ("pause-alone.mkv", "-vn -c:a aac"),
        ("pause-alone.m4a", "-vn -c:a aac"),
    ],
)
def test_a_pause_is_silence_and_what_follows_is_in_time(tmp_path, name, codecs):
    """440 Hz to 1 s, nothing to 3 s, then 880 Hz."""
    sound = "aevalsrc='if(lt(t,1),sin(2*PI*440*t),sin(2*PI*880*t))':s=48000:d=4"
    path = ffmpeg(
        tmp_path / name, PICTURE, "-f lavfi -i", sound, "-map 0 -map 1", "-af", "aselect='lt(t,1)+gte(t,3)'", codecs
    )
    frames = None if "alone" in name else Uniform(4)
    clip = read_clip(path, frames=frames, audio_rate=16_000)
    assert clip.audio is not None
    assert len(clip.audio) == pytest.approx(64_000, abs=1600)
    assert pitch(clip.audio[3_200:12_800], 16_000) == pytest.approx(440, abs=3)
    assert np.abs(clip.audio[20_000:44_000]).max() < 0.02
    assert pitch(clip.audio[51_200:60_000], 16_000) == pytest.approx(880, abs=3)
    assert clip.record.audio_silent == pytest.approx(2.0, abs=0.1)
    assert clip.record.samples_damaged == 0


@pytest.mark.parametrize("offset", [-0.6, 0.0, 0.8])
@pytest.mark.parametrize("name", ["early.mp4", "early.mkv", "early.ts", "early.mov"])
def test_a_click_is_heard_when_it_is_seen(tmp_path, name, offset):
    """The picture turns white at 2 s, and a tone begins at 2 s of the sound, which is moved by the offset."""
    white = "-f lavfi -i color=black:s=160x120:r=25:d=4,drawbox=t=fill:c=white:enable='gte(t,2)'"
    tone = "aevalsrc='if(lt(t,2),0,sin(2*PI*800*t))':s=48000:d=4"
    path = ffmpeg(tmp_path / name, white, f"-itsoffset {offset} -f lavfi -i", tone, "-map 0 -map 1", H264, "-c:a aac")
    clip = read_clip(path, frames=Uniform(1000), audio_rate=16_000)
    assert clip.frames is not None
    assert clip.times is not None
    assert clip.audio is not None
    seen = clip.times[int(np.argmax(clip.frames.mean(axis=(1, 2, 3)) > 128))]
    heard = np.flatnonzero(np.abs(clip.audio) > 0.3)[0] / 16_000
    assert heard - seen == pytest.approx(offset, abs=0.06)


def test_of_several_tracks_the_default_one_is_read(tmp_path):
    tones = [f"-f lavfi -i sine={hertz}:r=48000:d=4" for hertz in (400, 900)]
    maps = "-map 0 -map 1 -map 2 -disposition:a:0 0 -disposition:a:1 default"
    path = ffmpeg(tmp_path / "tracks.mkv", PICTURE, *tones, maps, H264, "-c:a aac")
    clip = read_clip(path, audio_rate=16_000)
    assert clip.audio is not None
    assert clip.record.audio_tracks == 2
    assert pitch(clip.audio[8_000:40_000], 16_000) == pytest.approx(900, abs=3)


def test_a_cover_picture_is_no_video(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), "white").save(tmp_path / "cover.png")
    for name, codec in (("song.m4a", "aac"), ("song.mp3", "libmp3lame"), ("song.flac", "flac")):
        cover = f"-i {tmp_path / 'cover.png'} -map 0 -map 1 -c:v copy -disposition:v:0 attached_pic"
        path = ffmpeg(tmp_path / name, "-f lavfi -i sine=440:r=44100:d=2", cover, f"-c:a {codec}")
        samples, _ = read_audio(path)
        assert pitch(samples, 16_000) == pytest.approx(440, abs=3)
        with pytest.raises(MediaError, match="has no video"):
            read_clip(path)


def test_a_video_that_is_mirrored_comes_as_a_player_shows_it(tmp_path):
    left = "-f lavfi -i color=black:s=160x120:r=25:d=1,drawbox=w=20:t=fill:c=white"
    path = ffmpeg(tmp_path / "plain.mp4", left, H264)
    data = path.read_bytes()
    identity = b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00" + bytes(12) + b"\x40\x00\x00\x00"
    track = data.index(b"tkhd")
    at = data.index(identity, track)
    mirrored = b"\xff\xff\x00\x00" + identity[4:]
    path.write_bytes(data[:at] + mirrored + data[at + len(identity) :])
    frames = read_clip(path, frames=Uniform(1)).frames
    assert frames is not None
    assert frames[0, 60, 150].min() > 200
    assert frames[0, 60, 10].max() < 50
    with pytest.raises(MediaError, match="its frames are mirrored|cannot be used on this machine"):
        read_clip(path, frames=Uniform(1), backend="torchcodec")


def test_a_rate_that_is_told_too_low_does_not_slow_the_sound(tmp_path):
    """An MP3 whose second half has another rate."""
    parts = [
        ffmpeg(
            tmp_path / f"{rate}.mp3", f"-f lavfi -i sine=440:r={rate}:d=2", "-write_xing 0 -id3v2_version 0"
        ).read_bytes()
        for rate in (44_100, 24_000)
    ]
    (tmp_path / "both.mp3").write_bytes(b"".join(parts))
    samples, _ = read_audio(tmp_path / "both.mp3")
    assert len(samples) == pytest.approx(64_000, rel=0.05)
    assert pitch(samples[40_000:56_000], 16_000) == pytest.approx(440, abs=3)


def test_two_recordings_one_after_another_are_not_mixed(tmp_path):
    """Broadcast recorders append: the clock begins again in the middle of the file."""
    for number, hertz in enumerate((400, 900)):
        shade = f"-f lavfi -i color=c={('black', 'white')[number]}:s=160x120:r=25:d=2"
        ffmpeg(tmp_path / f"{number}.ts", shade, f"-f lavfi -i sine={hertz}:r=48000:d=2", H264, "-c:a aac")
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    clip = read_clip(path, frames=Uniform(1000), audio_rate=16_000)
    assert clip.frames is not None
    assert clip.audio is not None
    shades = clip.frames.mean(axis=(1, 2, 3)) > 128
    assert len(shades) == 100
    assert shades.tolist() == [False] * 50 + [True] * 50
    assert pitch(clip.audio[4_000:28_000], 16_000) == pytest.approx(400, abs=3)
    assert pitch(clip.audio[36_000:60_000], 16_000) == pytest.approx(900, abs=3)
