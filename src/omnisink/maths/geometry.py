"""How vectors lie to each other: cosines, dominant channels, principal components, likeness of representations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_TINY = torch.finfo(torch.float32).tiny


def masked_mean(values: Tensor, include: Tensor) -> Tensor:
    """Mean over the tokens to keep.

    Parameters
    ----------
    values : Tensor
        (B, ..., S).
    include : Tensor
        (B, S) bool.

    Returns
    -------
    Tensor
        (B, ...) float32; NaN for a sequence without a token to keep.
    """
    mark = include.reshape(len(include), *([1] * (values.dim() - 2)), -1)
    return values.float().masked_fill(~mark, 0.0).sum(dim=-1) / mark.sum(dim=-1)


def mean_cosine(vectors: Tensor, other: Tensor, include: Tensor) -> Tensor:
    """Mean cosine of every token's vector with one other vector, or with that token's vector in another tensor.

    Parameters
    ----------
    vectors : Tensor
        (B, ..., S, D).
    other : Tensor
        Broadcast against `vectors`; (B, ..., 1, D) for one vector.
    include : Tensor
        (B, S) bool, the tokens to average over.

    Returns
    -------
    Tensor
        (B, ...) float32; a zero vector has cosine 0 with anything.
    """
    a, b = vectors.float(), other.float()
    lengths = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return masked_mean((a * b).sum(dim=-1) / lengths.clamp(min=_TINY), include)


def mean_pairwise_cosine(vectors: Tensor, include: Tensor) -> Tensor:
    """Mean cosine over all pairs of different tokens, in O(S): ``(|sum of unit vectors|^2 - n) / (n (n - 1))``.

    Parameters
    ----------
    vectors : Tensor
        (B, ..., S, D).
    include : Tensor
        (B, S) bool, the n tokens that take part. Tokens with a zero vector are left out of their head's pairs.

    Returns
    -------
    Tensor
        (B, ...) float32; NaN with fewer than two vectors.
    """
    wide = vectors.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    mark = include.reshape(len(include), *([1] * (wide.dim() - 3)), -1, 1) & (length > 0)
    unit = (wide / length.clamp(min=_TINY)).masked_fill(~mark, 0.0)
    count = mark.sum(dim=(-2, -1)).double()
    total = unit.sum(dim=-2, dtype=torch.float64).square().sum(dim=-1)
    # The rounding of a single vector's length would make an infinity of it.
    return ((total - count) / (count * (count - 1))).masked_fill(count < 2, float("nan")).float()


def part_of_output(part: Tensor, whole: Tensor, include: Tensor) -> Tensor:
    """Share of the head outputs that one part of them makes up: the mean of ``part . whole / |whole|^2``.

    The shares of parts that add up to the whole add up to one; a part that points away from the whole has a negative
    share.

    Parameters
    ----------
    part, whole : Tensor
        (B, ..., S, D).
    include : Tensor
        (B, S) bool, the tokens to average over.

    Returns
    -------
    Tensor
        (B, ...) float32.
    """
    part, whole = part.float(), whole.float()
    return masked_mean((part * whole).sum(dim=-1) / whole.square().sum(dim=-1).clamp(min=_TINY), include)


def top_channels(vectors: Tensor, count: int) -> Tensor:
    """Mark the channels in which vectors are largest.

    Parameters
    ----------
    vectors : Tensor
        (..., D).
    count : int
        How many channels; at most D are marked.

    Returns
    -------
    Tensor
        (..., D) bool.
    """
    index = vectors.abs().topk(min(count, vectors.shape[-1]), dim=-1).indices
    return torch.zeros_like(vectors, dtype=torch.bool).scatter_(-1, index, True)


def linear_cka(first: Tensor, second: Tensor) -> Tensor:
    """Linear centred kernel alignment of two representations of the same tokens (Kornblith et al. 2019).

    Parameters
    ----------
    first, second : Tensor
        (S, d) each.

    Returns
    -------
    Tensor
        Scalar float64 in 0..1; NaN where one of them is constant. Computed from whichever Gram matrix is smaller.
    """
    x, y = (t.double() - t.double().mean(dim=0) for t in (first, second))
    if len(x) < x.shape[1]:
        gram_x, gram_y = x @ x.T, y @ y.T
        cross, own = (gram_x * gram_y).sum(), gram_x.square().sum() * gram_y.square().sum()
    else:
        cross = (x.T @ y).square().sum()
        own = (x.T @ x).square().sum() * (y.T @ y).square().sum()
    return cross / own.sqrt()


def principal_components(vectors: Tensor, count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of some vectors: where they lie along the directions in which they differ most.

    Parameters
    ----------
    vectors : Tensor
        (S, d), finite.
    count : int
        How many components.

    Returns
    -------
    coordinates : Tensor
        (S, count) float64, centred on the mean. The coordinate farthest from zero is positive in every component, so
        that signs do not depend on the machine; a component that is not there is zero.
    explained : Tensor
        (count,) float64, each component's share of the variance; 0 where all vectors are equal.
    origin : Tensor
        (count,) float64, where the zero vector lies.
    """
    wide = vectors.double()
    mean = wide.mean(dim=0)
    centred = wide - mean
    # Of whichever Gram matrix is smaller: a long prompt and a wide model never make a large one together.
    few = len(centred) < centred.shape[1]
    squares, found = torch.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    squares, found = squares.flip(0)[:count].clamp(min=0), found.flip(1)[:, :count]
    total = centred.square().sum()
    # What is left of a component that is not there is rounding.
    kept = squares > total * len(centred) * torch.finfo(torch.float64).eps
    directions = centred.T @ found / squares.sqrt().clamp(min=_TINY) if few else found
    directions = directions * kept
    coordinates = centred @ directions
    farthest = coordinates.gather(0, coordinates.abs().argmax(dim=0, keepdim=True))
    directions = nn.functional.pad(directions * farthest.sign(), (0, count - len(squares)))
    explained = nn.functional.pad(squares * kept / total.clamp(min=_TINY), (0, count - len(squares)))
    return centred @ directions, explained, -mean @ directions
