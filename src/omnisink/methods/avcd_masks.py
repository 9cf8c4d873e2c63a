"""Which tokens AVCD masks in which heads, decided from where the last token looks, and the two ways to mask them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnisink.decoder.context import AttentionCall, Context
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.hiding import attend_without
from omnisink.methods.image_tokens import IMAGES
from omnisink.methods.sets import attention_of_last
from omnisink.methods.spans import require_modality

if TYPE_CHECKING:
    from omnisink.methods.avcd import AVCD

#: What may dominate, in the order of the candidates in `Plan.decide`.
MODALITIES = ("language", "video", "audio")


class Plan:
    """What the first pass decides for the three branches of one block."""

    def __init__(self, context: Context, method: AVCD) -> None:
        self._context, self._method = context, method
        self._last_layer = len(context.anatomy.layers) - 1
        self._seen: list[Tensor] = []
        self.threshold: Tensor
        self.masked: tuple[Tensor, Tensor, Tensor]

    def note(self, call: AttentionCall, context: Context) -> None:
        """Add the attention of the last token at a layer, (B, H, T)."""
        if call.layer == min(context.anatomy.attention):
            self._seen = []
        if call.layer < self._last_layer:
            self._seen.append(attention_of_last(call, context))

    def decide(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Decide what is masked in a text of as many tokens as `inputs` have; no input of a branch differs."""
        length = inputs["attention_mask"].shape[1]
        seen = _mean([pad(one[..., :length], (0, max(0, length - one.shape[-1]))) for one in self._seen])
        # What was generated is language, and follows the prompt.
        later = length - self._context.spans["text"].shape[1]
        text = pad(self._context.spans["text"].to(seen.device), (0, later), value=True)
        media = [require_modality(self._context, *names) for names in (IMAGES, ("audio",))]
        video, audio = (pad(one.to(seen.device), (0, later)) for one in media)
        real = text | video | audio
        levels = seen.masked_fill(~real[:, None], torch.nan).nanquantile(self._method.quantile, dim=-1)
        self.threshold = levels.mean(dim=1)
        # The system's tokens, before the first picture or sound, are of no modality in the release.
        language = text & ((video | audio).cumsum(dim=1) > 0)
        candidates = torch.stack([language, video, audio], dim=1)
        rank = self._rank(seen, candidates)
        second, third = (candidates.gather(1, rank[:, k, None, None].expand(-1, 1, length))[:, 0] for k in (0, 1))
        self.masked = (second, third, second | third)
        return {}

    def _rank(self, seen: Tensor, candidates: Tensor) -> Tensor:
        """Return (B, 2): which two of the candidates do not dominate, in their order."""
        if self._method.dominant in MODALITIES:
            first = torch.full((len(seen),), MODALITIES.index(self._method.dominant), device=seen.device)
        else:
            share = torch.einsum("bhs,bms->bm", seen, candidates.to(seen.dtype))
            if self._method.per_token:
                share = share / candidates.sum(dim=-1).clamp(min=1)
            first = share.argmax(dim=1)
        others = torch.tensor([[1, 2], [0, 2], [0, 1]], device=seen.device)
        return others[first]


@dataclass(frozen=True)
class _Masked(Method):
    """Mask tokens at which the last one looks by more than the threshold, in every layer but the last."""

    plan: Plan = field(compare=False)
    number: int

    def masked(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Return the tokens that a prefill masks in each head, (B, H, S) bool; None in the last layer."""
        if call.layer == len(context.anatomy.layers) - 1:
            return None
        seen = attention_of_last(call, context)
        of_modality = self.plan.masked[self.number].to(seen.device)[:, None]
        return of_modality & (seen > self.plan.threshold.to(seen.device)[:, None, None])


@dataclass(frozen=True)
class MaskedRows(_Masked):
    """Set the head outputs of masked tokens to zero; others go on seeing their keys and values."""

    watches_steps: ClassVar[bool] = False
    in_steps: ClassVar[str] = "nothing"

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Leave rows out, head by head."""
        masked = self.masked(call, context) if context.now.is_prefill else None
        if masked is None:
            return output
        return output.masked_fill(masked.transpose(1, 2)[..., None].to(output.device), 0.0)


@dataclass(frozen=True)
class MaskedColumns(_Masked):
    """Hide the keys of masked tokens from every token, those that are generated later too."""

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Attend without the masked keys, head by head."""
        kept = context.now.state.tensors
        if context.now.is_prefill and (masked := self.masked(call, context)) is not None:
            kept["hidden", call.layer] = masked
        hidden = kept.get(("hidden", call.layer))
        if hidden is None or (is_eager_cpu(hidden) and not bool(hidden.any())):
            return None
        return attend_without(call, context, hidden)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Change nothing more."""
        return output


def _mean(layers: list[Tensor]) -> Tensor:
    return torch.stack([one.to(layers[0].device) for one in layers]).mean(dim=0)
