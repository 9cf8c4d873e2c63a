"""First part of the training: only the towers, against what their tokens should say.

The words of a label are the language model's own embeddings of these words, so that what the towers make is close to
what the language model has always read.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from omnisink.models.smolomni import SIDE
from omnisink.synthav.draw import FPS, draw
from omnisink.synthav.draw import SIDE as DRAWN
from omnisink.synthav.scene import make_scene
from omnisink.synthav.vocabulary import DIRECTIONS
from training import clips
from training.labels import GRIDS, HEARD, SEEN, embeddings, heard, sayings, seen

_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
#: Most tokens say that there is nothing, and most things stay where they are: without weights the few that move would
#: not be learned.
_WEIGHT = {"nothing": 0.3, "silence": 0.3, "still": 0.5, **dict.fromkeys(DIRECTIONS, 2.0)}
_DIRECTIONS = torch.tensor([sayings(SEEN).index(word) for word in DIRECTIONS])
#: Clips of the tune split that the training is watched on.
_HELD = 200
#: Scenes drawn without a file, only for pictures; far from those of the clips.
_DRAWN_FROM = 10_000_000


def patchify(frames: Tensor) -> Tensor:
    """Turn frames (B, 8, 112, 112, 3) uint8 into the processor's patches, (B * 4 * 64, 1176)."""
    batch, count, side = frames.shape[:3]
    n = side // 28
    x = (frames.float() / 255 - _MEAN) / _STD
    x = x.view(batch, count // 2, 2, n, 2, 14, n, 2, 14, 3)
    return x.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8).reshape(batch * count // 2 * 4 * n * n, -1)


def quicken(visual: nn.Module, length: int = 64) -> None:
    """Make the tower quick on a CPU without changing what it computes.

    Attention runs over all windows at once, which is the same where they have one length, and patches are embedded
    by a matrix product, which is what a convolution comes to whose stride is its kernel.
    """
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb_vision

    def attend(self: Any, x: Tensor, position_embeddings: Any = None, **_: Any) -> Tensor:
        q, k, v = (part(x).view(-1, self.num_heads, self.head_dim) for part in (self.q, self.k, self.v))
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (part.view(-1, length, self.num_heads, self.head_dim).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scaling)
        return self.proj(out.transpose(1, 2).reshape(x.shape))

    def embed(self: Any, x: Tensor) -> Tensor:
        return F.linear(x, self.proj.weight.flatten(1))

    for block in visual.blocks:  # type: ignore[union-attr]
        block.attn.forward = attend.__get__(block.attn)
    visual.patch_embed.forward = embed.__get__(visual.patch_embed)  # type: ignore[union-attr]


def look(visual: nn.Module, frames: Tensor) -> Tensor:
    """Return the video tokens of some clips, sixteen for every two frames: (B, 8 * frames, width)."""
    grid = torch.tensor([[frames.shape[1] // 2, SIDE // 14, SIDE // 14]]).expand(len(frames), 3)
    out = visual(patchify(frames).to(next(visual.parameters()).dtype), grid_thw=grid).pooler_output
    return out.view(len(frames), -1, out.shape[-1])


class Words(nn.Module):
    """The loss: what a token says, and how near it is to the embedding of that."""

    def __init__(self, groups: dict[str, tuple[str, ...]], tokenizer: Any, table: Tensor) -> None:
        super().__init__()
        said = sayings(groups)
        self.scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("table", embeddings(said, tokenizer, table))
        self.register_buffer("weight", torch.tensor([_WEIGHT.get(one, 1.0) for one in said]))
        self.groups = {name: torch.tensor([said.index(one) for one in group]) for name, group in groups.items()}

    def forward(self, z: Tensor, label: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and, for every group, the share of right tokens."""
        logits = z @ (self.table - self.table.mean(0)).T * self.scale.exp()
        right = logits.argmax(-1) == label
        shares = {name: float(right[torch.isin(label, group)].float().mean()) for name, group in self.groups.items()}
        weight = self.weight[label]
        miss = (z - self.table[label]).pow(2).mean(-1)
        near = (miss * weight).sum() / weight.sum() / self.table.var()
        shares["mse"] = float(near.detach())
        return F.cross_entropy(logits.flatten(0, -2), label.flatten(), weight=self.weight) * 3 + near, shares


def rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: warm up for 50 steps, then fall along a cosine to a fiftieth."""
    return peak * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train_ears(model: Any, tokenizer: Any, folder: Path, steps: int, batch: int = 64) -> None:
    """Fit the projection of the audio tower."""
    _, ears = clips.load(folder, "train")
    labels = stack([heard(make_scene("train", i)) for i in range(len(ears))])
    _, tune = clips.load(folder, "tune")
    tune_labels = stack([heard(make_scene("tune", i)) for i in range(len(tune))])
    tower = model.model.audio_tower
    words = Words(HEARD, tokenizer, model.model.language_model.embed_tokens.weight.detach().clone())
    parameters = [*tower.ln_post.parameters(), *tower.proj.parameters(), words.scale]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    rng = np.random.default_rng(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step, steps, 3e-3)
        chosen = rng.integers(len(ears), size=batch)
        z = tower.proj(tower.ln_post(torch.from_numpy(ears[chosen]).float()))
        loss, _ = words(z, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            with torch.no_grad():
                loss, right = words(tower.proj(tower.ln_post(torch.from_numpy(tune).float())), tune_labels)
            print(f"ears {step} tune loss {loss.item():.3f} {line(right)}", flush=True)


def train_eyes(
    model: Any, tokenizer: Any, folder: Path, steps: int, peak: float, seed: int, moving: float = 0.0, batch: int = 64
) -> None:
    """Train the vision tower, half on clips that were files, half on pictures drawn for the occasion."""
    frames, _ = clips.load(folder, "train")
    labels = stack([seen(make_scene("train", i)) for i in range(len(frames))])
    tune, _ = clips.load(folder, "tune")
    tune_labels = stack([seen(make_scene("tune", i)) for i in range(_HELD)])
    tower = model.model.visual
    quicken(tower)
    words = Words(SEEN, tokenizer, model.model.language_model.embed_tokens.weight.detach().clone())
    movers = np.flatnonzero(torch.isin(labels, _DIRECTIONS).any(1).numpy())
    optimizer = torch.optim.AdamW([*tower.parameters(), words.scale], lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    started = time.time()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step, steps, peak)
        # The tower sees two frames at a time and a clip's others are much like them, so two of each clip are enough.
        half, grids = batch // 2, rng.integers(GRIDS, size=batch)
        chosen = np.where(rng.random(half) < moving, rng.choice(movers, half), rng.integers(len(frames), size=half))
        scenes = [new_scene(seed * _DRAWN_FROM + step * batch + i, rng.random() < moving) for i in range(half)]
        pairs = [frames[i, 2 * g : 2 * g + 2] for i, g in zip(chosen, grids[:half], strict=True)]
        pairs += [drawn(scene, g) for scene, g in zip(scenes, grids[half:], strict=True)]
        targets = torch.cat([labels[chosen], stack([seen(s) for s in scenes])]).view(batch, GRIDS, -1)
        label = targets[torch.arange(batch), torch.from_numpy(grids)]
        loss = learn(tower, words, optimizer, torch.from_numpy(np.stack(pairs)), label)
        if step % 100 == 0 or step == steps - 1:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                z = look(tower, torch.from_numpy(tune[:_HELD]))
            held, right = words(z.float(), tune_labels)
            losses = f"loss {loss.item():.3f} tune {held.item():.3f}"
            print(f"eyes {step} {time.time() - started:.0f} s {losses} {line(right)}", flush=True)


def learn(tower: Any, words: Words, optimizer: torch.optim.Optimizer, frames: Tensor, label: Tensor) -> Tensor:
    """Take one step of the vision tower on frames, (B, F, 112, 112, 3) uint8, and return the loss before it."""
    with torch.autocast("cpu", torch.bfloat16):
        z = look(tower, frames)
    loss, _ = words(z.float(), label)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
    optimizer.step()
    return loss


def stack(labels: list[np.ndarray]) -> Tensor:
    """Put the labels of several scenes into one tensor, (N, tokens)."""
    return torch.from_numpy(np.stack(labels)).flatten(1)


def new_scene(index: int, moving: bool) -> Any:
    """Draw a scene that no clip was made of; one in which something moves, if asked for."""
    scene = make_scene("train", index)
    while moving and scene.things[0].motion == "still":
        index += 7_919_000_000
        scene = make_scene("train", index)
    return scene


def drawn(scene: Any, grid: int) -> np.ndarray:
    """Draw two frames at twice the side and average, about as decoding and resizing would."""
    times = clips.frame_times(FPS)
    big = draw(scene, times[2 * grid : 2 * grid + 2], DRAWN).astype(np.uint16)
    return ((big[:, ::2, ::2] + big[:, 1::2, ::2] + big[:, ::2, 1::2] + big[:, 1::2, 1::2] + 2) // 4).astype(np.uint8)


def line(right: dict[str, float]) -> str:
    """Write the shares of right tokens for the log."""
    return " ".join(f"{group} {value:.3f}" for group, value in right.items())


def save(model: Any, path: Path) -> None:
    """Write the weights of both towers; a low-rank update that is in the file already stays."""
    update = {n: w for n, w in load_file(path).items() if n.startswith("lora.")} if path.exists() else {}
    kept = {n: w for n, w in model.state_dict().items() if n.startswith(("model.visual.", "model.audio_tower."))}
    save_file({**update, **{name: weight.contiguous() for name, weight in kept.items()}}, path)


if __name__ == "__main__":
    from training.build import fresh

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ears", type=int, default=0, help="steps for the audio projection")
    parser.add_argument("--eyes", type=int, default=0, help="steps for the vision tower")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate of the vision tower")
    parser.add_argument("--seed", type=int, default=1, help="another seed goes on with other pictures")
    parser.add_argument("--moving", type=float, default=0.0, help="share of scenes chosen because something moves")
    given = parser.parse_args()
    torch.manual_seed(0)
    made, tokens = fresh(given.whisper)
    if given.out.exists():
        made.load_state_dict({n: w for n, w in load_file(given.out).items() if n.startswith("model.")}, strict=False)
    if given.ears:
        train_ears(made, tokens, given.clips, given.ears)
        save(made, given.out)
    if given.eyes:
        train_eyes(made, tokens, given.clips, given.eyes, given.rate, given.seed, given.moving)
        save(made, given.out)
