"""Decide which key/value heads look at nothing but the sink, and attend with the others only.

SinkRouter (arXiv 2604.16883), one decode step of a layer: H query heads share K key/value heads, ``G = H / K`` to
each. Key/value head g is *routed* where its queries, after position encoding, point at the key of the anchor (sink):

``score[g] = mean over its G query heads i of cos(q[g, i], anchor[g]) > threshold``.

A routed head does not attend: its head outputs are zero, or the value of the anchor. The others attend to all keys, as
they would without the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from omnisink.maths.host import is_eager_cpu
from omnisink.maths.kernel_routing import routed_decode_by_kernel, routing_kernel_runs_on
from omnisink.maths.routing_host import attend_active


@dataclass(frozen=True, slots=True)
class Routed:
    """One decode step of a layer.

    Attributes
    ----------
    output : Tensor or None
        Head outputs (B, H, 1, D'), in the dtype of the values; None where no head is routed, so that the model's own
        attention gives them.
    scores : Tensor
        (B, K) float32.
    routed : Tensor
        (B, K) bool.
    """

    output: Tensor | None
    scores: Tensor
    routed: Tensor


@dataclass(frozen=True)
class Visible:
    """Which keys the query of a decode step sees.

    Attributes
    ----------
    starts, stops : Tensor
        (B,) int64: sequence b sees keys from ``starts[b]`` up to, and without, ``stops[b]``.
    mask : Tensor or None
        (B, T) bool, False at keys that are not seen, or float, added to the scores; it closes what lies outside of the
        range too. None where every key of the range is seen.
    """

    starts: Tensor
    stops: Tensor
    mask: Tensor | None = None

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges as numbers; the host waits for them."""
        return list(zip(self.starts.tolist(), self.stops.tolist(), strict=True))

    def to(self, device: torch.device) -> Visible:
        """Return the same on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return Visible(self.starts.to(device), self.stops.to(device), mask)


def anchor_scores(query: Tensor, anchor: Tensor, *, is_unit: bool = False) -> Tensor:
    """Score every key/value head by how much its queries point at the key of the anchor.

    Parameters
    ----------
    query : Tensor
        (B, H, 1, D) after position encoding.
    anchor : Tensor
        (B, K, D) key of each sequence's anchor, as it is cached; its length does not matter.
    is_unit : bool
        Whether the anchors have been divided by their lengths already, so that these need not be taken in every step.

    Returns
    -------
    Tensor
        (B, K) float32: the mean over the query heads of a key/value head of their cosines with its anchor, from -1 to
        1. The cosine with a vector of length zero is 0.
    """
    batch, kv_heads, width = anchor.shape
    grouped = query.float().reshape(batch * kv_heads, -1, width)
    dots = torch.bmm(grouped, anchor.float().reshape(batch * kv_heads, width, 1))[..., 0]
    lengths = torch.linalg.vector_norm(grouped, dim=-1)
    if not is_unit:
        lengths = lengths * torch.linalg.vector_norm(anchor.float(), dim=-1).reshape(-1, 1)
    return (dots / lengths.clamp_min(_TINY)).mean(dim=-1).view(batch, kv_heads)


def unit_anchor(key: Tensor) -> Tensor:
    """Divide keys (..., D) by their lengths, float32; a key of length zero stays zero, and its cosines with it."""
    key = key.float()
    return key / torch.linalg.vector_norm(key, dim=-1, keepdim=True).clamp_min(_TINY)


def route(scores: Tensor, threshold: float | Tensor) -> Tensor:
    """Tell which key/value heads are routed, (B, K) bool: those whose score is above the threshold.

    Parameters
    ----------
    scores : Tensor
        (B, K) float32, see `anchor_scores`.
    threshold : float or Tensor
        Of all sequences, or (B,) for each of them. From 1 on nothing is routed.
    """
    # Rounding may lift the mean of cosines of parallel vectors above 1.
    if isinstance(threshold, Tensor):
        return scores.clamp_max(1.0) > threshold.to(scores.device).reshape(-1, 1)
    return scores > (threshold if threshold < 1 else float("inf"))


def routed_decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    anchor: Tensor,
    threshold: float | Tensor,
    visible: Visible,
    *,
    is_unit: bool = False,
    scaling: float | None = None,
    softcap: float | None = None,
    surrogate_value: Tensor | None = None,
) -> Routed:
    """Attend in a decode step with the key/value heads that are not routed.

    Parameters
    ----------
    query : Tensor
        (B, H, 1, D) after position encoding.
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D') of the cache, before repetition. They are read where they are.
    anchor : Tensor
        (B, K, D) key of each sequence's anchor.
    threshold : float or Tensor
        See `route`.
    visible : Visible
        Which of the keys are seen.
    is_unit : bool
        Whether the anchors have been divided by their lengths.
    scaling : float, optional
        The module's softmax scale; None is ``1 / sqrt(D)``.
    softcap : float, optional
        Scores of the attention become ``softcap * tanh(scores / softcap)``.
    surrogate_value : Tensor, optional
        (B, K, D') what the head outputs of a routed head are; None is zero.

    Returns
    -------
    Routed
        The head outputs and the decision. On the CPU, outside of a graph being compiled, and by the kernels, a routed
        head costs its cosine only. Elsewhere all heads attend, and the result is the same.
    """
    if routing_kernel_runs_on(query, key, value, anchor):
        found = routed_decode_by_kernel(
            *(query, key, value, anchor, threshold, visible.starts, visible.stops, visible.mask),
            scaling=scaling,
            softcap=softcap,
            surrogate_value=surrogate_value,
        )
        return Routed(*found)
    scores = anchor_scores(query, anchor, is_unit=is_unit)
    routed = route(scores, threshold)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if is_eager_cpu(query):
        decided = routed.tolist()
        whole = visible.mask is None and all(seen == (0, key.shape[2]) for seen in visible.ranges)
        whole = whole and query.dtype == key.dtype == value.dtype
        if whole and softcap is None and key.shape[2] < FEW_KEYS and any(map(any, decided)):
            attended = scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=True)
            surrogate = 0.0 if surrogate_value is None else surrogate_value.to(value.dtype)[:, :, None]
            return Routed(_with_surrogate(attended, routed, surrogate), scores, routed)
        output = attend_active(
            query,
            key,
            value,
            decided,
            visible.ranges,
            visible.mask,
            scale=scale,
            softcap=softcap,
            surrogate_value=surrogate_value,
        )
        return Routed(output, scores, routed)
    return Routed(_attend_all(query, key, value, routed, visible, scale, softcap, surrogate_value), scores, routed)


def _attend_all(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routed: Tensor,
    visible: Visible,
    scale: float,
    softcap: float | None,
    surrogate_value: Tensor | None,
) -> Tensor:
    """Attend with every head, and put the surrogate where one is routed: of fixed shape, and nothing is looked at."""
    batch, kv_heads, keys = key.shape[:3]
    grouped = query.reshape(batch, kv_heads, -1, query.shape[-1])
    place = torch.arange(keys, device=key.device)
    seen = ((place >= visible.starts[:, None]) & (place < visible.stops[:, None]))[:, None, None]
    if visible.mask is not None:
        row = visible.mask[:, None, None]
        seen = seen & row if row.dtype == torch.bool else torch.where(seen, row.to(query.dtype), float("-inf"))
    if softcap is None:
        attended = scaled_dot_product_attention(grouped, key, value, attn_mask=seen, scale=scale)
    else:
        scores = softcap * torch.tanh(torch.matmul(grouped.float() * scale, key.float().mT) / softcap)
        scores = scores.masked_fill(~seen, float("-inf")) if seen.dtype == torch.bool else scores + seen.float()
        attended = torch.matmul(scores.softmax(dim=-1), value.float()).to(value.dtype)
    surrogate = 0.0 if surrogate_value is None else surrogate_value.to(value.dtype)[:, :, None]
    return _with_surrogate(attended.reshape(batch, -1, 1, value.shape[-1]), routed, surrogate)


def _with_surrogate(attended: Tensor, routed: Tensor, surrogate: float | Tensor) -> Tensor:
    """Put the surrogate, 0 or (B, K, 1, D'), into head outputs (B, H, 1, D') where a key/value head is routed."""
    grouped = attended.unflatten(1, (routed.shape[1], -1))[:, :, :, 0]
    return torch.where(routed[:, :, None, None], surrogate, grouped).flatten(1, 2)[:, :, None]


#: Keys of the cache below which the CPU attends with all heads faster than head by head (two cores, 64 channels).
FEW_KEYS = 2048


#: Stands for the product of two lengths where one is zero.
_TINY = 1e-30
