"""Which tokens are sinks by their massive activation.

The massive-activation rule compares a token's largest activation with the median of a whole sequence. Sorting for
that median at every layer would cost more than the method itself, so both paths below answer the equivalent
question about a count: ``m >= r * median`` exactly when at least half of all ``r * |h|`` are at most ``m``.
Multiplying by r is monotone in floating point too, so the answer is the same to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.maths.bisection import by_bisection
from omnisink.maths.choice import kernels_run_on
from omnisink.maths.host import is_eager_cpu, token_blocks
from omnisink.maths.magnitude import token_magnitude

#: Elements from which the median is guessed before it is counted.
_SAMPLE = 1 << 11


def massive_activation_sinks(
    hidden: Tensor,
    token_mask: Tensor | None = None,
    *,
    min_activation: float = 100.0,
    median_ratio: float = 1000.0,
    magnitude: Tensor | None = None,
) -> Tensor:
    """Mark the tokens whose largest activation is massive (Sun et al. 2024; OutRo's criterion).

    Token t of a sequence is a sink iff ``m_t >= max(min_activation, median_ratio * med)``, where
    ``m_t = max_i |h[t, i]|`` and ``med`` is the lower median of ``|h|`` over the real tokens and all channels of that
    sequence. Computed in float32.

    Parameters
    ----------
    hidden : Tensor
        Residual stream entering a layer, (B, S, d), any floating dtype.
    token_mask : Tensor, optional
        (B, S) bool, False at padding. None: every token is real. Padding is neither counted nor ever a sink.
    min_activation : float
        Smallest activation that can count as massive.
    median_ratio : float
        How many times the median it must reach.
    magnitude : Tensor, optional
        (B, S) float32, `token_magnitude` of `hidden`, where the caller has it already.

    Returns
    -------
    Tensor
        (B, S) bool on the device of `hidden`.

    Notes
    -----
    On an eager CPU tensor, layers without a candidate cost one pass over `hidden`. On a CUDA device two kernels do the
    work. Elsewhere the number of operators is fixed and nothing waits for the host: the threshold is found among the
    tokens by bisection.
    """
    hidden = hidden.detach()  # a decision has no gradient
    if kernels_run_on(hidden):
        from omnisink.kernels.detection import sinks_of

        return sinks_of(hidden, token_mask, min_activation=min_activation, median_ratio=median_ratio)
    magnitude = token_magnitude(hidden) if magnitude is None else magnitude.detach()
    candidate = magnitude >= min_activation
    if token_mask is not None:
        candidate &= token_mask
    if is_eager_cpu(hidden):
        return _by_inspection(hidden, token_mask, magnitude, candidate, median_ratio)
    return by_bisection(hidden, token_mask, magnitude, candidate, median_ratio)


def _by_inspection(
    hidden: Tensor, token_mask: Tensor | None, magnitude: Tensor, candidate: Tensor, median_ratio: float
) -> Tensor:
    """Decide sequence by sequence on the host, counting for as few candidates as it takes."""
    sinks = torch.zeros_like(candidate)
    for b in candidate.any(dim=1).nonzero().flatten().tolist():
        rows = hidden[b] if token_mask is None or bool(token_mask[b].all()) else hidden[b][token_mask[b]]
        levels = sorted(set(magnitude[b][candidate[b]].tolist()), reverse=True)
        passing = _count_passing(rows, levels, median_ratio)
        if passing:
            sinks[b] = candidate[b] & (magnitude[b] >= levels[passing - 1])
    return sinks


def _count_passing(rows: Tensor, levels: list[float], median_ratio: float) -> int:
    """How many of the descending `levels` hold against the median of ``|rows|``.

    The rule is monotone, so it holds for a first part of them. A median of a sample says where to look first; from
    there the search gallops, and every answer it relies on is a full count.
    """
    passing, failing, stride = 0, len(levels), 1
    probe = 0
    if failing > 1:
        sample = rows.flatten()[:: max(1, rows.numel() // _SAMPLE)].abs().float()
        estimate = float(sample.median()) * median_ratio
        probe = max(0, sum(level >= estimate for level in levels) - 1)
    while passing < failing:
        if _is_above_median(rows, levels[probe], median_ratio):
            passing = probe + 1
            probe = min(passing + stride - 1, failing - 1)
        else:
            failing = probe
            probe = max(failing - stride, passing)
        stride *= 2
    return passing


def _is_above_median(rows: Tensor, level: float, median_ratio: float) -> bool:
    """Whether `level` is at least `median_ratio` times the lower median of ``|rows|``; stops once that is settled."""
    needed = (rows.numel() + 1) // 2
    left = rows.numel()
    found = 0
    for block in token_blocks(rows[None]):
        found += int(torch.count_nonzero(rows[block].abs().float().mul_(median_ratio) <= level))
        left -= rows[block].numel()
        if found >= needed or found + left < needed:
            break
    return found >= needed
