"""Render SynthAV clips to mp4, read them back as any video is read, and keep what the training needs of each.

What is kept: eight frames as the vision tower sees them, and what the frozen Whisper encoder makes of the sound. The
files themselves are not kept.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnisink.models.smolomni import SIDE
from omnisink.synthav.render import render
from omnisink.synthav.scene import SECONDS, Split, make_scene

#: Frames and audio tokens of a clip of four seconds.
FRAMES, TOKENS, WIDTH = 8, 100, 384
_BLOCK = 100


def frame_times(rate: int) -> np.ndarray:
    """Return when the frames that the tower sees are shown, (8,) seconds, in a clip at `rate` frames a second."""
    return np.linspace(0, SECONDS * rate - 1, FRAMES).round() / rate


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames, (8, 112, 112, 3) uint8, and the samples at 16 kHz, float32."""
    import av
    from torchvision.transforms.v2.functional import resize

    with av.open(str(path)) as file:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    with av.open(str(path)) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
        parts = [r.to_ndarray()[0] for f in file.decode(audio=0) for r in resampler.resample(f)]
        parts += [r.to_ndarray()[0] for r in resampler.resample(None)]
    chosen = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
    picture = torch.from_numpy(np.stack([frames[i] for i in chosen])).permute(0, 3, 1, 2)
    small = resize(picture, [SIDE, SIDE], interpolation=3, antialias=True)
    return small.permute(0, 2, 3, 1).numpy(), np.concatenate(parts)


_EARS: Any = None


def frozen_ears(weights: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """Make Whisper's encoder, without what the training adds, and its feature extractor from the encoder's weights."""
    from transformers import Qwen2_5OmniThinkerConfig, WhisperFeatureExtractor
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

    from omnisink.models.smolomni import AUDIO

    config = Qwen2_5OmniThinkerConfig(audio_config={**AUDIO, "output_dim": WIDTH}).audio_config
    tower = Qwen2_5OmniAudioEncoder(config).eval()
    # What the training adds comes after the encoder: its last norm and the projection.
    encoder = {name: weight for name, weight in weights.items() if name.startswith(("conv", "layers."))}
    tower.load_state_dict(encoder, strict=False)
    tower.ln_post = torch.nn.Identity()
    tower.proj = torch.nn.Identity()
    return tower, WhisperFeatureExtractor(feature_size=80)


def hear(ears: tuple[Any, Any], samples: list[np.ndarray]) -> np.ndarray:
    """Return the encoder's output before its last norm, averaged in pairs: (N, 100, 384) float16."""
    tower, extractor = ears
    made = extractor(
        samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    lengths = made["attention_mask"].sum(-1)
    packed = made["input_features"].permute(0, 2, 1)[made["attention_mask"].bool()].T
    with torch.no_grad():
        out = tower(packed, feature_lens=lengths, aftercnn_lens=(lengths - 1) // 2 + 1).last_hidden_state
    return out.view(len(samples), TOKENS, WIDTH).half().numpy()


def _ears(samples: list[np.ndarray], whisper: str) -> np.ndarray:
    """Hear with Whisper's weights, which each process reads once."""
    global _EARS
    from training.whisper import audio_tower

    if _EARS is None:
        torch.set_num_threads(1)
        _EARS = frozen_ears(audio_tower(Path(whisper)))
    return hear(_EARS, samples)


def make_block(split: Split, start: int, stop: int, whisper: str) -> tuple[np.ndarray, np.ndarray]:
    """Render, read and encode a run of clips."""
    frames, samples = [], []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(start, stop):
            path = Path(folder) / f"{index}.mp4"
            render(make_scene(split, index), path)
            seen, heard = read(path)
            frames.append(seen)
            samples.append(heard)
            path.unlink()
    ears = [_ears(samples[i : i + 10], whisper) for i in range(0, len(samples), 10)]
    return np.stack(frames), np.concatenate(ears)


def make(out: Path, split: Split, count: int, whisper: str, workers: int) -> None:
    """Fill `out` with blocks of clips; blocks that are there are kept, so that an interrupted run goes on."""
    out.mkdir(parents=True, exist_ok=True)
    todo = [s for s in range(0, count, _BLOCK) if not (out / f"{split}-{s:06d}.npz").exists()]
    with ProcessPoolExecutor(workers) as pool:
        jobs = {s: pool.submit(make_block, split, s, min(s + _BLOCK, count), whisper) for s in todo}
        for start, job in jobs.items():
            frames, ears = job.result()
            part = out / f"{split}-{start:06d}.part.npz"
            np.savez(part, frames=frames, ears=ears)
            part.rename(out / f"{split}-{start:06d}.npz")
            print(f"{split} {start + len(frames)}/{count}", flush=True)


def load(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return every clip of a split: frames (N, 8, 112, 112, 3) uint8 and encoder outputs (N, 100, 384) float16."""
    parts = [np.load(path) for path in sorted(folder.glob(f"{split}-??????.npz"))]
    if not parts:
        raise FileNotFoundError(f"no clips of {split} in {folder}: run python -m training.clips first")
    return np.concatenate([p["frames"] for p in parts]), np.concatenate([p["ears"] for p in parts])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--whisper", required=True, help="model.bin of Whisper-tiny in CTranslate2's format")
    parser.add_argument("--split", choices=["train", "tune", "test"], required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    make(given.out, given.split, given.count, given.whisper, given.workers)
