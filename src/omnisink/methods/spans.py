"""The tokens of a modality, or one clear error, for methods that are about pictures, video or sound."""

from __future__ import annotations

from torch import Tensor

from omnisink.decoder.context import Context
from omnisink.errors import UnsupportedModelError


def require_modality(context: Context, *modalities: str) -> Tensor:
    """Return the tokens of some modalities in the prompts of the running pass.

    Parameters
    ----------
    context : Context
        Of a method with ``needs_spans = True``.
    *modalities : str
        ``"image"``, ``"video"``, ``"audio"``, ``"text"``; the model has to take one of them at least.

    Returns
    -------
    Tensor
        (B, S) bool over the prompt's tokens, padding counted; True at tokens of any of them. A prompt without one has
        no token marked.

    Raises
    ------
    UnsupportedModelError
        If the model takes none of them.
    """
    spans = context.spans
    found = [spans[modality] for modality in modalities if modality in spans]
    if not found:
        name, model = type(context.method).__name__, type(context.anatomy.model).__name__
        wanted = " or ".join(modalities)
        raise UnsupportedModelError(
            f"{name} acts on {wanted} tokens, and the configuration of {model} names no token that stands for them. "
            f"Use a model that takes {wanted}, or say where they are: with {name}(...)(model, "
            "spans=loaded.spans(inputs))"
        )
    marked = found[0]
    for other in found[1:]:
        marked = marked | other
    return marked
