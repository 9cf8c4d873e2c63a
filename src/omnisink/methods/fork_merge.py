"""Fork-merge decoding: the first layers read a prompt without its video and without its sound, the others both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.forks import Fork, SecondRunOver, in_second_run
from omnisink.errors import OmnisinkError, UnsupportedModelError, shown
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.hiding import attend_without
from omnisink.methods.image_tokens import IMAGES, note_absent
from omnisink.methods.ranges import check_range
from omnisink.methods.space import FloatRange, Range
from omnisink.methods.spans import require_modality


@dataclass(frozen=True)
class ForkMerge(Method):
    """Fork-merge decoding, derived from what is known of it (arXiv 2505.20873): two branches that are merged.

    Two branches read the prompt in the layers before `fork_layer`. In one of them nobody sees the tokens of video and
    pictures, in the other nobody sees those of sound; the question is read in both. At the input of `fork_layer` video
    tokens are taken from the branch that saw video, audio tokens from the one that heard sound, and every other token
    is ``video_weight`` times the first plus ``1 - video_weight`` times the second. Keys and values in the cache of the
    layers before are merged in the same way. All other layers, and all later passes, run once, on both modalities. A
    prompt without one of the two is read as it is. Without a cache every pass is a prefill, in which generated tokens
    are read as words of the prompt.

    Neither code nor the whole text of the paper was at hand: it has a weight for each model, chosen on 100 questions
    (0.8 for VideoLLaMA2, of which branch is not known), and an early layer. So the details and both defaults are ours.

    OutRo, and any other method that acts on head outputs, acts in both branches, after the tokens are hidden; which is
    attached first makes no difference. A row that OutRo relaxes sees the whole prompt in both.

    Parameters
    ----------
    fork_layer : int, optional
        The first layer that is run once. None is a fifth of the model's layers, rounded down; 0 changes nothing.
    video_weight : float
        Weight of the branch that saw video in text tokens, from 0 to 1.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    fork_layer: int | None = None
    video_weight: float = 0.5

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"), ("audio",))
    watches_steps: ClassVar[bool] = False
    source: ClassVar[str] = "Fork-Merge Decoding (arXiv 2505.20873), after its abstract and reviews"
    licence: ClassVar[str] = "no code found"
    derived: ClassVar[str] = (
        "all details: masking as tokens that nobody sees, what is merged and how, the layer and the weight; pictures "
        "beside video"
    )
    needs: ClassVar[str] = "video or pictures, and sound, in the prompt"
    cost: ClassVar[str] = "the layers before `fork_layer` twice in a prefill; nothing in a decode step"
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar[Mapping[str, Range]] = {"video_weight": FloatRange(0.0, 1.0)}

    def __post_init__(self) -> None:
        layer = self.fork_layer
        if layer is not None and (isinstance(layer, bool) or not isinstance(layer, int) or layer < 0):
            raise ValueError(f"fork_layer must be a whole number of at least 0 or None, got {shown(layer)}")
        check_range("video_weight", self.video_weight, 0.0, 1.0)

    def layer_of(self, anatomy: Anatomy) -> int:
        """Return the layer at which a model's branches are merged."""
        return len(anatomy.layers) // 5 if self.fork_layer is None else self.fork_layer

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a layer that the model does not have, and layers before it from which nothing can be hidden."""
        layer, depth = self.layer_of(anatomy), len(anatomy.layers)
        if layer >= depth:
            raise OmnisinkError(f"ForkMerge merges at layer {layer}, but the model has layers 0 to {depth - 1}")
        if unreachable := sorted(set(range(layer)) - anatomy.attention.keys()):
            raise UnsupportedModelError(
                f"ForkMerge hides tokens in every layer before {layer}, and the attention of {unreachable} cannot be "
                "reached: give a lower fork_layer"
            )

    @contextmanager
    def beside(self, context: Context) -> Iterator[None]:
        """Run the second branch before each prompt."""
        if not (layer := self.layer_of(context.anatomy)):
            yield
            return
        stop = Fork(context.anatomy, layer, partial(_merged, context), owner=self).attach()
        try:
            yield
        finally:
            stop()

    def begin(self, context: Context) -> None:
        """Find what each branch hides, and what is taken from which."""
        if not context.now.is_prefill or not self.layer_of(context.anatomy):
            return
        video, audio = (require_modality(context, *names) for names in (IMAGES, ("audio",)))
        both = (video.any(dim=1) & audio.any(dim=1))[:, None]
        video, audio = video & both, audio & both
        nothing = is_eager_cpu(both) and not bool(both.any())
        if nothing and in_second_run():
            raise SecondRunOver
        note_absent(both, range(self.layer_of(context.anatomy)), context)
        # The first run sees video and not sound, the second one sound and not video.
        context.scratch["hidden"] = None if nothing else video if in_second_run() else audio
        words = context.spans["text"].to(both.device) & both
        context.scratch["second"] = (1 - self.video_weight) * words.float() + audio.float()

    def step(self, context: Context) -> dict[int, Callable[[Tensor], Tensor]]:
        """Ask for nothing in a decode step."""
        return {}

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Whether nothing is hidden in a layer."""
        return layer >= self.layer_of(context.anatomy) or context.scratch["hidden"] is None

    def attends_in(self) -> frozenset[str]:
        """Return that its branches answer the prompt."""
        return frozenset({"prompt"})

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Attend without what the branch does not see."""
        if not context.now.is_prefill or call.layer >= self.layer_of(context.anatomy):
            return None
        hidden = context.scratch["hidden"]
        return None if hidden is None else attend_without(call, context, hidden[:, None])

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Return what attention gave."""
        return output


def _merged(context: Context, first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Merge what both branches have of each token of the prompt, or of the end of it that a window keeps."""
    share: Tensor = context.scratch["second"]
    held = first.shape[dim]
    share = torch.nn.functional.pad(share[:, max(0, share.shape[1] - held) :], (0, max(0, held - share.shape[1])))
    weight = share.to(first.device).view(len(share), *[1] * (dim - 1), held, *[1] * (first.dim() - dim - 1))
    return first.float().lerp(second.to(first.device).float(), weight).to(first.dtype)
