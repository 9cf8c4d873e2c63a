"""Where the tokens of images stand in the prompts of a pass, and which rows of the pass are text after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from omnisink.decoder.context import Context
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.spans import require_modality

#: What counts as an image unless a setting says otherwise: pictures, and the frames of videos.
IMAGES = ("image", "video")


@dataclass(frozen=True)
class ImageTokens:
    """The image tokens of the prompts that a pass runs or continues.

    Attributes
    ----------
    image : Tensor
        (B, S) bool over the tokens of the prompt, padding counted.
    before, after : Tensor
        (B, S) bool, text tokens before the first image token and after it.
    rows : Tensor
        (B, n) bool over the tokens of this pass: in a prefill text after the last image token, later every token.
        False everywhere in a sequence without an image token.
    first : int
        A row before which `rows` is False.
    """

    image: Tensor
    before: Tensor
    after: Tensor
    rows: Tensor
    first: int

    @classmethod
    def of(cls, context: Context, modalities: Sequence[str]) -> ImageTokens:
        """Find the tokens of some modalities.

        Raises
        ------
        UnsupportedModelError
            If the model takes none of them.
        """
        now = context.now
        image, text = require_modality(context, *modalities), context.spans["text"]
        begun = image.cumsum(dim=1) > 0
        to_come = image.flip(1).cumsum(dim=1).flip(1) > 0
        after = text & begun
        if now.is_prefill:
            rows = after & ~to_come
        else:
            rows = image.any(dim=1, keepdim=True).expand(-1, now.length)
            token_mask = now.token_mask_on(rows.device)
            rows = rows if token_mask is None else rows & token_mask
        return cls(image, text & ~begun, after, rows, first_row(rows))


def note_absent(tokens: Tensor, layers: Iterable[int], context: Context) -> None:
    """Report layers as left alone where no prompt of a prefill has the tokens (B, S) that a method acts on.

    It is done where looking costs nothing.
    """
    if context.now.is_prefill and is_eager_cpu(tokens) and not bool(tokens.any()):
        context.record.skipped |= dict.fromkeys(layers, "no prompt has the tokens that it acts on")


def first_row(rows: Tensor) -> int:
    """Return the first row (B, n) that is True in a sequence, where looking costs nothing, and 0 elsewhere."""
    if not is_eager_cpu(rows):
        return 0
    some = rows.any(dim=0)
    return int(some.int().argmax()) if bool(some.any()) else len(some)
