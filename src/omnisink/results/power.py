"""The smallest paired difference that a sample of clusters could have detected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnisink.errors import OmnisinkError
from omnisink.results.statistics import Floats, library


@dataclass(frozen=True)
class Detectable:
    """The smallest difference that a sample could have shown, whatever it did show.

    Attributes
    ----------
    value : float or None
        The smallest difference that the test would have found with the asked power, in the units of the scores. None
        where the clusters are so few that no p can fall below the level.
    error : float or None
        Standard error of the mean difference, robust to clusters; None for one cluster.
    at_least : bool
        The value is not an estimate but a floor: too few clusters differ for a standard error that could be believed.
    clusters, differing : int
        All of them, and those whose differences do not sum to zero.
    share : float
        Upper 95 % limit for the share of clusters that differ, by Clopper and Pearson. Where none of n differs it is
        about 3 / n, the rule of three.
    """

    value: float | None
    error: float | None
    at_least: bool
    clusters: int
    differing: int
    share: float


def smallest_detectable(
    differences: ArrayLike, clusters: Sequence[str], *, power: float = 0.8, level: float = 0.05
) -> Detectable:
    """Return the smallest mean difference that a two-sided test would have found with this power.

    It is d · sqrt(C) · SE. SE is the standard error of the mean of the differences, robust to C clusters: that of
    least squares on a constant (Liang and Zeger, 1986; with the correction for few clusters). d is the standardised
    effect for which a one-sample t test of C observations has the power. The spread of this sample is taken for that
    of all samples; the difference that was found has no part in it, so this is not an "observed power".

    A test that changes the signs of whole clusters needs at least n of them to fall below the level, where
    2 / 2**n <= level; six at 5 %. The value is therefore never less than the share s of clusters at which n or more of
    them differ with this power, P(Binomial(C, s) >= n) = power, if one question changes in each and all in the same
    direction.

    Parameters
    ----------
    differences : array-like of float
        (N,), arm minus base, finite.
    clusters : sequence of str
        (N,), which cluster each question belongs to.
    power : float
        Probability that the difference is found.
    level : float
        Level of the two-sided test, before any correction for the number of tests.

    Returns
    -------
    Detectable
        An approximation. With few clusters the standard error itself is uncertain, and tends to be too small.

    Raises
    ------
    OmnisinkError
        If there is no difference, one is not finite, the lengths differ, or SciPy or statsmodels is not installed.
    """
    gap = np.asarray(differences, dtype=np.float64)
    if gap.ndim != 1 or not len(gap) or not np.isfinite(gap).all():
        raise OmnisinkError(f"differences must be finite numbers, one a question, got shape {gap.shape}")
    if len(clusters) != len(gap):
        raise OmnisinkError(f"each difference needs a cluster, got {len(clusters)} for {len(gap)}")
    names, place = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    count, sums = len(names), np.bincount(place, weights=gap)
    # Scores that are means over seeds add up with rounding.
    differing = int(np.count_nonzero(np.abs(sums) > 1e-9))
    share = _upper_share(differing, count)
    error = _robust_error(gap, place) if count > 1 else None
    needed = int(np.ceil(np.log2(2 / level)))
    if count < needed or error is None:
        return Detectable(None, error, False, count, differing, share)
    floor = float(library("scipy.stats").beta.ppf(power, needed, count - needed + 1)) * count / len(gap)
    effect = float(library("statsmodels.stats.power").TTestPower().solve_power(nobs=count, alpha=level, power=power))
    value = effect * np.sqrt(count) * error
    return Detectable(float(max(value, floor)), error, bool(value <= floor), count, differing, share)


def _robust_error(gap: Floats, place: NDArray[np.intp]) -> float:
    if np.ptp(gap) == 0:  # No residual is left, and statsmodels would divide by it for its other figures.
        return 0.0
    made = library("statsmodels.api").OLS(gap, np.ones(len(gap)))
    return float(made.fit(cov_type="cluster", cov_kwds={"groups": place}).bse[0])


def _upper_share(differing: int, count: int) -> float:
    if differing == count:
        return 1.0
    limits = library("statsmodels.stats.proportion").proportion_confint(differing, count, alpha=0.1, method="beta")
    return float(limits[1])
