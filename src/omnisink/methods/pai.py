"""PAI: the last row of every layer pays more attention to the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.methods.base import Method
from omnisink.methods.boosting import boosted_rows
from omnisink.methods.image_tokens import IMAGES, note_absent
from omnisink.methods.ranges import check_layer_range, check_range, check_some_layer, layer_range
from omnisink.methods.sets import last_rows
from omnisink.methods.space import FloatRange, Range
from omnisink.methods.spans import require_modality


@dataclass(frozen=True)
class PAI(Method):
    """Pay attention to the image: scores of image tokens rise by a share of their absolute value, in the last row.

    The last row is that of the last token of a prompt, and of every generated token: ``s' = s + alpha |s|`` at the
    image tokens, with the scores that the softmax takes. A negative score comes nearer to zero, so that tokens with a
    score far below zero are raised most. All other rows, and the cache, stay as they are.

    This is the attention part of PAI. Its second part, a contrast of the logits with those of a prompt without the
    image, is `omnisink.methods.PAIGuidance`.

    Parameters
    ----------
    alpha : float
        The share. The release has 0.2 for its two benchmarks; values of single models in the paper were not verified.
    start, stop : int, int or None
        Layers to act on, as a slice of the model's. The release has layers 2 to 31, the last of a model with 32.
    modalities : tuple of str
        What counts as an image.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    alpha: float = 0.2
    start: int = 2
    stop: int | None = None
    modalities: tuple[str, ...] = IMAGES

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"),)
    watches_steps: ClassVar[bool] = False
    source: ClassVar[str] = "Liu, Zheng, Chen, ECCV 2024 (arXiv 2407.21771), its attention part"
    licence: ClassVar[str] = "MIT"
    derived: ClassVar[str] = "video frames as images; scores after a soft cap"
    cost: ClassVar[str] = "one more row of attention in a prefill and in a decode step"
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar[Mapping[str, Range]] = {"alpha": FloatRange(0.05, 1.0)}

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0.0, 100.0)
        check_layer_range(self.start, self.stop)
        object.__setattr__(self, "modalities", tuple(self.modalities))

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers that the model does not have."""
        check_some_layer(self.start, self.stop, len(anatomy.layers), "PAI")

    def begin(self, context: Context) -> None:
        """Find the image tokens, and the last row of each sequence."""
        context.scratch["image"] = image = require_modality(context, *self.modalities)
        context.scratch["last"] = last_rows(context)
        note_absent(image, layer_range(self.start, self.stop, len(context.anatomy.layers)), context)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Replace the last row."""
        if self.alpha == 0 or call.layer not in layer_range(self.start, self.stop, len(context.anatomy.layers)):
            return output
        image, last = context.scratch["image"], context.scratch["last"]
        raised = boosted_rows(call, context, image, last, self.alpha).to(output.dtype)
        index = last.to(output.device)[:, :, None, None].expand_as(raised)
        has_image = image.any(dim=1).to(output.device)[:, None, None, None]
        return output.scatter(1, index, torch.where(has_image, raised, output.gather(1, index)))
