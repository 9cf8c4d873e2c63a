"""The features of media in the place of their placeholders."""

from __future__ import annotations

from torch import Tensor

from omnisink.errors import OmnisinkError


def fill(embeds: Tensor, places: Tensor, tokens: Tensor, name: str) -> Tensor:
    """Put the tokens of a medium in the place of its placeholders, in order.

    Parameters
    ----------
    embeds : Tensor
        (B, S, W), the embedded prompts.
    places : Tensor
        (B, S) bool, where the placeholders are.
    tokens : Tensor
        (..., W), one for each placeholder.
    name : str
        The medium, for messages.

    Returns
    -------
    Tensor
        (B, S, W), of the type of `embeds`.

    Raises
    ------
    OmnisinkError
        If there are more or fewer placeholders than tokens.
    """
    here, made = int(places.sum()), tokens.shape[:-1].numel()
    if here != made:
        raise OmnisinkError(
            f"{here} placeholders of {name} are in the prompts, and the {name} has {made} tokens: give whole prompts "
            "with their media"
        )
    return embeds.masked_scatter(places.unsqueeze(-1), tokens.to(embeds))
