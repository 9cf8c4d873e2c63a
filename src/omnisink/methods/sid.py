"""Self-introspective decoding: the model beside itself with only the image tokens that it looks at least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError, UnsupportedModelError, shown
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.contrast import Branch, Contrast
from omnisink.methods.hiding import attend_without
from omnisink.methods.image_tokens import IMAGES
from omnisink.methods.presets import Preset
from omnisink.methods.sets import attention_of_last
from omnisink.methods.space import FloatRange, Range
from omnisink.methods.spans import require_modality

#: The key under which a branch's cache keeps the tokens that may be hidden.
_OFFERED = "offered"


@dataclass(frozen=True)
class SID(Contrast):
    """Self-introspective decoding (Huo et al., arXiv 2408.02032): contrast with the least attended image tokens.

    The branch has the model's own inputs. Its layers before `layer` are the model's. The last of them ranks the image
    tokens by the attention that the last token of the pass pays to them, averaged over heads. From `layer` on only the
    `rank` lowest of them are seen, by any token; positions stay, and text is always seen. Every pass ranks anew, so
    that each generated token has its own image tokens.

    The release chooses greedily without the cut of implausible tokens (the preset `greedy`), and its script for POPE
    does not pass on the `alpha` of its command line, so that 0.5 is used (the preset `sampler`).

    OutRo may be attached before it or after it, and rotates in both branches; a row that it relaxes sees the hidden
    tokens too.

    Parameters
    ----------
    alpha, beta : float
        See `Contrast`. 1 and 0.1 as the command line of the release has them.
    rank : int or float
        Image tokens that are seen, from 1 on; below 1 the share of a prompt's image tokens, rounded up. The default is
        that of the release's script for POPE, 100 of the 576 of LLaVA; its script for CHAIR has 50. Where a prompt has
        no more tokens than are seen, it is contrasted with itself.
    layer : int
        The first layer that sees less; the one before it ranks.
    modalities : tuple of str
        What counts as an image: some of ``"image"``, ``"video"``, ``"audio"``.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    rank: int | float = 0.1736
    layer: int = 2
    modalities: tuple[str, ...] = IMAGES

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"),)
    source: ClassVar[str] = "Huo et al., ICLR 2025 (arXiv 2408.02032)"
    licence: ClassVar[str] = "no licence file"
    derived: ClassVar[str] = "video frames as images, and sound; a share of the tokens instead of a number"
    needs: ClassVar[str] = "a second pass for every token; pictures, video or sound in the prompt"
    cost: ClassVar[str] = "as much as the model again, with the attention of the layers from `layer` on in float32"
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar[Mapping[str, Range]] = {"alpha": FloatRange(0.1, 3.0), "rank": FloatRange(0.02, 0.8)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "sampler": Preset("The weight of the contrast that the release's sampler takes by itself.", {"alpha": 0.5}),
        "greedy": Preset("No cut of implausible tokens, as the release decodes greedily.", {"beta": 0.0}),
        "pope": Preset("As many image tokens as in the release's script for POPE.", {"rank": 100}),
        "chair": Preset("As many image tokens as in the release's script for CHAIR.", {"rank": 50}),
        "audio": Preset("The least attended audio tokens.", {"modalities": ("audio",)}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.rank, int | float) and not isinstance(self.rank, bool)
        if not number or not (0 < self.rank < 1 or (self.rank >= 1 and float(self.rank).is_integer())):
            raise ValueError(f"rank must be a whole number from 1 on, or a share between 0 and 1, got {self.rank!r}")
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or self.layer < 1:
            raise ValueError(f"layer must be a whole number of at least 1, got {self.layer!r}")
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if not self.modalities or set(self.modalities) - {*IMAGES, "audio"}:
            raise ValueError(f"modalities must be some of image, video, audio, got {shown(self.modalities)}")

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model without such layers."""
        depth = len(anatomy.layers)
        if self.layer >= depth:
            raise OmnisinkError(
                f"SID hides tokens from layer {self.layer} on, but the model has layers 0 to {depth - 1}"
            )
        if self.layer - 1 not in anatomy.attention:
            raise UnsupportedModelError(
                f"SID ranks tokens by the attention of layer {self.layer - 1}, which has none that can be reached: "
                "give another layer"
            )

    def attends_in(self) -> frozenset[str]:
        """Return that its branches hide keys in every pass."""
        return frozenset({"prompt", "steps"})

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the one branch, in which tokens are hidden."""
        hiding = _LeastAttended({}, self.rank, self.layer)
        return [Branch(partial(self._offer, context, hiding), (hiding,), layers=self.layer - 1)]

    def _offer(self, context: Context, hiding: _LeastAttended, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Say which tokens of the prompts may be hidden; no input differs."""
        offered = require_modality(context, *self.modalities)
        without = ~offered.any(dim=1)
        what = " or ".join(self.modalities)
        error = OmnisinkError(
            f"SID hides {what} tokens, and a prompt has none: leave prompts without {what} out, or name what they "
            "have with modalities="
        )
        if is_eager_cpu(without) and bool(without.any()):
            raise error
        context.record.defer_check(without.any(), error)
        hiding.prompt[_OFFERED] = offered
        if is_eager_cpu(offered) and bool((offered.sum(dim=1) <= num_seen(offered, self.rank)).all()):
            reason = f"no prompt has more {what} tokens than are seen"
            context.record.skipped |= dict.fromkeys(range(self.layer, len(context.anatomy.layers)), reason)
        return {}


@dataclass(frozen=True)
class _LeastAttended(Method):
    """Rank the tokens that are offered, in every pass, and hide all but the least attended from a layer on."""

    #: Under `_OFFERED`, the tokens (B, S) of the prefill that comes next.
    prompt: dict[str, Tensor] = field(compare=False)
    rank: int | float
    layer: int

    def begin(self, context: Context) -> None:
        """Keep with the branch's cache what may be hidden."""
        if context.now.is_prefill:
            context.now.state.tensors[_OFFERED] = self.prompt[_OFFERED]

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Let the layers before the one that ranks be skipped: they are the model's."""
        return layer < self.layer - 1

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Attend to what is left."""
        if call.layer < self.layer:
            return None
        hidden: Tensor = context.scratch["hidden"]
        return (
            None if is_eager_cpu(hidden) and not bool(hidden.any()) else attend_without(call, context, hidden[:, None])
        )

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Choose what is hidden in the layers that follow."""
        if call.layer == self.layer - 1:
            offered = context.now.state.tensors[_OFFERED].to(call.query.device)
            seen = num_seen(offered, self.rank)
            context.scratch["hidden"] = most_attended(attention_to_prompt(call, context), offered, seen)
        return output


def attention_to_prompt(call: AttentionCall, context: Context) -> Tensor:
    """Return where the last token of a pass looks, (B, S) float32 over the prompt's tokens, averaged over heads."""
    return attention_of_last(call, context).mean(dim=1)[:, : context.now.state.length]


def num_seen(offered: Tensor, rank: int | float) -> Tensor:
    """Return how many of the tokens that are offered, (B, S) bool, stay visible in each prompt, (B,)."""
    # Less what rounding may have added to the product.
    share = (offered.sum(dim=1).double() * rank - 1e-6).ceil()
    return share if rank < 1 else torch.full_like(share, rank)


def most_attended(attention: Tensor, offered: Tensor, count: Tensor) -> Tensor:
    """Return the tokens that are offered, (B, S) bool, without as many as `count` says of those attended to least.

    Of equally attended ones the first are left out.
    """
    order = attention.masked_fill(~offered, math.inf).argsort(dim=1, stable=True)
    return offered & (order.argsort(dim=1) >= count.to(attention.device)[:, None])
