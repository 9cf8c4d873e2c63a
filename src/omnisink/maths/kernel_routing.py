"""The work of `omnisink.maths.routing` by kernels: which steps they take, and how they are handed over."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from omnisink.maths.choice import kernels_run_on

#: Widest heads, and most query heads to a key/value head, that a program has registers for.
WIDEST, MOST_QUERIES = 256, 32


def routing_kernel_runs_on(query: Tensor, key: Tensor, value: Tensor, anchor: Tensor) -> bool:
    """Tell whether the kernels do a decode step.

    Parameters
    ----------
    query, key, value, anchor : Tensor
        As for `omnisink.maths.routing.routed_decode`.

    Returns
    -------
    bool
        False where `omnisink.maths.choice.kernels_run_on` is, and for heads or groups of a size, or an order of their
        channels in memory, that the kernels are not written for.
    """
    if not kernels_run_on(query, key, value, anchor):
        return False
    return (
        query.dtype == key.dtype == value.dtype
        and query.shape[1] <= MOST_QUERIES * key.shape[1]
        and max(query.shape[3], value.shape[3]) <= WIDEST
        and query.stride(-1) == key.stride(-1) == value.stride(-1) == anchor.stride(-1) == 1
    )


def routed_decode_by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    anchor: Tensor,
    threshold: float | Tensor,
    starts: Tensor,
    stops: Tensor,
    mask: Tensor | None,
    *,
    surrogate_value: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, the scores and the decision of a decode step; see `omnisink.maths.routing.routed_decode`."""
    from omnisink.kernels.routing import routed_decode

    if isinstance(threshold, Tensor):
        threshold = threshold.to(query.device).float().expand(len(query)).contiguous()
    return routed_decode(
        query,
        key,
        value,
        anchor,
        threshold,
        starts=starts.contiguous(),
        stops=stops.contiguous(),
        mask=mask,
        surrogate=surrogate_value,
        **options,
    )
