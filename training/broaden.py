"""Third round of the training: the towers go on from the weights that are shipped, with clips of many styles.

Half of what they are given is SynthAV as it is, so that it is not forgotten, and half is drawn and played by
`pictures` and `noises`. The labels and the loss are those of `towers`. The language model is left as it is: what the
towers say is still spelled in its own words.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnisink import load_model
from omnisink.models.smolomni import WEIGHTS
from omnisink.synthav.scene import Scene, Split, make_scene
from omnisink.synthav.sounds import RATE, play
from training import clips
from training.labels import GRIDS, HEARD, SEEN, heard, seen
from training.noises import play_varied, through_aac
from training.pictures import draw_varied
from training.towers import Words, drawn, learn, line, look, new_scene, quicken, rate, stack

#: Scenes of the tune split that the training is watched on.
_HELD = 100
#: The varied scenes of every round and purpose have random numbers of their own.
_EYES, _EARS = 31, 32


def _watched(style: Callable[[Scene, int], np.ndarray]) -> tuple[Tensor, Tensor]:
    """Draw one pair of frames of every scene that the training is watched on, and its labels."""
    scenes = [make_scene("tune", i) for i in range(_HELD)]
    frames = np.stack([style(scene, i % GRIDS) for i, scene in enumerate(scenes)])
    labels = stack([seen(scene)[i % GRIDS] for i, scene in enumerate(scenes)])
    return torch.from_numpy(frames), labels


def broaden_eyes(model: Any, words: Words, steps: int, peak: float, save: Callable[[], None], batch: int = 64) -> None:
    """Train the vision tower on pairs of frames, half of them in SynthAV's own style."""
    tower = model.model.visual
    quicken(tower)
    watched = {
        "own": _watched(drawn),
        "varied": _watched(lambda scene, pair: draw_varied(scene, pair, np.random.default_rng([scene.index, _EYES]))),
    }
    optimizer = torch.optim.AdamW([*tower.parameters(), words.scale], lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    started = time.time()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step, steps, peak)
        rng = np.random.default_rng([step, _EYES])
        scenes = [new_scene(int(rng.integers(2**40)), rng.random() < 0.3) for _ in range(batch)]
        pairs = rng.integers(GRIDS, size=batch)
        frames = [
            drawn(scene, int(pair)) if i < batch // 2 else draw_varied(scene, int(pair), rng)
            for i, (scene, pair) in enumerate(zip(scenes, pairs, strict=True))
        ]
        labels = stack([seen(scene)[pair] for scene, pair in zip(scenes, pairs, strict=True)])
        loss = learn(tower, words, optimizer, torch.from_numpy(np.stack(frames)), labels)
        if step % 100 == 0 or step == steps - 1:
            print(f"eyes {step} {time.time() - started:.0f} s loss {loss.item():.3f}", flush=True)
            for name, (held, expected) in watched.items():
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    z = look(tower, held)
                miss, right = words(z.float(), expected)
                print(f"  {name} {miss.item():.3f} {line(right)}", flush=True)
            save()


def _sounds(split: Split, start: int, count: int, ears: Any, varied: bool) -> tuple[np.ndarray, Tensor]:
    """Play some scenes; return what Whisper's encoder makes of them, (N, 100, 384), and the labels, (N, 100)."""
    import av

    heard_as, labels = [], []
    waiting: list[np.ndarray] = []
    for index in range(start, start + count):
        scene, rng = make_scene(split, index), np.random.default_rng([index, _EARS])
        samples, lengths = play_varied(scene, rng) if varied else (play(scene), None)
        samples = through_aac(samples, int(rng.choice([32, 48, 64, 96, 128])))
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
        parts = [r.to_ndarray()[0] for given in (frame, None) for r in resampler.resample(given)]
        waiting.append(np.concatenate(parts)[: 4 * 16_000])
        labels.append(heard(scene, lengths))
        if len(waiting) == 10 or index == start + count - 1:
            heard_as.append(clips.hear(ears, waiting))
            waiting = []
    return np.concatenate(heard_as), stack(labels)


def broaden_ears(model: Any, words: Words, weights: dict[str, Tensor], count: int, steps: int) -> None:
    """Fit the projection of the audio tower, on as many varied clips as SynthAV's own."""
    prefix = "model.audio_tower."
    ears = clips.frozen_ears({n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)})
    own, varied = (_sounds("train", 0, count, ears, kind) for kind in (False, True))
    watched = {name: _sounds("tune", 0, 2 * _HELD, ears, name == "varied") for name in ("own", "varied")}
    features, labels = np.concatenate([own[0], varied[0]]), torch.cat([own[1], varied[1]])
    tower = model.model.audio_tower
    optimizer = torch.optim.AdamW(
        [*tower.ln_post.parameters(), *tower.proj.parameters(), words.scale], weight_decay=0.01
    )
    rng = np.random.default_rng(_EARS)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step, steps, 3e-3)
        chosen = rng.integers(len(features), size=64)
        loss, _ = words(tower.proj(tower.ln_post(torch.from_numpy(features[chosen]).float())), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            for name, (held, expected) in watched.items():
                with torch.no_grad():
                    miss, right = words(tower.proj(tower.ln_post(torch.from_numpy(held).float())), expected)
                print(f"ears {step} {name} {miss.item():.3f} {line(right)}", flush=True)


def main() -> None:
    """Train what is asked for and write every weight that is shipped, with the language model's update as it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, default=WEIGHTS, help="weights to go on from")
    parser.add_argument("--ears", type=int, default=0, help="steps for the audio projection")
    parser.add_argument(
        "--clips", type=int, default=3000, help="clips of each style that the audio projection learns from"
    )
    parser.add_argument("--eyes", type=int, default=0, help="steps for the vision tower")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate of the vision tower")
    given = parser.parse_args()
    torch.manual_seed(0)
    loaded = load_model("smolomni")
    weights = {name: weight.float() for name, weight in load_file(given.start).items()}
    model, table = loaded.model, loaded.model.model.language_model.embed_tokens.weight.detach().clone()
    model.load_state_dict({n: w for n, w in weights.items() if n.startswith("model.")}, strict=False)
    model.requires_grad_(False)

    def save() -> None:
        state = model.state_dict()
        save_file({n: state[n].contiguous() if n in state else w for n, w in weights.items()}, given.out)

    if given.ears:
        for part in (model.model.audio_tower.ln_post, model.model.audio_tower.proj):
            part.requires_grad_(True)
        broaden_ears(model, Words(HEARD, loaded.tokenizer, table), weights, given.clips, given.ears)
        save()
    if given.eyes:
        model.model.visual.requires_grad_(True)
        broaden_eyes(model, Words(SEEN, loaded.tokenizer, table), given.eyes, given.rate, save)


if __name__ == "__main__":
    main()
