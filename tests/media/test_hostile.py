"""Files made to do harm: none fills the memory, hangs, crashes, or makes FFmpeg open another file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omnisink.media import MediaError, Uniform, read_audio, read_clip, read_image
from omnisink.media.kind import kind_of
from tests.media.media_files import numbers, sine, sound, video


def wav(path: Path, data: bytes, channels: int = 1, rate: int = 16_000, bits: int = 16, tag: int = 1) -> Path:
    """Write a WAV with any head."""
    block = channels * max(1, bits // 8)
    head = struct.pack("<IHHIIHH", 16, tag, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    path.write_bytes(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + head + b"data")
    with path.open("ab") as file:
        file.write(struct.pack("<I", len(data)) + data)
    return path


@pytest.mark.parametrize("channels", [33, 63, 255])
def test_too_many_channels_are_refused_before_decoding(tmp_path, channels):
    path = wav(tmp_path / "many.wav", bytes(256 * channels), channels, bits=8)
    with pytest.raises(MediaError, match=rf"many\.wav: its sound has {channels} channels"):
        read_audio(path)


@pytest.mark.parametrize("channels", [3, 9, 20, 32])
def test_channels_without_a_known_layout_are_read(tmp_path, channels):
    each = np.stack([sine(100 + 50 * c, 0.2, 16_000, 0.3) for c in range(channels)])
    path = wav(tmp_path / "some.wav", (each.T * 32767).astype("<i2").tobytes(), channels)
    samples, record = read_audio(path)
    assert record.audio_channels == channels
    np.testing.assert_allclose(samples, each.mean(0), atol=1e-3)


@pytest.mark.parametrize(("tag", "bits"), [(0xFFFF, 16), (1, 0), (1, 65_535), (3, 8), (0x0050, 16)])
def test_sound_without_a_decoder_is_refused(tmp_path, tag, bits):
    path = wav(tmp_path / "odd.wav", bytes(4000), bits=bits, tag=tag)
    with pytest.raises(MediaError, match=r"odd\.wav: "):
        read_audio(path)


def test_video_without_a_decoder_is_refused(tmp_path):
    path = video(tmp_path / "v.avi", 10, codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"QQQQ"))
    with pytest.raises(MediaError, match=r"v\.avi: this FFmpeg has no decoder for its video"):
        read_clip(path)


@pytest.mark.parametrize("rate", [1, 40, 4_000_000_000])
def test_absurd_rates_are_refused(tmp_path, rate):
    with pytest.raises(MediaError, match=r"slow\.wav: .*(samples per second|cannot be opened|limit)"):
        read_audio(wav(tmp_path / "slow.wav", bytes(14_000), rate=rate))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_not_numbers_are_refused(tmp_path, odd):
    samples = sine(300, 1.0, 16_000)
    samples[1000] = odd
    for name, dtype, bits in (("float.wav", "<f4", 32), ("double.wav", "<f8", 64)):
        path = wav(tmp_path / name, samples.astype(dtype).tobytes(), bits=bits, tag=3)
        with pytest.raises(MediaError, match=f"{name}: its sound holds samples that are not numbers"):
            read_audio(path)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_sound_of_a_few_samples_is_that_short(tmp_path, count, rate):
    samples, record = read_audio(wav(tmp_path / "short.wav", b"\x00\x10" * count, rate=rate))
    assert len(samples) == record.samples == count * 16_000 // rate


def test_a_sound_of_no_samples_is_refused(tmp_path):
    with pytest.raises(MediaError, match=r"none\.wav: "):
        read_audio(wav(tmp_path / "none.wav", b""))


def test_tags_that_are_not_utf8_do_no_harm(tmp_path):
    import av

    path = tmp_path / "tagged.mp4"
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "XQXQ"
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        file.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"XQXQ", b"\xe9\xe8\xff\xe9"))
    assert read_clip(path).record.frames_total == 5


@pytest.mark.parametrize(
    "name",
    ["10:30.mp4", "http:x.mp4", "take%03d.mp4", "a%20b.mp4", "concat:a|b.mp4", "\x1b[2Jx.mp4", "-y.mp4", "a\nb.mp4"],
)
def test_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "plain.mp4", 5, audio=sine(300, 0.2, 16_000)).rename(tmp_path / name)
    clip = read_clip(name, frames=Uniform(5), audio_rate=16_000)
    assert numbers(clip.frames) == [0, 1, 2, 3, 4]
    assert kind_of(name) == "video"


def test_a_pattern_in_a_name_of_a_picture_opens_no_other(tmp_path):
    from PIL import Image

    for name, colour in (("p%d.png", 10), ("p0.png", 200), ("p1.png", 200)):
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / name)
    assert read_clip(tmp_path / "p%d.png").frames[0, 0, 0, 0] == 10  # type: ignore[index]


LISTS = {
    "concat": "ffconcat version 1.0\nfile {other}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
    "hls with spaces": "\n\n#EXTM3U\n#EXTINF:1,\n{other}\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?>\n<MPD><Period><BaseURL>{other}</BaseURL></Period></MPD>',
    "smil": "<smil><body><video src='{other}'/></body></smil>",
    "avisynth": 'AviSource("{other}")\n',
    "imf": "<CompositionPlaylist>{other}</CompositionPlaylist>",
}


_READ_ALL = """
import sys
from pathlib import Path
from omnisink.media import MediaError, read_clip
for path in sorted(Path(sys.argv[1]).glob("list*")):
    try:
        read_clip(path, audio_rate=16_000)
    except MediaError as error:
        assert f"{path}: not a media file" in str(error), error
        print(path.name)
"""


def test_no_text_makes_ffmpeg_open_another_file(tmp_path):
    """The other file is a pipe that nobody writes to: whoever opens it waits for ever."""
    os.mkfifo(tmp_path / "pipe.mp4")
    names = [
        f"list-{number}.{suffix}" for number in range(len(LISTS)) for suffix in ("mp4", "m3u8", "avs", "wav", "png")
    ]
    for name in names:
        text = list(LISTS.values())[int(name[5])]
        (tmp_path / name).write_text(text.format(other="pipe.mp4"))
    command = [sys.executable, "-c", _READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == sorted(names)


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        for read in (read_clip, read_audio, read_image, kind_of):
            with pytest.raises(MediaError, match="is a pipe or a device, not a file"):
                read(path)


def test_a_matroska_file_that_is_cut_off_is_refused(tmp_path):
    path = video(tmp_path / "v.webm", 50, codec="libvpx", options={"deadline": "realtime"})
    data = path.read_bytes()
    for part in (3, 9):
        path.write_bytes(data[: len(data) * part // 10])
        with pytest.raises(MediaError, match=r"v\.webm: the file is cut off"):
            read_clip(path)


def test_sound_that_is_lost_from_a_matroska_file_is_counted(tmp_path):
    tone = sine(440, 4.0, 16_000)
    path = video(tmp_path / "v.mkv", 100, audio=tone, options={"g": "10"}, container={"cluster_time_limit": "500"})
    whole = read_clip(path, audio_rate=16_000)
    data = bytearray(path.read_bytes())
    clusters = [at for at in range(len(data)) if data[at : at + 4] == b"\x1f\x43\xb6\x75"]
    at = clusters[len(clusters) // 2]
    data[at + 4 : at + 400] = bytes(396)
    path.write_bytes(bytes(data))
    damaged = read_clip(path, audio_rate=16_000)
    assert damaged.audio is not None
    assert whole.audio is not None
    assert whole.record.samples_damaged == 0
    assert damaged.record.samples_damaged > 0
    # What follows the damage stays in time.
    assert len(damaged.audio) == pytest.approx(len(whole.audio), abs=1600)


def test_sound_that_begins_days_later_is_refused(tmp_path):
    path = video(tmp_path / "late.mkv", 10, audio=sine(300, 0.5, 16_000), start=200_000)
    with pytest.raises(MediaError, match=r"late\.mkv: .* beyond the limit|longer than the limit"):
        read_clip(path, audio_rate=16_000)


def test_pictures_and_frames_that_are_too_large_are_refused(tmp_path):
    from PIL import Image

    Image.new("1", (13_000, 13_000)).save(tmp_path / "huge.png")
    with pytest.raises(MediaError, match=r"huge\.png: the picture has more than .* pixels"):
        read_image(tmp_path / "huge.png")
    path = video(tmp_path / "wide.avi", 1, codec="rawvideo", size=(8_200, 8_200), pix_fmt="gray")
    with pytest.raises(MediaError, match=r"wide\.avi: its frames have more than"):
        read_clip(path)


def test_a_large_photograph_is_decoded_smaller(tmp_path):
    from PIL import Image

    Image.new("L", (12_000, 9_000), 77).save(tmp_path / "photo.jpg")
    pixels, _ = read_image(tmp_path / "photo.jpg")
    assert pixels.shape == (4500, 6000, 3)


_PEAK = """
import resource, sys
from omnisink.media import Uniform, read_clip
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clip = read_clip(sys.argv[1], frames=Uniform(24), max_pixels=2**24)
print(clip.frames.shape, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_large_frames_are_scaled_while_they_are_decoded(tmp_path):
    """All of these at full size would be 288 MiB."""
    path = video(tmp_path / "large.avi", 24, codec="mjpeg", size=(2048, 2048), pix_fmt="yuvj420p")
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    shape, peak = done.stdout.rsplit(" ", 1)
    assert shape == "(24, 836, 836, 3)"
    assert int(peak) < 180


def test_a_sound_longer_than_the_limit_is_refused_before_it_is_decoded_to_its_end(tmp_path):
    path = sound(tmp_path / "long.flac", sine(300, 30.0, 8_000)[None], 8_000, "flac")
    with pytest.raises(MediaError, match=r"long\.flac: lasts 30 s, longer than the limit of 5 s"):
        read_audio(path, max_seconds=5)
