"""ASD's guidance: the model beside itself with boosted cross-modal sinks, weighed by where its last token looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError
from omnisink.maths.bounds import whole_numbers
from omnisink.methods.asd import ASD, CROSSING, STAYING
from omnisink.methods.contrast import Branch, Contrast, keep_plausible, unchanged
from omnisink.methods.criterion import Criterion
from omnisink.methods.image_tokens import IMAGES
from omnisink.methods.presets import Preset
from omnisink.methods.ranges import check_range
from omnisink.methods.sets import attention_of_last
from omnisink.methods.spans import require_modality

#: Layers that the paper looks at, 18 to 25, and how many its model has.
_WATCHED, _DEPTH = range(18, 26), 28
#: Under which a cache keeps the weight of its last token, (B,).
_WEIGHT = "weight of the guidance"
#: Under which it keeps the text of its prompts behind the first picture or sound, (B, S) bool.
_LANGUAGE = "language"
#: At most this weight; shares of cross-modal attention below it, and masses of text above `_TEXT`, make it less.
_MOST, _TEXT, _FADES = 0.6, 0.4, 0.2


@dataclass(frozen=True)
class ASDGuidance(Contrast):
    """Guidance toward boosted cross-modal sinks (Jung, Jung, Kim, Chung, ICML 2026; arXiv 2605.10815, its last step).

    Beside the model runs a second pass in which `ASD` boosts cross-modal sinks. With ``l`` the model's logits and
    ``l'`` those of that pass, tokens are chosen by ``l + weight (l' - l)``. The weight is 0 at the first token; after
    it, half of the last weight and half of ``min(0.6, alpha w)`` make the new one. ``w = c / (c + u)`` compares the
    attention of the last token to a cross-modal sink, ``c``, with that to another sink that counts, ``u``. Where text
    has more than 0.4 of its attention, ``min(0.6, alpha w)`` is multiplied by
    ``(1 + cos(pi min(1, (text - 0.4) / 0.2))) / 2``; where ``w`` is below 0.6, by ``(w / 0.6)^2``.

    An answer of one token is therefore the model's own. So is every token where nothing is cached; the trace then
    lists the watched layers as skipped.

    Derived by omnisink: the authors' release has a class for the guidance, but makes no use of it and gives its
    strength no default. `alpha` is ours. So is what the release leaves open: the attention is the model's own, not the
    boosted pass's; it is averaged over heads and layers before the share is taken; in models of another depth other
    layers are watched. Text is what stands behind the first picture or sound, generated tokens included: a sink at the
    start of the prompt would else have most of the attention, and end all guidance.

    Parameters
    ----------
    alpha : float
        ``guidance_strength`` in the release, which gives it no default; 1 is ours.
    beta : float
        See `Contrast`. 0, as the release cuts nothing.
    criterion, strength, start, share, vision
        Of `ASD`, in the second pass. A criterion of None is that of `ASD`.
    watched : tuple of int, optional
        Layers whose attention sets the weight. None is the paper's 18 to 25 of 28, and the same part of other depths.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    alpha: float = 1.0
    beta: float = 0.0
    criterion: Criterion | None = None
    strength: float = 0.2
    start: int = 6
    share: float = 0.5
    vision: tuple[str, ...] = IMAGES
    watched: tuple[int, ...] | None = None

    needs_spans: ClassVar[bool] = True
    watches_steps: ClassVar[bool] = True
    source: ClassVar[str] = "Jung, Jung, Kim, Chung, ICML 2026 (arXiv 2605.10815), its guidance"
    licence: ClassVar[str] = "no licence file"
    derived: ClassVar[str] = (
        "the strength; whose attention sets the weight, and how it is averaged; what counts as text; the layers in "
        "other depths; what is ours in `asd`"
    )
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"), ("audio",))
    needs: ClassVar[str] = (
        "a second pass for every token; video (or image) and audio in the prompt; answers of more than one token"
    )
    cost: ClassVar[str] = "as much as the model again, and what `asd` costs"
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding; beams"
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(preset.summary, preset.changes) for name, preset in ASD.presets.items()
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0.0)
        object.__setattr__(self, "vision", tuple(self.vision))
        if self.watched is not None:
            object.__setattr__(self, "watched", tuple(sorted(set(whole_numbers("watched", self.watched)))))
            if not self.watched:
                raise ValueError("watched must name one layer at least, or be None")
        self._boost()

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that has no layer to boost or not the layers to watch."""
        self._boost().check(anatomy)
        if outside := [layer for layer in self.watched_layers(len(anatomy.layers)) if layer not in anatomy.attention]:
            raise OmnisinkError(
                f"ASDGuidance watches the attention of layers {outside}, which the model does not have, or whose "
                "attention cannot be reached: give others as watched"
            )

    def watched_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layers whose attention sets the weight, in a decoder with `depth` layers."""
        if self.watched is not None:
            return self.watched
        first, stop = (round(edge * depth / _DEPTH) for edge in (_WATCHED.start, _WATCHED.stop))
        return tuple(range(min(first, depth - 1), max(stop, first + 1)))

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the one branch, which is boosted."""
        found: dict[str, Tensor] = {}
        context.block["found"] = found
        return [Branch(unchanged, (self._boost(found),))]

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Let every layer be skipped: the model's own prefill is neither looked at nor changed."""
        return True

    def begin(self, context: Context) -> None:
        """Say where no weight can grow."""
        context.scratch["looks"] = []
        if context.now.is_prefill and context.now.cache is None:
            layers = self.watched_layers(len(context.anatomy.layers))
            context.record.skipped |= dict.fromkeys(
                layers, "without a cache every token is the first one, which is not guided"
            )

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Look where the last token looks, in a step."""
        kept = context.now.state.tensors
        if context.now.is_prefill or call.layer not in self.watched_layers(len(context.anatomy.layers)):
            return output
        seen = attention_of_last(call, context).mean(dim=1)
        looks = []
        for name, per_token, later in ((CROSSING, True, False), (STAYING, True, False), (_LANGUAGE, False, True)):
            tokens = kept[name].to(seen.device)
            # Room of the cache that is not in use has no attention, whatever it counts as.
            among = pad(tokens, (0, seen.shape[1] - tokens.shape[1]), value=later)
            mass = (seen * among).sum(dim=1)
            looks.append(mass / among.sum(dim=1).clamp(min=1) if per_token else mass)
        context.scratch["looks"].append(torch.stack(looks, dim=1))
        return output

    def combine_pass(self, context: Context, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine with the weight that the attention gives."""
        (boosted,), kept = twins, context.now.state.tensors
        if context.now.is_prefill:
            kept.update(context.block["found"])
            media = require_modality(context, *self.vision) | require_modality(context, "audio")
            kept[_LANGUAGE] = context.spans["text"] & (media.cumsum(dim=1) > 0)
            kept[_WEIGHT] = torch.zeros(len(first), device=first.device)
            return keep_plausible(first, first, self.beta)
        looks = torch.stack([one.to(first.device) for one in context.scratch["looks"]]).mean(dim=0)
        crossing, staying, text = looks.unbind(dim=1)
        kept[_WEIGHT] = (kept[_WEIGHT].to(first.device) + next_weight(crossing, staying, text, self.alpha)) / 2
        weight = kept[_WEIGHT][:, None, None]
        guided = torch.where(weight > 0, first.float() + weight * (boosted.float() - first.float()), first.float())
        return keep_plausible(first, guided, self.beta)

    def _boost(self, found: dict[str, Tensor] | None = None) -> _Boost:
        """Return what acts in the second pass, and writes to `found` which sinks it divides how."""
        given = {} if self.criterion is None else {"criterion": self.criterion}
        settings = {"strength": self.strength, "start": self.start, "share": self.share, "vision": self.vision}
        return _Boost(**given, **settings, found={} if found is None else found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Boost(ASD):
    """ASD, which says in a prefill what it has found."""

    found: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def last_hidden_state(self, hidden: Tensor, context: Context) -> None:
        """Hand over the sinks of the prompts."""
        super().last_hidden_state(hidden, context)
        if context.now.is_prefill:
            none = torch.zeros_like(context.spans["text"])
            self.found.update({name: context.now.state.tensors.get(name, none) for name in (CROSSING, STAYING)})


def next_weight(crossing: Tensor, staying: Tensor, text: Tensor, alpha: float) -> Tensor:
    """Return what the weight of the guidance moves to.

    Parameters
    ----------
    crossing, staying : Tensor
        (B,) mean attention of the last token to a cross-modal sink, and to another one that counts.
    text : Tensor
        (B,) its attention to all text.
    alpha : float
        Strength.

    Returns
    -------
    Tensor
        (B,), from 0 to 0.6; 0 where no sink is looked at.
    """
    both = crossing + staying
    share = torch.where(both > 0, crossing / both.masked_fill(both <= 0, 1.0), 0.0)
    weight = (alpha * share).clamp(max=_MOST)
    faded = (1 + torch.cos(math.pi * ((text - _TEXT) / _FADES).clamp(0, 1))) / 2
    return weight * faded * (share / _MOST).clamp(max=1) ** 2
