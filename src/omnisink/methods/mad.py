"""Modality-adaptive decoding: the model says which modalities a question needs, and is contrasted without each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.branches import running_branch
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.rotary_offsets import read_offsets, write_offsets
from omnisink.decoder.twins import find_head
from omnisink.errors import OmnisinkError
from omnisink.maths.bounds import whole_numbers
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.audio_visual import contrast_pairs
from omnisink.methods.base import Method
from omnisink.methods.contrast import Branch, Contrast, keep_plausible, unchanged
from omnisink.methods.hiding import attend_without
from omnisink.methods.image_tokens import IMAGES
from omnisink.methods.presets import Preset
from omnisink.methods.spans import require_modality
from omnisink.methods.twin_prompts import insert_tokens

#: What the model may say it needs, in the order of the weights.
ANSWERS = ("audio", "video", "both")
#: Under which a cache keeps the weights of its prompts, and a branch what is hidden in it.
_WEIGHTS, _HIDDEN = "weights of modalities", "hidden"
#: The branch in which the query runs, beside the three that run at every step.
_ASKED = 4


@dataclass(frozen=True)
class MAD(Contrast):
    """Modality-adaptive decoding (Chung, Kim, Chee, Ro; arXiv 2601.21181): AVCD with weights for each question.

    A query asks the model whether a question needs its sound, its video, or both: ``p_a``, ``p_v`` and ``p_b`` are the
    softmax over its logits of these three words. With ``z`` the model's logits, and ``z_v``, ``z_a`` and ``z_t`` those
    with video only, with sound only and with text only, the tokens of the answer are chosen by
    ``(2 + 2 alpha p_b) z + (1 - alpha (p_b - p_v)) z_v + (1 - alpha (p_b - p_a)) z_a - alpha (p_v + p_a) z_t``.

    Written from a description of the authors' release and of a port of it by others. The release makes a prompt of its
    own for each branch, and puts the query behind the question. Here the keys of what a branch lacks are hidden at
    every layer, with all positions kept, and the query stands `turn_end` tokens before the end of the prompt. What is
    seen, video or pictures, is one modality.

    Parameters
    ----------
    alpha : float
        The paper's gamma. 0.5 as the release's command line has it.
    beta : float
        See `Contrast`. 0, as the release cuts nothing.
    query : str
        What is asked, in our words; empty for none, where the weights come from the model's own logits for the first
        token of its answer.
    turn_end : int
        Tokens of the chat template behind the question, which follow the query too; 0 asks at the end of the prompt.
        For Qwen's templates 5 is where the release asks.
    tokens : tuple of int, optional
        The query as token ids, for a model that is given without its tokenizer.
    words : tuple of int, optional
        Token ids of the words audio, video and both, for such a model.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    alpha: float = 0.5
    beta: float = 0.0
    query: str = "\nWhich is needed to answer this question: audio, video, or both?\n"
    turn_end: int = 0
    tokens: tuple[int, ...] | None = None
    words: tuple[int, ...] | None = None

    needs_spans: ClassVar[bool] = True
    source: ClassVar[str] = "Chung, Kim, Chee, Ro (arXiv 2601.21181)"
    licence: ClassVar[str] = "not known"
    derived: ClassVar[str] = (
        "a port from a description of the release; sound and video hidden from attention instead of left out of the "
        "prompt; the words and the place of the query"
    )
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"), ("audio",))
    needs: ClassVar[str] = (
        "one pass for the query, three more passes for every token; video or pictures, and sound, in the prompt; a "
        "tokenizer"
    )
    cost: ClassVar[str] = "as much as the model three times more, attention computed anew, and one more prefill"
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding; beams"
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset("The paper's weight, as a summary by others has it; not verified.", {"alpha": 2.5}),
        "no-query": Preset("Weights from the model's own logits for the first token of its answer.", {"query": ""}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tokens", "words"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(whole_numbers(name, given)))
        if self.words is not None and len(set(self.words)) != len(ANSWERS):
            raise ValueError(f"words must be three token ids, of {', '.join(ANSWERS)}; got {self.words}")
        if isinstance(self.turn_end, bool) or not isinstance(self.turn_end, int) or self.turn_end < 0:
            raise ValueError(f"turn_end must be a whole number of at least 0, got {self.turn_end!r}")

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Let every layer be skipped: the model's own pass is neither looked at nor changed."""
        return True

    def attends_in(self) -> frozenset[str]:
        """Return that its branches hide keys in every pass."""
        return frozenset({"prompt", "steps"})

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the three branches: without sound, without video, and without both."""
        plan = context.block["plan"] = _Plan(context, self)
        # The first branch to run asks for all.
        return [Branch(plan.ask if number == 0 else unchanged, (_Without(plan, number),)) for number in range(3)]

    def combine_pass(self, context: Context, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine with the weights of each prompt."""
        kept = context.now.state.tensors
        if context.now.is_prefill:
            plan: _Plan = context.block["plan"]
            answers = first[:, -1] if plan.answer is None else plan.answer
            kept[_WEIGHTS] = answers[:, list(plan.words)].float().softmax(dim=-1)
        audio, video, both = (self.alpha * kept[_WEIGHTS].to(first.device))[:, :, None, None].unbind(dim=1)
        z, only_video, only_audio, neither = (one.float() for one in (first, *twins))
        made = contrast_pairs(z, only_video, only_audio, neither, (both, video, audio))
        return keep_plausible(first, made, self.beta)


class _Plan:
    """What is asked of the model, what it answers, and what each branch lacks."""

    def __init__(self, context: Context, method: MAD) -> None:
        self._context, self._method = context, method
        self._query = self._encoded(method.query) if method.tokens is None and method.query else method.tokens
        self.words = self._first_tokens() if method.words is None else method.words
        self.answer: Tensor | None = None
        self.hidden: tuple[Tensor, Tensor, Tensor]

    def ask(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Find what each branch lacks, and let the model say what it needs; no input of a branch differs."""
        video, audio = (require_modality(self._context, *names) for names in (IMAGES, ("audio",)))
        self.hidden = (audio, video, audio | video)
        if not self._query:
            return {}
        head = find_head(self._context.anatomy)
        places = torch.full((len(audio),), max(0, audio.shape[1] - self._method.turn_end))
        asked = {**inputs, **insert_tokens(inputs, places, self._query), "past_key_values": None, "use_cache": False}
        asked.pop("cache_position", None)
        if "logits_to_keep" in inspect.signature(type(head).forward).parameters:
            asked["logits_to_keep"] = 1
        offsets = read_offsets(head)
        try:
            with running_branch(_ASKED):
                self.answer = head(**asked).logits[:, -1]
        finally:
            write_offsets(offsets)
        return {}

    def _first_tokens(self) -> tuple[int, ...]:
        words = tuple(self._encoded(word)[0] for word in ANSWERS)
        if len(set(words)) < len(ANSWERS):
            raise OmnisinkError(
                f"MAD tells {', '.join(ANSWERS)} apart by their first token, and the tokenizer begins two of them "
                "with the same: give token ids that differ, MAD(words=...)"
            )
        return words

    def _encoded(self, text: str) -> tuple[int, ...]:
        tokenizer = self._context.tokenizer
        if tokenizer is None:
            raise OmnisinkError(
                "MAD asks the model in words, and was given a model without its tokenizer: give what load_model "
                "returned or a pipeline, or MAD(tokens=..., words=...)"
            )
        return tuple(tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True)
class _Without(Method):
    """Hide all tokens of a modality from every token, at every layer."""

    plan: _Plan = field(compare=False)
    number: int

    def begin(self, context: Context) -> None:
        """Keep with the prompt what is hidden of it."""
        if context.now.is_prefill:
            context.now.state.tensors[_HIDDEN] = self.plan.hidden[self.number][:, None]

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Attend without it."""
        hidden = context.now.state.tensors[_HIDDEN]
        return None if is_eager_cpu(hidden) and not bool(hidden.any()) else attend_without(call, context, hidden)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Change nothing more."""
        return output
