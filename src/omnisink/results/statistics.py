"""Statistics of paired runs: intervals over clusters, paired differences, Holm's correction, rank correlation.

Items about one clip are not independent. Clusters are therefore what is drawn, and what changes its sign, with all
their items. Every result depends only on the arguments: the random numbers come from `seed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnisink.errors import OmnisinkError
from omnisink.extras import install

Floats = NDArray[np.float64]

#: Bounds of what is right or wrong, and of differences of it.
SHARE, SHARES_DIFFER = (0.0, 1.0), (-1.0, 1.0)
#: Random numbers that are drawn at once, which bounds the memory.
_AT_ONCE = 2**21


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes
    ----------
    value : float
        From all items.
    low, high : float or None
        The interval; None where there is one cluster only, or where no two clusters differ and the values have no
        known bounds: the data then say nothing of how clusters differ.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference with its interval.

    Attributes
    ----------
    p : float
        Two-sided, of the hypothesis that the two conditions are interchangeable.
    """

    p: float


def mean_interval(
    values: ArrayLike,
    clusters: Sequence[str],
    *,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    resamples: int = 9999,
    level: float = 0.95,
) -> Estimate:
    """Return the mean of all items with a percentile bootstrap interval over clusters.

    Clusters are drawn with all their items, so the drawn mean is the sum of the drawn clusters' sums over the sum of
    their sizes. With fewer than about ten clusters the interval is too narrow, as every bootstrap is.

    Where all clusters have the same mean, as where all answers are right, drawing them says nothing. What is known
    then is how many other clusters may have been missed: where C agree, up to 1 - (1 - level)^(1/C) of all may not,
    which is about 3/C (Clopper and Pearson; the rule of three). With `bounds` those may lie anywhere between them.

    Parameters
    ----------
    values : array-like of float
        (N,), finite.
    clusters : sequence of str
        (N,), which cluster each item belongs to.
    bounds : tuple of float, optional
        Between which every value lies whatever is measured: 0 and 1 for right and wrong, -1 and 1 for differences of
        it. None where there are none, as for a loss.
    seed : int
        Seed of the random numbers.
    resamples : int
        How many drawings.
    level : float
        Level of the interval.

    Returns
    -------
    Estimate
        One cluster has no interval, and neither have clusters of one mean where `bounds` is None.

    Raises
    ------
    OmnisinkError
        If there is no value, one is not finite, the lengths differ, or SciPy is not installed.
    """
    column = _finite("values", values, 1)
    sums, sizes = _by_cluster(column, clusters)
    # Equal values are set apart so that rounding does not pull the mean away from them.
    value = float(column[0]) if np.ptp(column) == 0 else float(sums.sum() / sizes.sum())
    alike = np.allclose(sums / sizes, value, rtol=1e-12, atol=1e-12)
    if len(sizes) == 1 or (alike and bounds is None):
        return Estimate(value, None, None)
    if alike and bounds is not None:
        missed = 1 - (1 - level) ** (1 / len(sizes))
        return Estimate(value, value - missed * (value - bounds[0]), value + missed * (bounds[1] - value))

    def mean(drawn: NDArray[np.intp], axis: int) -> Floats:
        return sums[drawn].sum(axis) / sizes[drawn].sum(axis)

    return Estimate(value, *_bootstrap(len(sizes), mean, seed, resamples, level))


def paired_difference(
    arm: ArrayLike,
    base: ArrayLike,
    clusters: Sequence[str],
    *,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    resamples: int = 9999,
    level: float = 0.95,
) -> Difference:
    """Return the mean of arm minus base, with a bootstrap interval and a permutation test over clusters.

    The test changes the signs of whole clusters' differences at random. It is exact where the clusters that differ at
    all have no more than `resamples` ways to choose their signs, that is up to 13 of them at 9,999.

    Parameters
    ----------
    arm, base : array-like of float
        (N,), finite; the same items in the same order.
    clusters, seed, resamples, level
        As for `mean_interval`.
    bounds : tuple of float, optional
        As for `mean_interval`, of a difference: -1 and 1 where answers are right or wrong.

    Returns
    -------
    Difference
        With an interval as `mean_interval` has it; p is 1 where nothing differs.

    Raises
    ------
    OmnisinkError
        As for `mean_interval`.
    """
    changed, plain = _finite("arm", arm, 1), _finite("base", base, 1)
    if len(changed) != len(plain):
        raise OmnisinkError(f"arm and base must be paired, got {len(changed)} and {len(plain)} values")
    gap = changed - plain
    estimate = mean_interval(gap, clusters, bounds=bounds, seed=seed, resamples=resamples, level=level)
    sums, _ = _by_cluster(gap, clusters)
    return Difference(estimate.value, estimate.low, estimate.high, _sign_flips(sums[sums != 0], seed, resamples))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number, after Holm (1979).

    Parameters
    ----------
    p_values : sequence of float or None
        None stands for a test that was not made, and counts for nothing.

    Returns
    -------
    list of float or None
        In the same order.

    Raises
    ------
    OmnisinkError
        If one is not between 0 and 1, or statsmodels is not installed.
    """
    made = [p for p in p_values if p is not None]
    if wrong := [p for p in made if not 0 <= p <= 1]:
        raise OmnisinkError(f"a p value lies between 0 and 1, got {wrong[0]}")
    if not made:
        return list(p_values)
    corrected = iter(library("statsmodels.stats.multitest").multipletests(made, method="holm")[1])
    return [None if p is None else float(next(corrected)) for p in p_values]


def rank_correlation(
    x: ArrayLike,
    y_by_item: ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = 9999,
    level: float = 0.95,
) -> Estimate | None:
    """Return Spearman's correlation of a column with the item mean of another, with an interval over items.

    Drawn correlations are weaker than the value: a mean over drawn items is noisier than the mean over all. Their
    percentiles may leave the value out, and turned about the value, as in the basic bootstrap, they would find a
    correlation in noise too often. The interval therefore reaches to both sides as far as the further percentile
    does, and stays within -1 and 1. Noise that is left in the item means weakens the value itself, which no interval
    mends. The heads are not drawn: they are all there are.

    Parameters
    ----------
    x : array-like of float
        (H,), one number for each head, finite.
    y_by_item : array-like of float
        (N, H), finite.
    clusters : sequence of str, optional
        (N,), which cluster each item belongs to; None draws single items.
    seed, resamples, level
        As for `mean_interval`.

    Returns
    -------
    Estimate or None
        None where there is no order to compare: fewer than two heads, or all of them tied.

    Raises
    ------
    OmnisinkError
        If there is no item, a number is not finite, the shapes do not fit, or SciPy is not installed.
    """
    if np.size(x) < 2:
        return None
    column, table = _finite("x", x, 1), _finite("y_by_item", y_by_item, 2)
    if table.shape[1] != len(column):
        raise OmnisinkError(f"x and y_by_item must be of the same heads, got {len(column)} and {table.shape[1]}")
    sums = table if clusters is None else _by_cluster(table, clusters)[0]
    ranks = _ranks(column)

    def correlation(drawn: NDArray[np.intp], axis: int) -> Floats:
        # How often each cluster was drawn, times its sums; the size of the drawing does not change the ranks.
        count = len(sums)
        flat = drawn.reshape(-1, drawn.shape[axis])
        cells = flat + count * np.arange(len(flat))[:, None]
        weights = np.bincount(cells.ravel(), minlength=count * len(flat)).reshape(-1, count)
        return _correlation(ranks, _ranks(weights @ sums)).reshape(drawn.shape[:-1])

    others = _ranks(sums.sum(0))
    if not ranks.any() or not others.any():
        return None
    value = float(_correlation(ranks, others))
    if len(sums) == 1:
        return Estimate(value, None, None)
    low, high = _bootstrap(len(sums), correlation, seed, resamples, level, width=len(column))
    reach = max(value - low, high - value)
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach))


def _bootstrap(
    count: int,
    statistic: Callable[[NDArray[np.intp], int], Floats],
    seed: int,
    resamples: int,
    level: float,
    width: int = 1,
) -> tuple[float, float]:
    """Return percentiles of a statistic of drawn cluster numbers; it gets (B, count) of them and uses (B, width)."""
    drawn = library("scipy.stats").bootstrap(
        (np.arange(count),),
        statistic,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _AT_ONCE // max(count, width)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _sign_flips(sums: Floats, seed: int, resamples: int) -> float:
    """Return the two-sided p of a sum under random signs; clusters that do not differ have no part in it."""
    if len(sums) < 2:  # Nothing differs, or one cluster: either sign is as far from zero as the other.
        return 1.0
    test = library("scipy.stats").permutation_test(
        (sums,),
        lambda flipped, axis: flipped.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _AT_ONCE // len(sums)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _ranks(values: Floats) -> Floats:
    """Return the ranks along the last axis, ties shared, about their mean."""
    ranks: Floats = library("scipy.stats").rankdata(values, axis=-1)
    return ranks - (values.shape[-1] + 1) / 2


def _correlation(x: Floats, y: Floats) -> Floats:
    """Return the correlation of centred (H,) with centred (..., H); where all of the latter tie it is 0."""
    size = np.sqrt((x @ x) * (y * y).sum(-1))
    out: Floats = np.divide(y @ x, size, out=np.zeros_like(size), where=size > 0)
    return out


def _by_cluster(values: Floats, clusters: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the sums and the sizes of the clusters, (C, ...) and (C,), in the order of their names."""
    if len(clusters) != len(values):
        raise OmnisinkError(f"each item needs a cluster, got {len(clusters)} clusters for {len(values)} items")
    names, place = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, place, values)
    return sums, np.bincount(place).astype(np.float64)


def _finite(name: str, values: ArrayLike, dimensions: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or not len(array):
        raise OmnisinkError(f"{name} must have {dimensions} dimension(s) and not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise OmnisinkError(f"{name} holds {np.count_nonzero(~np.isfinite(array))} values that are not finite")
    return array


def library(name: str) -> Any:
    """Import what only reports need, as ``"scipy.stats"``; untyped, so mypy is not asked about it.

    Raises
    ------
    OmnisinkError
        If it is not installed; the message says what to install.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise OmnisinkError(
            f"statistics need {name.split('.')[0]}, which is not installed ({error}). Install with: "
            f"{install('report')}"
        ) from None
