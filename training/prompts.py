"""Several questions about one clip in one sequence, each blind to the others.

The tokens of a clip are many and those of a question few, so a clip is read once for all of its questions: a question
sees the clip and itself, and its positions go on where the clip ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnisink.models.smolomni import SIDE
from omnisink.synthav.questions import Question, make_questions
from omnisink.synthav.scene import Scene
from omnisink.synthav.vocabulary import NUMBERS, TONES, VOICE, article, plural
from training import clips

LETTER, YES_NO = "Answer with the letter.", "Answer yes or no."
#: What is asked of nearly every clip is drawn less often than what few can be asked, and what is hard more often.
_WEIGHTS = {
    "visual/colour": 1.5,
    "visual/object": 2.0,
    "visual/size": 1.0,
    "visual/count": 2.0,
    "visual/motion": 2.0,
    "visual/order": 3.0,
    "visual/depth": 4.0,
    "audio/sound": 1.0,
    "audio/word": 2.5,
    "audio/manner": 2.0,
    "audio/count": 9.0,
    "audio/order": 3.0,
    "existence/visible": 0.7,
    "existence/audible": 0.5,
    "existence/moving": 0.5,
    "cross-modal/match": 1.0,
    "cross-modal/said thing visible": 2.5,
    "cross-modal/sounding thing visible": 1.0,
    "cross-modal/visible thing sounding": 1.0,
    "temporal/seen when heard": 12.0,
    "temporal/heard when seen": 12.0,
}


@dataclass(frozen=True)
class Asked:
    """A question as the model reads it, and what it should answer."""

    text: str
    answer: str
    category: str
    kind: str


def lettered(question: str, choices: tuple[str, ...]) -> str:
    """Write a question with its choices, or one for yes or no."""
    if not choices:
        return f"{question}\n{YES_NO}"
    lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True))
    return f"{question}\n{lines}\n{LETTER}"


def describe(scene: Scene) -> list[Asked]:
    """Make the questions for a description, which teach many words at once."""
    names = [f"{t.size} {t.name}" for t in scene.things]
    first = scene.things[0]
    if scene.layout == "many":
        seen = f"{NUMBERS[len(names) - 1]} {first.colour} {first.shape if len(names) == 1 else plural(first.shape)}"
    elif scene.layout == "sequence":
        seen = f"{article(names[0])}, then {article(names[1])}"
    elif scene.layout == "overlap":
        seen = f"{article(names[1])} in front of {article(names[0])}"
    elif scene.layout == "pair":
        seen = " and ".join(sorted(article(name) for name in names))
    else:
        seen = article(names[0]) + ("" if first.motion == "still" else f" moving {first.motion}")
    parts = []
    for kind in scene.kinds:
        same = [s for s in scene.sounds if s.kind == kind]
        if kind == VOICE:
            parts.append(f"a {same[0].loudness} voice says {same[0].word}")
        else:
            tone = f"{same[0].pitch} " if kind in TONES else ""
            times = f"{NUMBERS[len(same) - 1]} time{'s' if len(same) > 1 else ''}"
            parts.append(f"{article(f'{same[0].loudness} {tone}{kind}')} sounds {times}")
    return [
        Asked("Describe the video.", seen, "describe", "video"),
        Asked("Describe the audio.", ", then ".join(parts), "describe", "audio"),
    ]


def as_asked(question: Question) -> Asked:
    """Return a question as the test asks it."""
    return Asked(lettered(question.text, question.choices), question.answer, question.category, question.kind)


def without_letters(question: Question) -> Asked:
    """Return a question with choices as an open one, whose answer is the right choice."""
    answer = question.choices["ABCD".index(question.answer)]
    return Asked(question.text, answer, f"open {question.category}", question.kind)


def fits(question: Question, parts: str) -> bool:
    """Tell whether a question can be answered from these parts of a clip."""
    if parts == "video":
        return question.category == "visual" or question.kind in ("visible", "moving")
    return parts == "both" or question.category == "audio" or question.kind == "audible"


def drill(scene: Scene, count: int, rng: np.random.Generator) -> list[Asked]:
    """Draw lettered and yes/no questions about a scene that is described in words: no picture and no sound to learn.

    What is hard about a lettered question for a small model is to find the letter of the right choice. Here that is
    all there is to do.
    """
    seen, heard = (one.answer for one in describe(scene))
    described = f"Video: {seen}. Audio: {heard}.\n"
    asked = [as_asked(q) for q in make_questions(scene, salt=int(rng.integers(1, 2**31))) if q.category != "temporal"]
    drawn = rng.permutation(len(asked))[:count]
    return [Asked(described + asked[i].text, asked[i].answer, "drill", asked[i].kind) for i in drawn]


def draw_questions(
    scene: Scene, count: int, rng: np.random.Generator, parts: str = "both", open_share: float = 0.2
) -> list[Asked]:
    """Draw questions about a training scene, the rarer and harder kinds more often; many have a description last.

    `open_share` of the lettered questions are asked without their letters.
    """
    asked = [q for q in make_questions(scene, salt=int(rng.integers(1, 2**31))) if fits(q, parts)]
    weights = np.array([_WEIGHTS[f"{q.category}/{q.kind}"] for q in asked])
    drawn = rng.choice(len(asked), size=min(count, len(asked)), replace=False, p=weights / weights.sum())
    out = [
        without_letters(asked[i]) if asked[i].choices and rng.random() < open_share else as_asked(asked[i])
        for i in drawn
    ]
    if rng.random() < 0.75:
        which = int(rng.integers(2)) if parts == "both" else ("video", "audio").index(parts)
        out[-1] = describe(scene)[which]
    return out


@dataclass
class Batch:
    """Sequences of clips with questions, padded on the right.

    ``ids`` (B, S); ``positions`` (3, B, S); ``mask`` (B, 1, S, S) bool; ``at``, ``targets``, ``weights`` (N,): flat
    places whose next token is known; ``first`` (Q,): which of them is each question's first answer token.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    at: Tensor
    targets: Tensor
    weights: Tensor
    first: list[int]
    asked: list[Asked]
    layout: Layout


class Layout:
    """The tokens of a clip of four seconds, as the real processor and the real model lay them out.

    Parameters
    ----------
    model, processor
        SmolOmni's.
    parts : str
        ``"both"``: video with its sound; ``"video"`` without it; ``"audio"``: only the sound; ``"text"``: nothing.
    """

    def __init__(self, model: Any, processor: Any, parts: str) -> None:
        self.parts, self.tokenizer = parts, processor.tokenizer
        self.after = self.tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
        self.end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.video = self.audio = torch.zeros(0, dtype=torch.long)
        if parts == "text":
            self.ids = torch.tensor(self.tokenizer.encode("<|im_start|>user\n", add_special_tokens=False))
            self.next = len(self.ids)
            self.positions = torch.arange(self.next).expand(3, -1)
            return
        media: dict[str, Any] = {}
        if parts != "audio":
            media["videos"] = [torch.zeros(clips.FRAMES, 3, SIDE, SIDE, dtype=torch.uint8)]
        if parts != "video":
            media["audio"] = [np.zeros(64_000, dtype=np.float32)]
        if parts == "both":
            media |= {"audio_from_video_indices": [0], "load_audio_from_video": True}
        first = {"type": "audio", "audio": "clip"} if parts == "audio" else {"type": "video", "video": "clip"}
        text = processor.apply_chat_template(
            [{"role": "user", "content": [first, {"type": "text", "text": "?"}]}], add_generation_prompt=True
        )
        size = dict(processor.video_processor.size)
        made = processor(
            text=[text],
            videos_kwargs={"do_sample_frames": False, "fps": 2.0, "size": size},
            return_tensors="pt",
            **media,
        )
        ids = made["input_ids"]
        heard = made.get("feature_attention_mask")
        positions, _ = model.model.get_rope_index(
            ids,
            video_grid_thw=made.get("video_grid_thw"),
            attention_mask=made["attention_mask"],
            use_audio_in_video=parts == "both",
            audio_seqlens=None if heard is None else heard.sum(-1),
            second_per_grids=made.get("video_second_per_grid"),
        )
        last = "<|audio_eos|>" if parts == "audio" else "<|vision_eos|>"
        end = int((ids[0] == processor.tokenizer.convert_tokens_to_ids(last)).nonzero()) + 1
        self.ids, self.positions = ids[0, :end], positions[:, 0, :end].long()
        self.next = int(positions[0, 0, end])
        config = model.config
        self.video = (self.ids == config.video_token_id).nonzero().flatten()
        self.audio = (self.ids == config.audio_token_id).nonzero().flatten()

    def batch(self, groups: list[list[Asked]]) -> Batch:
        """Lay out the questions of every clip behind it."""
        rows, places, owners, flat, asked = [], [], [], [], []
        prefix = len(self.ids)
        for group in groups:
            ids, pos, own = self.ids.tolist(), [], [-1] * prefix
            for number, one in enumerate(group):
                question = self.tokenizer.encode(one.text, add_special_tokens=False) + self.after
                answer = [*self.tokenizer.encode(one.answer, add_special_tokens=False), self.end]
                begin = len(ids) + len(question)
                flat.append([(len(rows), begin + i - 1, token) for i, token in enumerate(answer)])
                asked.append(one)
                ids += question + answer[:-1]
                pos += range(self.next, self.next + len(question) + len(answer) - 1)
                own += [number] * (len(question) + len(answer) - 1)
            rows.append(ids)
            places.append(pos)
            owners.append(own)
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.end)
        positions = torch.zeros(3, len(rows), longest, dtype=torch.long)
        owner = torch.full((len(rows), longest), -2)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            positions[:, i, :prefix] = self.positions
            positions[:, i, prefix : len(row)] = torch.tensor(places[i])
            owner[i, : len(row)] = torch.tensor(owners[i])
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        same = (owner[:, None, :] == owner[:, :, None]) | (owner[:, None, :] == -1)
        at, targets, weights, first = [], [], [], []
        for tokens in flat:
            first.append(len(at))
            for i, (row, place, token) in enumerate(tokens):
                at.append(row * longest + place)
                targets.append(token)
                # The closing token is nearly always right; a description counts about as much as two answers.
                weights.append(0.1 if i == len(tokens) - 1 else 1.0 if len(tokens) == 2 else 2.0 / len(tokens))
        return Batch(
            ids,
            positions,
            (causal & same)[:, None],
            torch.tensor(at),
            torch.tensor(targets),
            torch.tensor(weights),
            first,
            asked,
            self,
        )
