"""Sound of every rate and layout, in time with the picture."""

from __future__ import annotations

import numpy as np
import pytest

from omnisink.media import AtTimes, MediaError, Uniform, read_audio, read_clip
from tests.media.media_files import pitch, sine, sound, video


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_pitch_and_loudness_survive_every_rate(tmp_path, rate):
    samples, record = read_audio(sound(tmp_path / "s.wav", sine(1000, 1.0, rate)[None], rate))
    assert record.audio_rate == rate
    assert len(samples) == pytest.approx(16_000, abs=2)
    assert pitch(samples, 16_000) == pytest.approx(1000, abs=2)
    assert np.sqrt(2 * np.mean(samples[2000:-2000] ** 2)) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_mono_is_the_mean_over_the_channels(tmp_path, layout, channels):
    each = np.stack([sine(200 * (c + 1), 0.5, 16_000, 0.3) for c in range(channels)])
    samples, record = read_audio(sound(tmp_path / "s.wav", each, 16_000, layout=layout))
    assert record.audio_channels == channels
    np.testing.assert_allclose(samples, each.mean(0), atol=1e-4)


@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_samples_are_those_of_librosa(tmp_path, rate):
    import librosa

    path = sound(
        tmp_path / "s.wav", np.stack([sine(440, 0.7, rate), sine(3100, 0.7, rate, 0.2)]), rate, layout="stereo"
    )
    expected, _ = librosa.load(path, sr=16_000)
    samples, _ = read_audio(path)
    assert len(samples) == pytest.approx(len(expected), abs=1)
    n = min(len(samples), len(expected))
    np.testing.assert_allclose(samples[:n], expected[:n], atol=2e-4)


@pytest.mark.parametrize(("name", "codec", "fmt"), [("s.flac", "flac", "s16"), ("s.mka", "pcm_s16le", "s16")])
def test_other_containers(tmp_path, name, codec, fmt):
    samples, record = read_audio(sound(tmp_path / name, sine(500, 0.5, 16_000)[None], 16_000, codec, fmt=fmt))
    assert pitch(samples, 16_000) == pytest.approx(500, abs=3)
    assert record.video_codec is None


def test_sound_of_a_video_lasts_as_long_as_it_does(tmp_path):
    path = video(tmp_path / "v.mp4", 50, audio=sine(700, 2.0, 16_000))
    clip = read_clip(path, frames=Uniform(4), audio_rate=8_000)
    assert clip.audio is not None
    assert clip.rate == 8_000
    assert len(clip.audio) / 8_000 == pytest.approx(2.0, abs=0.1)
    assert clip.record.samples == len(clip.audio)
    assert pitch(clip.audio[800:15_000], 8_000) == pytest.approx(700, abs=3)


def test_sound_can_be_cut_where_the_frames_end(tmp_path):
    path = video(tmp_path / "v.mp4", 50, audio=sine(700, 2.0, 16_000))
    clip = read_clip(path, frames=AtTimes((0.0, 0.96)), audio_rate=16_000, audio_span="frames")
    assert clip.audio is not None
    assert len(clip.audio) == 16_000
    assert clip.record.audio_span == "frames"


def test_sound_that_starts_later_than_the_picture_waits_for_it(tmp_path):
    path = video(tmp_path / "v.mkv", 50, audio=sine(700, 1.0, 16_000), start=0.5)
    clip = read_clip(path, audio_rate=16_000)
    assert clip.audio is not None
    assert clip.record.audio_offset == pytest.approx(0.5, abs=0.08)
    loud = np.flatnonzero(np.abs(clip.audio) > 0.1)[0] / 16_000
    assert loud == pytest.approx(0.5, abs=0.08)


def test_what_is_not_there_is_an_error(tmp_path):
    silent = video(tmp_path / "silent.mp4", 10)
    assert read_clip(silent).audio is None
    with pytest.raises(MediaError, match=r"silent\.mp4: has no sound"):
        read_clip(silent, audio_rate=16_000)
    only = sound(tmp_path / "only.wav", sine(300, 0.2, 8_000)[None], 8_000)
    assert read_clip(only, frames=None, audio_rate=8_000).frames is None
    with pytest.raises(MediaError, match=r"only\.wav: has no video"):
        read_clip(only)
    with pytest.raises(MediaError, match="neither frames nor sound are wanted"):
        read_clip(silent, frames=None)
