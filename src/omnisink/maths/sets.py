"""Shares of sets of keys: what each set gives a head output, how much attention it draws, and what other weights do.

Attention is linear in the values. So the output and the attention mass of a set of keys X,

    ``O_X = sum_{j in X} A_j v_j``    and    ``m_X = sum_{j in X} A_j``,

answer every change of post-softmax weights by a factor for each set, ``A_j -> w_X A_j``, without an attention map: in
float32, and in memory that grows with the keys, not with their square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnisink.maths.decomposition import KeyMask, attend, weights_of


@dataclass(frozen=True)
class SetShares:
    """What sets of keys give some rows of attention.

    Attributes
    ----------
    output : Tensor
        (B, H, n, X, D') float32, ``O_X``. Over sets that divide all keys among them it sums to the head output.
    mass : Tensor
        (B, H, n, X) float32, ``m_X``.
    seen : Tensor
        (B, H, n) float32, the mass of all keys together: 1, or less where learned sink logits take part in the
        softmax; 0 for a row that sees nothing, as one of padding.
    """

    output: Tensor
    mass: Tensor
    seen: Tensor


@torch.no_grad()
def set_shares(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    marks: Tensor,
    mask: KeyMask,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    learned_sink: Tensor | None = None,
) -> SetShares:
    """Divide rows of attention among sets of keys.

    Parameters
    ----------
    query : Tensor
        Rows of interest, after position encoding, (B, H, n, D), any floating dtype.
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D'), before repetition; query head j reads head ``j // (H / K)``.
    marks : Tensor
        (B or 1, X, T) bool, the sets; (B or 1, K, X, T) where each key/value head has sets of its own. Sets may
        overlap, and keys may be in none.
    mask : KeyMask
        What every row may see; see `omnisink.maths.decomposition.attend`.
    scaling, softcap, learned_sink
        See `omnisink.maths.decomposition.attend`.

    Returns
    -------
    SetShares
        Without a gradient.
    """
    options: dict[str, Any] = {"scaling": scaling, "softcap": softcap, "learned_sink": learned_sink}
    by_head = marks if marks.dim() == 4 else marks[:, None]  # (B or 1, K or 1, X, T)
    sets, width = by_head.shape[2], value.shape[-1]
    if _are_few(query, key, width):
        # Of few rows the weights, masked for each set, are smaller than the values, masked for each set.
        weights = weights_of(query, key, mask, **options).unflatten(1, (key.shape[1], -1))  # (B, K, G, n, T')
        keys = weights.shape[-1]
        every = torch.nn.functional.pad(by_head[..., :keys], (0, 0, 0, 1), value=True).float()
        mass = torch.einsum("bkgnt,bkxt->bkgnx", weights, every.expand(len(query), key.shape[1], -1, -1))
        parts = weights[:, :, None] * every[:, :, :-1, None, None]  # (B, K, X, G, n, T)
        read = torch.matmul(parts.flatten(2, 4), value[:, :, :keys].float())
        output = read.unflatten(2, parts.shape[2:5]).permute(0, 1, 3, 4, 2, 5).flatten(1, 2)
        mass = mass.flatten(1, 2)
        return SetShares(output, mass[..., :-1], mass[..., -1])
    batch, heads = max(len(by_head), len(value)), value.shape[1]
    own = by_head.mT[..., None] * value.float()[:, :, :, None]  # (B, K, T, X, D')
    marked = torch.nn.functional.pad(by_head.mT.float(), (0, 1), value=1.0).expand(batch, heads, -1, -1)
    read = attend(query, key, torch.cat([own.flatten(3), marked], dim=-1), mask, **options)
    output, mass, seen = read.split([sets * width, sets, 1], dim=-1)
    return SetShares(output.unflatten(-1, (sets, width)), mass, seen[..., 0])


#: Weights (B, H, n, T) up to which rows are few, on the CPU and elsewhere.
_FEW = {"cpu": 1 << 21}
_FEW_ELSEWHERE = 1 << 25


def _are_few(query: Tensor, key: Tensor, width: int) -> bool:
    """Whether all weights of these rows may be held at once, and are less than values of `width` channels."""
    batch, heads, rows = query.shape[:3]
    keys, groups = key.shape[2], heads // key.shape[1]
    most = _FEW.get(query.device.type, _FEW_ELSEWHERE)
    return groups * rows <= width and batch * heads * rows * keys <= most


def complement(marks: Tensor) -> Tensor:
    """Add the keys that are in no set as one more set, the last.

    Parameters
    ----------
    marks : Tensor
        (..., X, T) bool.

    Returns
    -------
    Tensor
        (..., X + 1, T) bool. Sets that do not overlap then divide all keys among them.
    """
    return torch.cat([marks, ~marks.any(dim=-2, keepdim=True)], dim=-2)


def reweigh(shares: SetShares, factors: Tensor | Sequence[float], renormalise: bool = True) -> Tensor:
    """Multiply the attention to each set by a factor, ``sum_X w_X O_X / sum_X w_X m_X``.

    This is exactly what ``log w_X`` added to the scores of the keys in X does. Learned sink logits keep theirs: what
    they draw counts below the fraction with a factor of one.

    Parameters
    ----------
    shares : SetShares
        Of sets that divide all keys among them; see `complement`.
    factors : Tensor or sequence of float
        Nonnegative, broadcast against (B, H, n, X), or one for each of the X sets.
    renormalise : bool
        Whether the weights are to sum to what they did; otherwise the division is left out.

    Returns
    -------
    Tensor
        (B, H, n, D') float32; zero for a row of whose keys nothing is left.
    """
    factors = _as_tensor(factors, shares.mass)
    new = (factors[..., None] * shares.output).sum(dim=-2)
    if not renormalise:
        return new
    mass = (factors * shares.mass).sum(dim=-1)
    # A row that sees no key has no learned sink's share to speak of.
    learned = (1.0 - shares.seen).masked_fill(shares.seen == 0, 0.0)
    total = (mass + learned).masked_fill(mass == 0, 1.0)
    return new / total[..., None]


def give(shares: SetShares, factors: Tensor | Sequence[float], to: int) -> Tensor:
    """Give the attention that factors take from sets to one of the sets, in proportion to what its keys have.

    Parameters
    ----------
    shares : SetShares
        Of sets that do not overlap.
    factors : Tensor or sequence of float
        What is left of each set, as for `reweigh`; that of the receiving set does not count.
    to : int
        The set that receives.

    Returns
    -------
    Tensor
        (B, H, n, X) float32, the factors with that of the receiving set for each row: all weights together are what
        they were. Where the receiving set has no attention, every factor is 1, and the row stays as it is.
    """
    mass = shares.mass
    kept = _as_tensor(factors, mass).expand_as(mass).clone()
    kept[..., to] = 1.0
    freed = ((1.0 - kept) * mass).sum(dim=-1)
    receiver = mass[..., to]
    kept[..., to] = 1.0 + freed / receiver.masked_fill(receiver == 0, 1.0)
    return kept.masked_fill((receiver == 0)[..., None], 1.0)


def difference(shares: SetShares, factors: Tensor | Sequence[float]) -> Tensor:
    """Return what factors without renormalisation add to the head outputs, ``sum_X (w_X - 1) O_X``.

    Parameters
    ----------
    shares : SetShares
        Of sets that do not overlap; keys in none of them keep their weights.
    factors : Tensor or sequence of float
        As for `reweigh`, or from `give`.

    Returns
    -------
    Tensor
        (B, H, n, D') float32; exactly zero where every factor is 1.
    """
    return ((_as_tensor(factors, shares.mass) - 1.0)[..., None] * shares.output).sum(dim=-2)


def _as_tensor(factors: Tensor | Sequence[float], like: Tensor) -> Tensor:
    if isinstance(factors, Tensor):
        return factors.to(like.device, like.dtype)
    # Filled there: a list copied from the host would have no place in a CUDA graph.
    return torch.stack([like.new_full((), factor) for factor in factors])
