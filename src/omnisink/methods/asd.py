"""ASD's static step: sinks of one modality that the other one looks at are looked at more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.boosting import boosted_rows
from omnisink.methods.criteria import SinkDimension
from omnisink.methods.image_tokens import IMAGES, first_row, note_absent
from omnisink.methods.presets import Preset
from omnisink.methods.ranges import check_range
from omnisink.methods.sets import received_from_sets
from omnisink.methods.sink_method import SinkMethod
from omnisink.methods.space import FloatRange, Range
from omnisink.methods.spans import require_modality

#: The keys under which a cache keeps the cross-modal sinks of its prompts, and the others that count, (B, S) bool.
CROSSING, STAYING = "cross-modal", "uni-modal"


@dataclass(frozen=True)
class ASD(SinkMethod):
    """Cross-modal sinks: scores of sinks that gather the other modality rise, in text rows and generated tokens.

    1. In the layers before `start` every token has the number of layers at which it is a sink, and a score: with v and
       a the mean attention that it gets from later video and audio tokens, over all heads, ``(v - a) / (v + a)``,
       averaged over these layers.
    2. Of the tokens of each modality that are a sink at one layer at least, the `share` most often marked count.
    3. Cross-modal are the half of the audio sinks with the highest score, which video tokens look at, and the half of
       the video sinks with the lowest.
    4. In the layers from `start` on, ``s' = s + strength |s|`` at the cross-modal sinks, in the rows of text tokens
       and of all generated tokens.

    Derived by omnisink: the release marks sinks in all layers in a run of its own and boosts in another; here the
    layers before `start` mark, and one run does both. Halves are rounded up, ties go to the earlier token. The
    paper's guidance, a contrast of the boosted logits with the model's own, is
    `omnisink.methods.asd_guidance.ASDGuidance`.

    Parameters
    ----------
    criterion : Criterion
        What makes a token a sink. The paper's for Qwen2.5-Omni-7B is the preset `qwen2.5-omni-7b`; the default,
        massive activation, needs no channels.
    strength : float
        Share of its absolute value that is added to a score.
    start : int
        First layer that is boosted; the layers before it mark.
    share : float
        Share of the marked tokens of a modality that count, one at least: the paper has a half, also a third and a
        quarter.
    vision : tuple of str
        What counts as video.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    layers: ClassVar[None] = None  # type: ignore[misc]  # `start` says which layers mark.
    strength: float = 0.2
    start: int = 6
    share: float = 0.5
    vision: tuple[str, ...] = IMAGES

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"), ("audio",))
    watches_steps: ClassVar[bool] = False
    keeps_sinks: ClassVar[bool] = False
    source: ClassVar[str] = "Jung, Jung, Kim, Chung, ICML 2026 (arXiv 2605.10815), its static step"
    licence: ClassVar[str] = "no licence file"
    derived: ClassVar[str] = (
        "one run, in which the first layers mark and the others boost; counts and halves of few tokens; massive "
        "activation as the default criterion; the preset smolomni"
    )
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    cost: ClassVar[str] = "one more attention in a prefill, and in a decode step from layer `start` on"
    needs: ClassVar[str] = (
        "video (or image) and audio in the prompt; the model's sink channels, for the paper's criterion"
    )
    search_space: ClassVar[Mapping[str, Range]] = {"strength": FloatRange(0.05, 1.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen2.5-omni-7b": Preset(
            "Sinks by the channels of Qwen2.5-Omni-7B.", {"criterion": SinkDimension((458, 2570), 25.0)}
        ),
        "smolomni": Preset(
            "Sinks by the two largest channels of SmolOmni, and a threshold that omnisink chose for its width.",
            {"criterion": SinkDimension((247, 507), 10.0)},
        ),
        "third": Preset("A third of the marked tokens of each modality counts.", {"share": 1 / 3}),
        "quarter": Preset("A quarter of the marked tokens of each modality counts.", {"share": 0.25}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("strength", self.strength, 0.0, 100.0)
        check_range("share", self.share, 0.0, 1.0)
        if isinstance(self.start, bool) or not isinstance(self.start, int) or self.start < 1:
            raise ValueError(f"start must be a whole number of at least 1, got {self.start!r}")
        object.__setattr__(self, "vision", tuple(self.vision))

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that has no layer to boost."""
        if self.start >= len(anatomy.layers):
            raise OmnisinkError(
                f"ASD boosts from layer {self.start} on, but the model has layers 0 to {len(anatomy.layers) - 1}: "
                "give a lower start"
            )

    def chosen(self, layer: int, depth: int) -> bool:
        """Whether a layer marks sinks."""
        return layer < self.start

    def begin(self, context: Context) -> None:
        """Find the video and the audio tokens of a prompt."""
        if context.now.is_prefill:
            video, audio = require_modality(context, *self.vision), require_modality(context, "audio")
            both = (video.any(dim=1) & audio.any(dim=1))[:, None]
            context.scratch["parts"] = parts = torch.stack([video & both, audio & both], dim=1)
            context.scratch["pulls"] = []
            note_absent(parts, range(len(context.anatomy.layers)), context)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Measure in the layers that mark, and boost in those after them."""
        now = context.now
        if self.strength == 0:
            return output
        if call.layer < self.start:
            if now.is_prefill:
                context.scratch["pulls"].append(self._pull(call, context))
            return output
        if now.is_prefill and CROSSING not in now.state.tensors:
            now.state.tensors[CROSSING], now.state.tensors[STAYING] = self._divide(context)
        crossing = now.state.tensors[CROSSING]
        start = first_row(crossing) if now.is_prefill else 0
        if start >= now.length or (is_eager_cpu(crossing) and not bool(crossing.any())):
            return output
        rows = slice(start, now.length)
        chosen = crossing.any(dim=1, keepdim=True).expand(-1, now.length)
        chosen = chosen & context.spans["text"] if now.is_prefill else chosen
        if (token_mask := now.token_mask_on(chosen.device)) is not None:
            chosen = chosen & token_mask
        raised = boosted_rows(call, context, crossing, rows, self.strength).to(output.dtype)
        new = output.clone()
        new[:, rows] = torch.where(chosen[:, rows, None, None].to(output.device), raised, output[:, rows])
        return new

    def _pull(self, call: AttentionCall, context: Context) -> Tensor:
        """Return ``(v - a) / (v + a)`` of every token of the prompt, (B, S)."""
        received, count = received_from_sets(call, context, context.scratch["parts"], own=(False, False))
        video, audio = (received.mean(dim=1) / count.clamp(min=1.0)).unbind(dim=1)
        total = video + audio
        return torch.where(total > 0, (video - audio) / total.masked_fill(total <= 0, 1.0), 0.0).to(context.now.device)

    def _divide(self, context: Context) -> tuple[Tensor, Tensor]:
        """Divide the sinks of each sequence that count into cross-modal ones and the rest, (B, S) bool each."""
        marked = [context.record.sinks[layer].to(context.now.device) for layer in sorted(context.record.sinks)]
        counts = torch.stack(marked).sum(dim=0)
        pulls = context.scratch["pulls"]
        score = torch.stack(pulls).mean(dim=0) if pulls else torch.zeros_like(counts, dtype=torch.float32)
        video, audio = context.scratch["parts"].unbind(dim=1)
        counted = [_best(part & (counts > 0), counts.float(), self.share, up=False) for part in (video, audio)]
        found = [_best(often, sign * score, 0.5, up=True) for often, sign in zip(counted, (-1.0, 1.0), strict=True)]
        crossing = found[0] | found[1]
        return crossing, (counted[0] | counted[1]) & ~crossing


def _best(marked: Tensor, score: Tensor, share: float, up: bool) -> Tensor:
    """Keep the share of the marked tokens (B, S) with the highest scores, rounded up or down, but one at least."""
    # Less, or more, than what rounding may have added to the product.
    wanted = marked.sum(dim=1).double() * share
    count = ((wanted - 1e-6).ceil() if up else (wanted + 1e-6).floor()).clamp(min=1)
    order = score.masked_fill(~marked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return marked & (order.argsort(dim=1) < count[:, None])
