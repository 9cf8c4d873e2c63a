"""Audio-visual contrastive decoding: the model beside itself with less attention to what is seen, heard, and both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import visible_to
from omnisink.errors import UnsupportedModelError
from omnisink.maths.decomposition import weights_of
from omnisink.methods.base import Method
from omnisink.methods.contrast import Branch, Contrast, keep_plausible
from omnisink.methods.presets import Preset
from omnisink.methods.sets import last_rows

#: What may dominate, in the order of `_Plan.candidates`.
_MODALITIES = ("language", "video", "audio")


@dataclass(frozen=True)
class AVCD(Contrast):
    """Audio-visual contrastive decoding (Jung, Jang, Chung; arXiv 2505.20862).

    One modality dominates a prompt, mostly its language. Three more passes mask tokens of the second modality, of the
    third, and of both: in every layer but the last, a head leaves out a token of theirs where the prompt's last token
    looks at it by more than a threshold. With language dominant, ``z`` the model's logits, and ``z_v``, ``z_a`` and
    ``z_va`` those without video, without audio and without both, the next token is chosen by
    ``(2 + 2 alpha) z + z_a + z_v - 2 alpha z_va`` where the model is unsure of it, and by ``z`` where it is sure.

    The paper sets the attention to masked tokens to zero. Its release sets their own rows to zero: the head output of
    a masked token is 0, and others go on seeing its key and value. Rows are what is built here, as the release has
    them. Two differences are ours. The masks are decided once, in the prefill, as the tokens of a prompt are in the
    cache afterwards; the release reads the whole prompt anew for each token. And what is seen, video or pictures, is
    one modality.

    Parameters
    ----------
    alpha : float
        The paper has 2.5 on AVHBench and 0.5 elsewhere; the release has 0.5.
    beta : float
        See `Contrast`. 0.1 in the paper, 0.2 in the release.
    entropy : float
        In nats: below it the next token is the model's own choice.
    quantile : float
        Of the attention of the last token to the prompt, averaged over layers, in each head; the threshold is its mean
        over heads.
    dominant : {"language", "video", "audio", "most attended"}
        What is never masked. ``"most attended"`` finds for each prompt what the last token looks at most, by token.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    alpha: float = 0.5
    entropy: float = 0.6
    quantile: float = 0.5
    dominant: str = "language"

    needs_spans: ClassVar[bool] = True
    watches_steps: ClassVar[bool] = True
    source: ClassVar[str] = "Jung, Jang, Chung (arXiv 2505.20862)"
    licence: ClassVar[str] = "Apache-2.0"
    derived: ClassVar[str] = "that masks are decided once, in the prefill; pictures beside video"
    needs: ClassVar[str] = "three more passes for every token; video or pictures, and sound, in the prompt"
    cost: ClassVar[str] = "as much as the model three times more"
    tested: ClassVar[str] = "eager and sdpa; dynamic and static caches; beams"
    presets: ClassVar[Mapping[str, Preset]] = {
        "avhbench": Preset("The paper's weight on AVHBench.", {"alpha": 2.5}),
        "release": Preset("The release's cut.", {"beta": 0.2}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.entropy >= 0:
            raise ValueError(f"entropy must be at least 0, got {self.entropy}")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must be between 0 and 1, got {self.quantile}")
        if self.dominant not in (*_MODALITIES, "most attended"):
            raise ValueError(f"dominant must be one of {', '.join(_MODALITIES)}, most attended; got {self.dominant!r}")

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the three branches: without the second modality, without the third, and without both."""
        plan = context.block["plan"] = _Plan(context, self)
        return [Branch(plan.ready, (_MaskedRows(plan, number),)) for number in range(3)]

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Note where the last token of the prompt looks."""
        if context.now.is_prefill:
            context.block["plan"].note(call, context)
        return output

    def combine(self, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine, where the model is unsure of the next token."""
        z, second, third, both = (one.float() for one in (first, *twins))
        contrasted = (2 + 2 * self.alpha) * z + second + third - 2 * self.alpha * both
        chances = z.log_softmax(dim=-1)
        unsure = -(chances.exp() * chances).sum(dim=-1, keepdim=True) >= self.entropy
        return torch.where(unsure, keep_plausible(first, contrasted, self.beta), first)


class _Plan:
    """What the first pass over a prompt decides for the branches, and what they mask."""

    def __init__(self, context: Context, method: AVCD) -> None:
        self._context, self._method = context, method
        self._last_layer = len(context.anatomy.layers) - 1
        self._seen: list[Tensor] = []
        self.threshold: Tensor
        self.masked: tuple[Tensor, Tensor, Tensor]

    def note(self, call: AttentionCall, context: Context) -> None:
        """Add the attention of the last token at a layer, (B, H, S)."""
        if call.layer == min(context.anatomy.attention):
            self._seen = []
        if call.layer < self._last_layer:
            self._seen.append(attention_of_last(call, context))

    def ready(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Decide what is masked; no input differs."""
        seen = torch.stack([one.to(self._seen[0].device) for one in self._seen]).mean(dim=0)
        spans = {name: mask.to(seen.device) for name, mask in self._context.spans.items()}
        none = torch.zeros_like(spans["text"])
        video, audio = spans.get("video", none) | spans.get("image", none), spans.get("audio", none)
        if not {"video", "image"} & spans.keys() or "audio" not in spans:
            model = type(self._context.anatomy.model).__name__
            raise UnsupportedModelError(
                f"AVCD contrasts what is seen with what is heard, and {model} takes {', '.join(spans)}"
            )
        real = spans["text"] | video | audio
        levels = seen.masked_fill(~real[:, None], torch.nan).nanquantile(self._method.quantile, dim=-1)
        self.threshold = levels.mean(dim=1)
        # The system's tokens, before the first picture or sound, are of no modality in the release.
        language = spans["text"] & ((video | audio).cumsum(dim=1) > 0)
        candidates = torch.stack([language, video, audio], dim=1)
        rank = self._rank(seen, candidates)
        second, third = (
            candidates.gather(1, rank[:, place, None, None].expand(-1, 1, seen.shape[-1]))[:, 0] for place in (0, 1)
        )
        self.masked = (second, third, second | third)
        return {}

    def _rank(self, seen: Tensor, candidates: Tensor) -> Tensor:
        """Return (B, 2): which two of the candidates do not dominate, in their order."""
        if self._method.dominant in _MODALITIES:
            first = torch.full((len(seen),), _MODALITIES.index(self._method.dominant), device=seen.device)
        else:
            share = torch.einsum("bhs,bms->bm", seen, candidates.to(seen.dtype)) / candidates.sum(dim=-1).clamp(min=1)
            first = share.argmax(dim=1)
        others = torch.tensor([[1, 2], [0, 2], [0, 1]], device=seen.device)
        return others[first]


@dataclass(frozen=True)
class _MaskedRows(Method):
    """Set head outputs of masked tokens to zero where the last token looks at them by more than the threshold."""

    plan: _Plan = field(compare=False)
    number: int

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Leave tokens out, head by head, in every layer but the last of a prefill."""
        if not context.now.is_prefill or call.layer == len(context.anatomy.layers) - 1:
            return output
        seen = attention_of_last(call, context)
        masked = self.plan.masked[self.number].to(seen.device)[:, None] & (
            seen > self.plan.threshold.to(seen.device)[:, None, None]
        )
        return output.masked_fill(masked.transpose(1, 2)[..., None].to(output.device), 0.0)


def attention_of_last(call: AttentionCall, context: Context) -> Tensor:
    """Return the attention of each prompt's last token, (B, H, S) float32, in a prefill."""
    rows = last_rows(context).to(call.query.device)
    query = torch.take_along_dim(call.query, rows[:, None, :, None], dim=2)
    seen = weights_of(
        query,
        call.prompt_keys,
        visible_to(call, context.now, rows),
        scaling=call.scaling,
        softcap=call.softcap,
        learned_sink=call.learned_sink,
    )[:, :, 0]
    return torch.nn.functional.pad(seen, (0, context.now.length - seen.shape[-1]))
