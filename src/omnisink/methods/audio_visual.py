"""How AVCD and MAD combine the logits of a model with those without one modality, another, and both."""

from __future__ import annotations

from torch import Tensor


def contrast_pairs(
    z: Tensor,
    without_second: Tensor,
    without_third: Tensor,
    without_both: Tensor,
    weights: tuple[float | Tensor, float | Tensor, float | Tensor],
) -> Tensor:
    """Contrast with and without a second and a third modality, each beside the other one and without it.

    For the second modality, ``(1 + w) z - w z_2`` is the contrast beside the third, and ``(1 + w3) z_3 - w3 z_23``
    the contrast without it, where ``z_2`` lacks the second, ``z_3`` the third and ``z_23`` both. With the same two for
    the third, the four add up to

    ``(2 + 2 w) z + (1 + w2 - w) z_2 + (1 + w3 - w) z_3 - (w2 + w3) z_23``,

    with ``w2`` the weight of the third modality's contrast where the second is missing. The weights of the four logits
    add up to 4, for which sampling at a temperature has to allow.

    Parameters
    ----------
    z, without_second, without_third, without_both : Tensor
        Logits (B, n, V) float32.
    weights : tuple of float or Tensor
        ``w``, ``w2`` and ``w3``; tensors are (B, 1, 1), another weight for each sequence.

    Returns
    -------
    Tensor
        (B, n, V) float32.
    """
    both, third_only, second_only = weights
    return (
        (2 + 2 * both) * z
        + (1 + third_only - both) * without_second
        + (1 + second_only - both) * without_third
        - (third_only + second_only) * without_both
    )
