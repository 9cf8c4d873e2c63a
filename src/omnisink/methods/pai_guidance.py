"""The second half of PAI: the model beside itself without pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from omnisink.decoder.context import Context
from omnisink.methods.contrast import Branch, Contrast
from omnisink.methods.presets import Preset
from omnisink.methods.space import FloatRange, Range
from omnisink.methods.spans import require_modality
from omnisink.methods.twin_prompts import without_tokens


@dataclass(frozen=True)
class PAIGuidance(Contrast):
    """Guidance away from what the text alone makes likely (Liu et al., PAI, arXiv 2407.21771, its second half).

    With ``l`` the log-likelihoods of the model, and ``l'`` those for the prompt without its pictures, the tokens are
    chosen by ``gamma l + (1 - gamma) l'``, which is `Contrast` with ``alpha = gamma - 1``. Together with PAI's
    attention to pictures, attach that method as well: without pictures it does nothing, as in the paper. The paper has
    pictures only; leaving out video and sound too, on models that take them, is ours.

    Parameters
    ----------
    alpha : float
        ``gamma - 1``. 0.1 as the release's page recommends; its command lines have 1 without an argument.
    beta : float
        See `Contrast`.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    alpha: float = 0.1

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video", "audio"),)
    source: ClassVar[str] = "Liu et al., PAI (arXiv 2407.21771), its logit guidance"
    licence: ClassVar[str] = "MIT"
    derived: ClassVar[str] = "leaving out video and sound, on models that take them"
    needs: ClassVar[str] = "a second pass for every token; pictures, video or sound in the prompt"
    cost: ClassVar[str] = "a second pass over the text, and one more for every token"
    tested: ClassVar[str] = "dynamic caches and none; families that see or hear"
    search_space: ClassVar[Mapping[str, Range]] = {"alpha": FloatRange(0.03, 2.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "release": Preset("The strength of the release's command line without an argument.", {"alpha": 1.0}),
    }

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the one branch, whose prompt is text."""
        return [Branch(partial(_without_media, context))]


def _without_media(context: Context, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return without_tokens(inputs, require_modality(context, "image", "video", "audio"))
