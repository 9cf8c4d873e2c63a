"""VisFlow: more attention to salient image tokens, less to image sinks, and less text in heads that follow text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.maths.sets import difference
from omnisink.methods.base import Method
from omnisink.methods.image_tokens import IMAGES, ImageTokens, note_absent
from omnisink.methods.presets import Preset
from omnisink.methods.ranges import check_range
from omnisink.methods.sets import blocks_of, received_from_sets
from omnisink.methods.space import FloatRange, Range

#: The sets of a layer, in order.
_SYSTEM, _TEXT, _SALIENT, _SINKS = range(4)
#: With a layer, the keys under which a cache keeps the sets (B, 4, S) and the factors of each head (B, H, 4).
_SETS, _FACTORS = "sets", "factors"
#: Shares of the largest received attention over which an image token is a sink, and salient.
_SINK_SHARE, _SALIENT_SHARE = 0.5, 0.05


@dataclass(frozen=True)
class VisFlow(Method):
    """Weights of salient image tokens grow, those of image sinks, text and system tokens shrink; then they sum to one.

    Rows are those of text after the last image token, and of generated tokens. In a prefill each layer sees what every
    image token receives from the other image tokens: a sink receives over half of the largest, a salient one over a
    twentieth. From layer `first` on the weights of salient tokens are multiplied by `salient`, those of image sinks
    by `sink`. Heads are divided by their mean attention over the rows: in text heads up to layer `last_text`, the
    weights of text are multiplied by ``1 - less_text``, in system heads those of system tokens by
    ``1 - less_system``. Then the weights of each row are scaled to sum to what they did.

    Notes on the paper leave much open, and no release was found. Derived by omnisink, and not verified: the values of
    `sink`, `less_text`, `less_system`, `text_over`, `system_over` and `deviations`; that image sinks are not salient;
    that visual heads are left out of the division of heads; that system tokens are all text before the first image
    token, and text is all after it; that generated tokens use the sets and heads of the prompt.

    Parameters
    ----------
    salient : float
        Factor of salient image tokens: the paper's best, between 1 and 24.
    sink : float
        Factor of image sinks.
    less_text, less_system : float
        What text heads take from text, and system heads from system tokens.
    text_over, system_over : float
        Mean attention over which a head is a text head, or a system head.
    deviations : float
        Standard deviations by which a visual head's attention to the image exceeds the mean of its layer's heads.
    tokens, heads : bool
        Whether image tokens, and whether heads, are treated. The paper leaves the tokens out in models whose images
        come through a Q-Former.
    first, last_text : int
        See above.
    modalities : tuple of str
        What counts as an image.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    salient: float = 20.0
    sink: float = 0.5
    less_text: float = 0.5
    less_system: float = 0.5
    text_over: float = 0.5
    system_over: float = 0.5
    deviations: float = 1.0
    tokens: bool = True
    heads: bool = True
    first: int = 2
    last_text: int = 7
    modalities: tuple[str, ...] = IMAGES

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"),)
    watches_steps: ClassVar[bool] = False
    source: ClassVar[str] = "Tang et al., AAAI 2026 (arXiv 2506.12609), from notes on it"
    derived: ClassVar[str] = (
        "the values of all settings but salient, first and last_text; that visual heads are left out; which text is "
        "system text; decode steps, which use the sets and heads of the prompt"
    )
    cost: ClassVar[str] = "two more attentions in a prefill, one more row in a decode step"
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar[Mapping[str, Range]] = {
        "salient": FloatRange(1.0, 24.0),
        "sink": FloatRange(0.1, 1.0),
        "less_text": FloatRange(0.05, 0.95),
        "less_system": FloatRange(0.05, 0.95),
    }
    presets: ClassVar[Mapping[str, Preset]] = {
        "heads": Preset("Treat heads only, as for models with a Q-Former.", {"tokens": False}),
        "tokens": Preset("Treat image tokens only.", {"heads": False}),
    }

    def __post_init__(self) -> None:
        for name in ("salient", "sink"):
            check_range(name, getattr(self, name), 0.0, 1e4)
        for name in ("less_text", "less_system", "text_over", "system_over"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("deviations", self.deviations, -100.0, 100.0)
        object.__setattr__(self, "modalities", tuple(self.modalities))

    def begin(self, context: Context) -> None:
        """Find the image tokens, and the rows to act on."""
        context.scratch["images"] = images = ImageTokens.of(context, self.modalities)
        note_absent(images.image, filter(self._acts_on, range(len(context.anatomy.layers))), context)

    def _acts_on(self, layer: int) -> bool:
        tokens = self.tokens and layer >= self.first and (self.salient, self.sink) != (1, 1)
        return tokens or (self.heads and ((layer <= self.last_text and self.less_text > 0) or self.less_system > 0))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Divide tokens and heads in a prefill, and weigh attention anew in every pass."""
        if not self._acts_on(call.layer):
            return output
        images: ImageTokens = context.scratch["images"]
        state = context.now.state.tensors
        if context.now.is_prefill:
            state[_SETS, call.layer], state[_FACTORS, call.layer] = self._divide(call, images, context)
        factors = state[_FACTORS, call.layer].to(output.device)[:, :, None]  # (B, H, 1, 4)
        changes = (factors != 1.0).any(dim=3) & images.rows.to(output.device)[:, None]  # (B, H, n)
        new = output.clone()
        for part, shares in blocks_of(call, context, state[_SETS, call.layer], slice(images.first, None), later=_TEXT):
            total = 1.0 + ((factors - 1.0) * shares.mass).sum(dim=-1)
            changed = output[:, part].float() + difference(shares, factors).transpose(1, 2)
            changed = changed / total.clamp(min=torch.finfo(torch.float32).tiny).mT[..., None]
            new[:, part] = torch.where(changes[..., part].mT[..., None], changed.to(output.dtype), output[:, part])
        return new

    def _divide(self, call: AttentionCall, images: ImageTokens, context: Context) -> tuple[Tensor, Tensor]:
        """Return the sets of a layer, (B, 4, S) bool, and the factors of its heads, (B, H, 4)."""
        now = context.now
        image, before, after, rows = (
            t.to(call.query.device) for t in (images.image, images.before, images.after, images.rows)
        )
        received, _ = received_from_sets(call, context, torch.stack([image, rows], dim=1), own=(False, True))
        among = received[:, :, 0].mean(dim=1).masked_fill(~image, 0.0)
        most = among.amax(dim=1, keepdim=True)
        sinks = image & (among > _SINK_SHARE * most)
        salient = image & (among > _SALIENT_SHARE * most) & ~sinks
        sets = torch.stack([before, after, salient, sinks], dim=1)
        by_head = received[:, :, 1] / rows.sum(dim=1).clamp(min=1)[:, None, None]  # (B, H, S), means over the rows
        masses = torch.einsum("bht,bxt->bhx", by_head, torch.stack([image, before, after], dim=1).float())
        factors = torch.ones(now.batch, masses.shape[1], 4, device=masses.device)
        if self.tokens and call.layer >= self.first:
            factors[..., _SALIENT], factors[..., _SINKS] = self.salient, self.sink
        if self.heads:
            visual, system, text = masses.unbind(dim=-1)
            limit = visual.mean(dim=1) + self.deviations * visual.std(dim=1, unbiased=False)
            others = visual <= limit[:, None]
            if call.layer <= self.last_text:
                factors[..., _TEXT].masked_fill_(others & (text > self.text_over), 1.0 - self.less_text)
            factors[..., _SYSTEM].masked_fill_(others & (system > self.system_over), 1.0 - self.less_system)
        return sets, factors
