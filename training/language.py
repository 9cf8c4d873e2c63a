"""Second part of the training: towers and a low-rank update against the frozen language model's answers."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from omnisink.models.smolomni import make_processor
from omnisink.synthav.questions import make_questions
from omnisink.synthav.scene import make_scene
from training import clips, lora
from training.build import fresh
from training.prompts import Batch, Layout, as_asked, draw_questions, drill, without_letters
from training.towers import look, quicken, rate

RANK = 16
#: What a step is about, with the share of the steps while letters are drilled, and after.
_PARTS = ("both", "video", "audio", "text")
_SHARES = {True: (0.5, 0.08, 0.07, 0.35), False: (0.84, 0.08, 0.08, 0.0)}


class Learner:
    """The model with its update, ready to answer packed questions about kept clips."""

    def __init__(self, whisper: Path, start: Path) -> None:
        self.model, tokenizer = fresh(whisper)
        self.model.load_state_dict(load_file(start), strict=False)
        self.model.requires_grad_(False)
        processor = make_processor(tokenizer)
        self.layouts = {parts: Layout(self.model, processor, parts) for parts in _PARTS}
        core = self.model.model
        core.language_model.to(torch.bfloat16)
        self.updates = lora.attach(core.language_model, RANK)
        weights = load_file(start)
        if any(name.startswith("lora.") for name in weights):
            for name, update in self.updates.items():
                update.down.data.copy_(weights[f"lora.{name}.down"])
                update.up.data.copy_(weights[f"lora.{name}.up"])
        quicken(core.visual)
        tower = core.audio_tower
        self.towers = [*core.visual.parameters(), *tower.ln_post.parameters(), *tower.proj.parameters()]
        self.low_rank = [p for u in self.updates.values() for p in (u.down, u.up)]

    def hidden(self, frames: Tensor, ears: Tensor, batch: Batch) -> Tensor:
        """Return the last hidden states at the places whose next token is known, (N, width)."""
        core, layout = self.model.model, batch.layout
        pieces = core.language_model.embed_tokens(batch.ids).clone()
        if len(layout.video):
            with torch.autocast("cpu", torch.bfloat16):
                seen = look(core.visual, frames)
            pieces[:, layout.video] = seen.to(pieces.dtype)
        if len(layout.audio):
            tower = core.audio_tower
            pieces[:, layout.audio] = tower.proj(tower.ln_post(ears.float())).to(pieces.dtype)
        out = core.language_model(
            inputs_embeds=pieces, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        return out.flatten(0, 1)[batch.at]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return next-token logits, float32."""
        return F.linear(hidden, self.model.model.language_model.embed_tokens.weight).float()

    def state(self) -> dict[str, Tensor]:
        """Return everything that is trained, and Whisper's encoder."""
        kept = {
            n: w for n, w in self.model.state_dict().items() if n.startswith(("model.visual.", "model.audio_tower."))
        }
        for name, update in self.updates.items():
            kept[f"lora.{name}.down"], kept[f"lora.{name}.up"] = update.down.data, update.up.data
        return {name: weight.detach().contiguous() for name, weight in kept.items()}


def evaluate(learner: Learner, frames: np.ndarray, ears: np.ndarray, split: Any, count: int) -> dict[str, float]:
    """Return the share of right first tokens, by category and by kind, over every question of some clips."""
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, count, 8):
        chosen = range(start, min(start + 8, count))
        questions = [make_questions(make_scene(split, i)) for i in chosen]
        both = [[as_asked(q) for q in qs] + [without_letters(q) for q in qs if q.choices] for qs in questions]
        batch = learner.layouts["both"].batch(both)
        with torch.no_grad():
            hidden = learner.hidden(torch.from_numpy(frames[chosen]), torch.from_numpy(ears[chosen]), batch)
            said = learner.logits(hidden[batch.first]).argmax(-1)
        for one, token, target in zip(batch.asked, said, batch.targets[batch.first], strict=True):
            right[one.category].append(bool(token == target))
            right[f"{one.category}/{one.kind}"].append(bool(token == target))
    return {name: float(np.mean(values)) for name, values in sorted(right.items())}


def train(learner: Learner, given: argparse.Namespace) -> None:
    """Run the training, or go on with one that was interrupted."""
    frames, ears = clips.load(given.clips, "train")
    tune_frames, tune_ears = clips.load(given.clips, "tune")
    groups = [{"params": learner.low_rank, "peak": given.rate, "weight_decay": 0.0}]
    if given.tower_rate:
        groups.append({"params": learner.towers, "peak": given.tower_rate, "weight_decay": 0.01})
    for parameter in learner.towers:
        parameter.requires_grad_(bool(given.tower_rate))
    optimizer = torch.optim.AdamW(groups, lr=given.rate, betas=(0.9, 0.98))
    timed = np.array([_timed(i) for i in range(len(frames))]).nonzero()[0]
    begin = _resume(optimizer, given.out)
    log = given.out.with_suffix(".jsonl")
    started, losses = time.time(), defaultdict(list)
    for step in range(begin, given.steps):
        rng = np.random.default_rng([given.seed, step])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, given.steps, group["peak"])
        among = timed if rng.random() < given.timed else np.arange(len(frames))
        chosen = rng.choice(among, size=given.batch, replace=False)
        # Now and then the sound or the picture is missing, so that the other is understood too. What is seen and
        # heard is learned sooner where the answer is its word, and the letters sooner where a text says everything.
        early = step < given.drill_until
        parts = str(rng.choice(_PARTS, p=_SHARES[early]))
        scenes = [make_scene("train", int(i)) for i in chosen]
        if parts == "text":
            asked = [drill(s, given.questions, rng) for s in scenes]
        else:
            asked = [draw_questions(s, given.questions, rng, parts, 0.5 if early else 0.2) for s in scenes]
        batch = learner.layouts[parts].batch(asked)
        hidden = learner.hidden(torch.from_numpy(frames[chosen]), torch.from_numpy(ears[chosen]), batch)
        each = F.cross_entropy(learner.logits(hidden), batch.targets, reduction="none")
        loss = (each * batch.weights).sum() / len(batch.asked)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
        optimizer.step()
        losses[parts].append(float(loss.detach()))
        last = step + 1 == given.steps
        if (step + 1) % 25 == 0 or last:
            line: dict[str, Any] = {
                "step": step + 1,
                "seconds": round(time.time() - started),
                "loss": {p: round(float(np.mean(v[-25:])), 3) for p, v in losses.items()},
            }
            if (step + 1) % given.every == 0 or last:
                line["tune"] = {
                    k: round(v, 3) for k, v in evaluate(learner, tune_frames, tune_ears, "tune", given.check).items()
                }
                _save(learner, optimizer, given.out, step + 1)
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def _timed(index: int) -> bool:
    """Tell whether a training clip has a question about what happens at the same time."""
    return any(q.category == "temporal" for q in make_questions(make_scene("train", index)))


def _save(learner: Learner, optimizer: Any, out: Path, step: int) -> None:
    moments = {
        f"{i}.{name}": value.contiguous()
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    for path, tensors in ((out, learner.state()), (out.with_suffix(".optimizer.safetensors"), moments)):
        part = path.with_suffix(".part")
        save_file(tensors, part, metadata={"step": str(step)})
        part.replace(path)


def _resume(optimizer: Any, out: Path) -> int:
    """Load the optimizer's state, where there is one, and return the step to go on with."""
    from safetensors import safe_open

    path = out.with_suffix(".optimizer.safetensors")
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in load_file(path).items():
        number, name = key.split(".", 1)
        state[int(number)][name] = value
    # A run may go on without the towers, whose state comes last.
    known = sum(len(group["params"]) for group in optimizer.param_groups)
    kept = {number: values for number, values in state.items() if number < known}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": kept})
    return step


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--towers", type=Path, required=True, help="where to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4, help="clips in a step")
    parser.add_argument("--questions", type=int, default=6, help="questions about each clip")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--tower-rate", type=float, default=0.0, help="peak rate of the towers; 0 does not train them")
    parser.add_argument("--every", type=int, default=200, help="steps between checks and saves")
    parser.add_argument("--check", type=int, default=80, help="clips in a check")
    parser.add_argument("--drill-until", type=int, default=700, help="steps with drills and many open questions")
    parser.add_argument("--timed", type=float, default=0.0, help="share of steps with clips that such questions fit")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    train(Learner(arguments.whisper, arguments.out if arguments.out.exists() else arguments.towers), arguments)
