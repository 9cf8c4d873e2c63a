"""Audio-visual contrastive decoding: the model beside itself with less attention to what is seen, heard, and both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.rereading import RereadTwins
from omnisink.decoder.twins import Twins
from omnisink.methods.audio_visual import contrast_pairs
from omnisink.methods.avcd_masks import MODALITIES, MaskedColumns, MaskedRows, Plan
from omnisink.methods.contrast import Branch, Contrast, keep_plausible, unchanged
from omnisink.methods.presets import Preset
from omnisink.methods.space import FloatRange, Range

_MASKS = {"rows": MaskedRows, "columns": MaskedColumns}


@dataclass(frozen=True)
class AVCD(Contrast):
    """Audio-visual contrastive decoding (Jung, Jang, Chung; arXiv 2505.20862).

    One modality dominates a prompt, mostly its language. Three more passes mask tokens of the second modality, of the
    third, and of both: in every layer but the last, a head masks a token of theirs where the prompt's last token looks
    at it by more than a threshold. With language dominant, ``z`` the model's logits, and ``z_v``, ``z_a`` and ``z_va``
    those without video, without audio and without both, the next token is chosen by
    ``(2 + 2 alpha) z + z_a + z_v - 2 alpha z_va`` where the model is unsure of it, and by ``z`` where it is sure. The
    weights add up to 4: sampling at a temperature of 4 is what sampling at 1 is without the method.

    The paper and its release differ, and the presets `paper` and `release` have the settings of each. What is seen,
    video or pictures, is one modality here, which is ours.

    Parameters
    ----------
    alpha : float
        The paper has 2.5 on AVHBench and 0.5 elsewhere; the release has 0.5.
    beta : float
        See `Contrast`. 0.1 in the paper, 0.2 in the release. What is left out is ``-inf``; the release writes -0.0001,
        which is above the logits of tokens that it keeps, where those are negative.
    entropy : float
        In nats: where the entropy of a sequence's next token is below it, the token is the model's own choice.
    quantile : float
        Of the attention of the last token to all tokens, averaged over layers, in each head; the threshold is its mean
        over heads.
    dominant : {"language", "video", "audio", "most attended"}
        What is never masked. ``"most attended"`` finds for each prompt what the last token looks at most. In the
        paper that is language on all samples of AVHBench.
    mask : {"rows", "columns"}
        What masking does in a head. ``"columns"``, as the paper says it: no token sees the masked one, and the rest of
        its attention sums to one again; a token that would see nothing has the output 0. ``"rows"``, as the release
        has it: the output of the masked token is 0, and others go on seeing its key and value.
    per_token : bool
        Whether ``"most attended"`` counts the attention to a token of a modality on average, as the release does, or
        to all of them together, as the paper's figures suggest.
    remask : {"prefill", "step"}
        When masks are decided. ``"prefill"``: once, by the last token of the prompt; the passes go on from caches, so
        that a token costs four passes over one token. ``"step"``, as in the release: for every token, by the last one
        there is. The three passes then read prompt and answer anew, pictures and sound included where `generate` has
        not encoded them beforehand, so that a token costs three prefills more, unless the model is sure of it in all
        sequences. It needs ``input_ids``, and in a pass over several tokens, as assisted decoding makes them, the last
        one decides. Without a cache every pass is a prefill, and both are the same.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    alpha: float = 0.5
    entropy: float = 0.6
    quantile: float = 0.5
    dominant: str = "language"
    mask: str = "rows"
    per_token: bool = True
    remask: str = "prefill"

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"), ("audio",))
    watches_steps: ClassVar[bool] = True
    source: ClassVar[str] = "Jung, Jang, Chung (arXiv 2505.20862)"
    licence: ClassVar[str] = "Apache-2.0"
    derived: ClassVar[str] = "masks decided once, in the prefill (the default of `remask`); pictures beside video"
    needs: ClassVar[str] = "three more passes for every token; video or pictures, and sound, in the prompt"
    cost: ClassVar[str] = (
        'as much as the model three times more; with remask="step", three prefills for every token of which the '
        "model is unsure"
    )
    tested: ClassVar[str] = "eager and sdpa; dynamic and static caches; padding; beams"
    search_space: ClassVar[Mapping[str, Range]] = {"alpha": FloatRange(0.1, 3.0), "quantile": FloatRange(0.1, 0.9)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "Masks keys, as the paper says it, with its cut; the modality most attended in sum dominates.",
            {"beta": 0.1, "mask": "columns", "dominant": "most attended", "per_token": False},
        ),
        "release": Preset(
            "Masks rows, as the release does, with its cut; the modality most attended by token dominates.",
            {"beta": 0.2, "mask": "rows", "dominant": "most attended", "per_token": True},
        ),
        "avhbench": Preset("The paper's weight on AVHBench.", {"alpha": 2.5}),
        "every-step": Preset("Masks decided anew for every token, as in the release.", {"remask": "step"}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.entropy >= 0:
            raise ValueError(f"entropy must be at least 0, got {self.entropy}")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must be between 0 and 1, got {self.quantile}")
        for name, allowed in (
            ("dominant", (*MODALITIES, "most attended")),
            ("mask", tuple(_MASKS)),
            ("remask", ("prefill", "step")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")

    def attends_in(self) -> frozenset[str]:
        """Return that its branches hide keys in every pass, where they mask columns."""
        return frozenset({"prompt", "steps"} if self.mask == "columns" else ())

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the three branches: without the second modality, without the third, and without both."""
        plan = context.block["plan"] = Plan(context, self)
        # The first branch to run decides for all.
        return [
            Branch(plan.decide if number == 0 else unchanged, (_MASKS[self.mask](plan, number),))
            for number in range(3)
        ]

    def twins(self, context: Context, branches: Sequence[Branch]) -> Twins:
        """Let the branches go on from caches, or read everything anew."""
        if self.remask == "prefill":
            return super().twins(context, branches)
        combine = partial(self.combine_pass, context)
        changes = [one.change for one in branches]
        return RereadTwins(context.anatomy, changes, combine, self, lambda first: bool(self._unsure(first).any()))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Note where the last token looks."""
        if context.now.is_prefill or self.remask == "step":
            context.block["plan"].note(call, context)
        return output

    def combine(self, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine, where the model is unsure of the next token."""
        z, second, third, both = (one.float() for one in (first, *twins))
        contrasted = contrast_pairs(z, second, third, both, (self.alpha, self.alpha, self.alpha))
        return torch.where(self._unsure(first), keep_plausible(first, contrasted, self.beta), first)

    def _unsure(self, first: Tensor) -> Tensor:
        """Return whether the entropy of each row (B, n, V) is not below the gate, (B, n, 1) bool."""
        return torch.special.entr(first.float().softmax(dim=-1)).sum(dim=-1, keepdim=True) >= self.entropy
