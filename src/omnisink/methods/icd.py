"""Instruction contrastive decoding: the model beside itself with an instruction that makes it unsure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.context import Context
from omnisink.errors import OmnisinkError
from omnisink.methods.contrast import Branch, Contrast
from omnisink.methods.presets import Preset
from omnisink.methods.spans import require_modality
from omnisink.methods.twin_prompts import insert_tokens


@dataclass(frozen=True)
class ICD(Contrast):
    """Instruction contrastive decoding (Wang et al., arXiv 2403.18715): contrast with a disturbed instruction.

    The paper gives LLaVA another system message, and models with a Q-Former another text there. Here the disturbance
    stands behind the last token of pictures, video and sound, before the question, which needs no chat template; SID
    (arXiv 2408.02032) repeats ICD in the same way. A prompt without any is contrasted with itself.

    Parameters
    ----------
    alpha, beta : float
        See `Contrast`. 1 and 0.1 as the command lines of the release have them; called without them, its sampler takes
        0.5 and 0.1.
    disturbance : str
        What is put in, in our words: the paper's instruction makes a confused detector of the model, that gives a
        vague overview.
    tokens : tuple of int, optional
        The same as token ids, for a model that is given without its tokenizer.

    Raises
    ------
    ValueError
        If a setting is out of range, or there is no disturbance.
    """

    disturbance: str = "You are a confused detector: you are unsure of what is there, and describe it only vaguely.\n"
    tokens: tuple[int, ...] | None = None

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video", "audio"),)
    source: ClassVar[str] = "Wang et al. (arXiv 2403.18715)"
    licence: ClassVar[str] = "Apache-2.0"
    derived: ClassVar[str] = "the words of the disturbance; that it stands behind the media, as in SID"
    needs: ClassVar[str] = "a second pass for every token; pictures, video or sound in the prompt; a tokenizer"
    cost: ClassVar[str] = "as much as the model again"
    tested: ClassVar[str] = "dynamic caches and none; families that see or hear"
    presets: ClassVar[Mapping[str, Preset]] = {
        "sampler": Preset("The weights that the release's sampler takes by itself.", {"alpha": 0.5}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.disturbance and not self.tokens:
            raise ValueError("disturbance must be a text")

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the one branch, with the disturbance in its prompt."""
        tokens = self.tokens
        if tokens is None:
            if context.tokenizer is None:
                raise OmnisinkError(
                    "ICD writes a text into the prompt, and was given a model without its tokenizer: give what "
                    "load_model returned or a pipeline, or ICD(tokens=...)"
                )
            tokens = tuple(context.tokenizer.encode(self.disturbance, add_special_tokens=False))
        return [Branch(partial(_disturbed, context, tokens))]


def _disturbed(context: Context, tokens: Sequence[int], inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    media = require_modality(context, "image", "video", "audio")
    column = torch.arange(1, media.shape[1] + 1, device=media.device)
    places = torch.where(media, column, 0).amax(dim=1)
    return insert_tokens(inputs, torch.where(places > 0, places, -1), tokens)
