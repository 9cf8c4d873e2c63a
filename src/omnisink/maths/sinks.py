"""Which tokens are sinks: the massive-activation and the sink-dimension criterion.

The massive-activation rule compares a token's largest activation with the median of a whole sequence. Sorting for
that median at every layer would cost more than the method itself, so both paths below answer the equivalent
question about a count: ``m >= r * median`` exactly when at least half of all ``r * |h|`` are at most ``m``.
Multiplying by r is monotone in floating point too, so the answer is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnisink.maths.choice import kernels_run_on
from omnisink.maths.host import is_eager_cpu, token_blocks

#: Elements from which the median is guessed before it is counted.
_SAMPLE = 1 << 11


def token_magnitude(hidden: Tensor) -> Tensor:
    """Largest absolute activation of every token, ``m_t = max_i |h[t, i]|``.

    Parameters
    ----------
    hidden : Tensor
        Residual stream, (B, S, d), any floating dtype.

    Returns
    -------
    Tensor
        (B, S), float32. A maximum loses nothing in half precision, so only the result is widened.
    """
    return torch.maximum(hidden.amax(dim=-1), -hidden.amin(dim=-1)).float()


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
    return _by_bisection(hidden, token_mask, magnitude, candidate, median_ratio)


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

    The rule is monotone, so it holds for the first so many. A median of a sample says where to look first; from there
    the search gallops, and every answer it relies on is a full count.
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


def _by_bisection(
    hidden: Tensor, token_mask: Tensor | None, magnitude: Tensor, candidate: Tensor, median_ratio: float
) -> Tensor:
    """Decide with tensors alone: bisect over the sorted candidates, one counting pass a step."""
    batch, length, width = hidden.shape
    if token_mask is None:
        needed = torch.full((batch,), (length * width + 1) // 2, device=hidden.device)
    else:
        needed = (token_mask.sum(dim=1) * width + 1) // 2
    levels = magnitude.masked_fill(~candidate, 0.0).sort(dim=1, descending=True).values
    limits = _largest_below(levels, median_ratio)
    size = hidden.abs()
    passing = torch.zeros(batch, dtype=torch.long, device=hidden.device)
    failing = candidate.sum(dim=1)
    for _ in range(length.bit_length()):
        open_ = passing < failing
        probe = (passing + failing) // 2
        limit = limits.gather(1, probe.clamp(max=length - 1)[:, None])[:, :, None]
        found = torch.zeros_like(needed)
        for block in token_blocks(hidden):
            below = size[:, block] <= limit
            if token_mask is not None:
                below = below & token_mask[:, block, None]
            found = found + below.sum(dim=(1, 2))
        enough = found >= needed
        passing = torch.where(open_ & enough, probe + 1, passing)
        failing = torch.where(open_ & ~enough, probe, failing)
    level = levels.gather(1, (passing - 1).clamp(min=0)[:, None])
    return candidate & (magnitude >= level) & (passing > 0)[:, None]


def _largest_below(levels: Tensor, ratio: float) -> Tensor:
    """Return the largest x with ``ratio * x <= level`` in float32; comparing with it saves a product of every element.

    A quotient rounds to within one step of it, so looking a step to either side finds it.
    """
    guess = levels / ratio
    lower = torch.nextafter(guess, torch.zeros_like(guess))
    upper = torch.nextafter(guess, torch.full_like(guess, float("inf")))
    found = torch.where(guess * ratio <= levels, guess, lower)
    return torch.where(upper * ratio <= levels, upper, found)


def sink_dimension_sinks(
    hidden: Tensor, token_mask: Tensor | None = None, *, channels: Sequence[int], threshold: float = 20.0
) -> Tensor:
    """Mark the tokens that stand out in known sink channels (Kang et al. 2025).

    Token t is a sink iff ``max over channels of |h[t, c]| / RMS(h[t]) >= threshold``. Computed in float32.

    Parameters
    ----------
    hidden : Tensor
        Residual stream entering a layer, (B, S, d), any floating dtype.
    token_mask : Tensor, optional
        (B, S) bool, False at padding, which is never a sink. None: every token is real.
    channels : sequence of int
        Channels of the residual stream known to carry massive activations in this model.
    threshold : float
        Multiple of the token's root mean square.

    Returns
    -------
    Tensor
        (B, S) bool on the device of `hidden`.

    Raises
    ------
    ValueError
        If a channel lies outside the model width.
    """
    width = hidden.shape[-1]
    outside = [c for c in channels if not 0 <= c < width]
    if outside or not channels:
        raise ValueError(f"sink channels must be some of 0..{width - 1}, got {list(channels)}")
    rms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32) * width**-0.5
    peak = hidden[..., list(channels)].abs().amax(dim=-1).float()
    sinks = (peak >= threshold * rms) & (rms > 0)
    return sinks if token_mask is None else sinks & token_mask
