"""Time and memory of reading video: our reader against torchcodec and qwen-omni-utils, at equal frames."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.history import append, write_media_table
from benchmarks.pairs import Ratio, compare, rounded
from omnisink.media import Uniform, read_clip
from omnisink.models.adapters.qwen_frames import QwenFrames

FPS, SECONDS = 25, 60
_PEAK = """
import sys
from pathlib import Path
from omnisink.media import Uniform, read_clip

def peak():
    # Not getrusage, whose maximum begins with that of the process that started this one.
    return next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

before = peak()
clip = read_clip(sys.argv[1], frames=Uniform(64))
print(clip.frames.shape[0], before, peak())
"""


def make(path: Path, size: tuple[int, int], seconds: int, repeat: int = 1) -> Path:
    """Write moving noise with a keyframe every two seconds and a tone; `repeat` goes through the packets again."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "g": str(2 * FPS), "bf": "2"}
        )
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        sound: Any = file.add_stream("aac", rate=44_100, layout="stereo")
        packets = []
        for i in range(seconds * FPS):
            picture = np.kron(np.roll(small, 2 * i, axis=1), np.ones((8, 8, 1), dtype=np.uint8))
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        packets += stream.encode(None)
        span = packets[-1].dts - packets[0].dts + (packets[1].dts - packets[0].dts)
        # The container rewrites a packet's times into its own unit.
        times = [(p.pts, p.dts, p.time_base) for p in packets]
        for again in range(repeat):
            for packet, (pts, dts, unit) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.time_base = pts + again * span, dts + again * span, unit
                packet.stream = stream
                file.mux(packet)
        wave = (0.3 * np.sin(np.arange(44_100 * seconds) / 20)).astype(np.float32)
        for at in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(np.stack([wave[at : at + 1024]] * 2), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, at, Fraction(1, 44_100)
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return path


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return what runs the work and says how long it took."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


def with_torchcodec(path: Path, indices: list[int]) -> object:
    """Decode with torchcodec in its fastest mode, which trusts the file's header."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(str(path), seek_mode="approximate", num_ffmpeg_threads=0).get_frames_at(indices=indices).data


def with_utilities(path: Path) -> object:
    """Read frames and sound as `process_mm_info` does, without its resizing."""
    import librosa
    from audioread.ffdec import FFmpegAudioFile
    from qwen_omni_utils.v2_5.vision_process import VIDEO_READER_BACKENDS, get_video_reader_backend

    frames = VIDEO_READER_BACKENDS[get_video_reader_backend()]({"video": str(path)})
    return frames, librosa.load(FFmpegAudioFile(str(path)), sr=16_000)[0]


def cases(folder: Path, pairs: int) -> dict[str, Ratio]:
    """Return the ratio of our time to theirs."""
    found = {}
    for name, size in (("360p", (640, 360)), ("1080p", (1920, 1080))):
        path = make(folder / f"{name}.mp4", size, SECONDS)
        for count in (16, 120):
            indices = [int(i) for i in Uniform(count).select(np.arange(FPS * SECONDS) / FPS)]
            ours = timed(lambda path=path, count=count: read_clip(path, frames=Uniform(count)))
            theirs = timed(lambda path=path, indices=indices: with_torchcodec(path, indices))
            found[f"{name}, {count} of {FPS * SECONDS} frames, against torchcodec"] = compare(theirs, ours, pairs)
        ours = timed(lambda path=path: read_clip(path, frames=QwenFrames(), audio_rate=16_000))
        theirs = timed(lambda path=path: with_utilities(path))
        found[f"{name}, 120 frames and sound, against qwen-omni-utils"] = compare(theirs, ours, pairs)
    return found


def main() -> None:
    """Run the cases and append them to the history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--hour", action="store_true", help="only the memory of 64 frames of an hour of 1080p")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.hour:
            path = make(Path(folder) / "hour.mp4", (1920, 1080), 60, repeat=60)
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
            kept, before, peak = map(int, done.stdout.split())
            took = time.perf_counter() - started
            size = path.stat().st_size / 2**20
            print(f"{kept} frames of 60 min at 1080p, {size:.0f} MB: {peak / 1024:.0f} MB at the peak, {took:.1f} s")
            print(f"{before / 1024:.0f} MB before reading, {kept * 1920 * 1080 * 3 / 2**20:.0f} MB of pixels kept")
            return
        rows = []
        for name, ratio in cases(Path(folder), given.pairs).items():
            print(f"{name}: {ratio.p50:.3f} ({ratio.p20:.3f} to {ratio.p80:.3f}), theirs {ratio.plain_ms:.0f} ms")
            rows.append({"model": "media", "dtype": "uint8", "case": name, **rounded(ratio)})
    append(rows)
    write_media_table()


if __name__ == "__main__":
    main()
