"""The correlation of heads: known answers, coverage, and how seldom noise is taken for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.results.statistics import Estimate, rank_correlation
from tests.results.comparisons import FEW, alone, near, width

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def heads(noise: float, seed: int, items: int = 60, count: int = 80) -> tuple[Any, Any, float]:
    """x, y by item, and the correlation of x with what y would be without noise."""
    from scipy.stats import spearmanr

    random = np.random.default_rng(seed)
    x = random.normal(size=count)
    true = 0.7 * x + 0.7 * random.normal(size=count)
    return x, true + noise * random.normal(size=(items, count)), float(spearmanr(x, true).statistic)


def test_the_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    x, y, _ = heads(1.0, 0)
    x = np.round(x, 1)  # with ties
    found = rank_correlation(x, y, resamples=FEW)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(x, y.mean(0)).statistic)
    assert rank_correlation([1, 2, 3], [[1.0, 5.0, 7.0]] * 3) == Estimate(1.0, 1.0, 1.0)
    assert rank_correlation([3, 2, 1], [[1.0, 5.0, 7.0]] * 3) == Estimate(-1.0, -1.0, -1.0)


def test_the_drawn_correlations_are_those_of_drawn_items() -> None:
    from scipy.stats import bootstrap, spearmanr

    x, y, _ = heads(2.0, 1, items=12, count=15)

    def slowly(places: Any) -> float:
        return float(spearmanr(x, y[places.astype(int)].mean(0)).statistic)

    expected = bootstrap(
        (np.arange(12),), slowly, vectorized=False, n_resamples=200, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    found = rank_correlation(x, y, resamples=200)
    assert found is not None
    reach = max(found.value - expected.low, expected.high - found.value)
    assert (found.low, found.high) == pytest.approx((found.value - reach, min(1.0, found.value + reach)))


def test_the_correlation_covers_the_one_without_noise() -> None:
    covered, wide = 0, []
    for seed in range(150):
        x, y, true = heads(2.0, seed)
        found = rank_correlation(x, y, resamples=FEW)
        assert found is not None
        assert -1 <= found.low <= found.value <= found.high <= 1  # type: ignore[operator]
        covered += found.low <= true <= found.high  # type: ignore[operator]
        wide.append(width(found))
    assert covered / 150 >= 0.85
    assert np.mean(wide) < 0.3


def test_noise_is_seldom_taken_for_a_correlation() -> None:
    random = np.random.default_rng(7)
    found = [rank_correlation(random.normal(size=60), random.normal(size=(30, 60)), resamples=FEW) for _ in range(200)]
    apart = [e for e in found if e is not None and e.low is not None and e.high is not None and e.low * e.high > 0]
    assert len(apart) / 200 < 0.09


def test_clusters_of_repeated_items_are_as_wide_as_the_items() -> None:
    x, y, _ = heads(2.0, 2, items=20)
    single = rank_correlation(x, y, alone(20), resamples=FEW)
    repeated = rank_correlation(x, np.repeat(y, 3, axis=0), np.repeat(alone(20), 3), resamples=FEW)
    assert single is not None
    assert repeated is not None
    near(single, repeated)
    assert rank_correlation(x, y, ["one"] * 20) == Estimate(single.value, None, None)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_scale_and_order_do_not_change_the_correlation(seed: int) -> None:
    x, y, _ = heads(1.0, seed, items=10, count=12)
    found = rank_correlation(x, y, alone(10), resamples=99)
    order = np.random.default_rng(seed).permutation(10)
    moved = rank_correlation(np.exp(x), 3 * y[order] + 1, [alone(10)[i] for i in order], resamples=99)
    columns = np.random.default_rng(seed).permutation(12)
    turned = rank_correlation(x[columns], y[:, columns], alone(10), resamples=99)
    assert found is not None
    assert moved is not None
    assert turned is not None
    near(found, moved)
    near(found, turned)


def test_where_there_is_no_order_there_is_no_correlation() -> None:
    y = [[1.0, 2.0], [3.0, 1.0]]
    assert rank_correlation([1.0, 1.0], y) is None
    assert rank_correlation([1.0, 2.0], [[1.0, 1.0], [2.0, 2.0]]) is None
    assert rank_correlation([1.0], [[1.0], [2.0]]) is None
    assert rank_correlation([], np.zeros((2, 0))) is None
    assert rank_correlation([1.0, 2.0], [[1.0, 0.0], [0.0, 3.0]]) is not None, "some drawings tie"


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1.0, 2.0], [[1.0, 2.0, 3.0]], "must be of the same heads, got 2 and 3"),
        ([1.0, 2.0], [1.0, 2.0], "y_by_item must have 2 dimension"),
        ([1.0, np.nan], [[1.0, 2.0]], "x holds 1 values that are not finite"),
        ([1.0, 2.0], np.zeros((0, 2)), "not be empty"),
    ],
)
def test_what_has_no_correlation_is_refused(x: Any, y: Any, reason: str) -> None:
    with pytest.raises(OmnisinkError, match=reason):
        rank_correlation(x, y)
