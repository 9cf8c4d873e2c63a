"""McNemar's exact test of the questions that one of two methods gets right and the other wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from omnisink.errors import OmnisinkError
from omnisink.results.statistics import library


@dataclass(frozen=True)
class Discordance:
    """Questions that one method gets right and the other wrong.

    Attributes
    ----------
    wins, losses : int
        Questions that only the method gets right, and that only the baseline gets right.
    p : float
        Two-sided and exact: a win and a loss are equally likely under the hypothesis. 1 where nothing differs.
    """

    wins: int
    losses: int
    p: float


def exact_mcnemar(arm: ArrayLike, base: ArrayLike) -> Discordance | None:
    """Test the discordant questions of two methods, after McNemar (1947), with the binomial distribution.

    It takes the questions for independent. Where several are about one clip they are not, and p is then too small as
    a rule; `paired_difference` draws clusters.

    Parameters
    ----------
    arm, base : array-like of float
        (N,); the same questions in the same order, 1 for a right answer and 0 for a wrong one.

    Returns
    -------
    Discordance or None
        None where a score is neither 0 nor 1: the test is of right and wrong.

    Raises
    ------
    OmnisinkError
        If the lengths differ, or statsmodels is not installed.
    """
    changed, plain = np.asarray(arm, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if changed.shape != plain.shape or changed.ndim != 1:
        raise OmnisinkError(f"arm and base must be paired, got shapes {changed.shape} and {plain.shape}")
    if not (np.isin(changed, (0, 1)).all() and np.isin(plain, (0, 1)).all()):
        return None
    wins = int(np.count_nonzero(changed > plain))
    losses = int(np.count_nonzero(changed < plain))
    if wins + losses == 0:
        return Discordance(0, 0, 1.0)
    # Questions that both get right or wrong have no part in it.
    tested = library("statsmodels.stats.contingency_tables").mcnemar([[0, wins], [losses, 0]], exact=True)
    return Discordance(wins, losses, min(1.0, float(tested.pvalue)))
