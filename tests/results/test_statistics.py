"""Statistics: known answers, coverage of the intervals, size of the test, and what must not change a result."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.results import statistics
from omnisink.results.power import smallest_detectable
from omnisink.results.statistics import Difference, Estimate, holm, mean_interval, paired_difference, rank_correlation
from tests.results.comparisons import FEW, alone, near, width

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

# --- the mean --------------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_binomial_where_items_are_their_own_clusters() -> None:
    found = mean_interval([1.0] * 60 + [0.0] * 40, alone(100))
    assert found.value == pytest.approx(0.6)
    # Quantiles of a binomial of 100 at 0.6: exact for what the bootstrap draws.
    from scipy.stats import binom

    assert found.low == pytest.approx(binom.ppf(0.025, 100, 0.6) / 100, abs=0.011)
    assert found.high == pytest.approx(binom.ppf(0.975, 100, 0.6) / 100, abs=0.011)


def test_two_clusters_are_drawn_whole() -> None:
    # Drawn are a a, a b, b a, b b: means 0, 0.6, 0.6, 1, where single items would give anything between.
    found = mean_interval([0, 0, 1, 1, 1], ["a", "a", "b", "b", "b"])
    assert found == Estimate(0.6, 0.0, 1.0)
    middle = mean_interval([0, 0, 1, 1, 1], ["a", "a", "b", "b", "b"], level=0.4)
    assert middle == Estimate(0.6, 0.6, 0.6)


def test_items_that_repeat_each_other_say_nothing_new() -> None:
    values = np.random.default_rng(1).normal(size=30)
    single = mean_interval(values, alone(30))
    repeated = mean_interval(np.repeat(values, 4), np.repeat(alone(30), 4))
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))
    assert repeated.value == pytest.approx(single.value)
    pretended = mean_interval(np.repeat(values, 4), alone(120))
    assert width(pretended) == pytest.approx(width(single) / 2, rel=0.1)


def test_the_mean_covers_what_it_should_with_clusters() -> None:
    random = np.random.default_rng(2)
    covered = naive = 0
    for _ in range(300):
        sizes = random.integers(1, 6, 40)
        clusters = np.repeat(alone(40), sizes)
        values = np.repeat(random.normal(size=40), sizes) + random.normal(size=sizes.sum())
        found = mean_interval(values, clusters, resamples=FEW)
        covered += found.low <= 0 <= found.high  # type: ignore[operator]
        found = mean_interval(values, alone(len(values)), resamples=FEW)
        naive += found.low <= 0 <= found.high  # type: ignore[operator]
    assert 0.90 <= covered / 300 <= 0.98
    assert naive / 300 < 0.85, "clusters matter"


@pytest.mark.parametrize(
    ("values", "clusters", "expected"),
    [
        ([0.1] * 7, ["a", "a", "b", "b", "b", "c", "c"], Estimate(0.1, None, None)),
        ([0.0, 1.0, 1.0, 0.0], ["a", "a", "b", "b"], Estimate(0.5, None, None)),
        ([0.0, 1.0], ["a", "a"], Estimate(0.5, None, None)),
        ([2.0], ["a"], Estimate(2.0, None, None)),
        ([1.0, 1.0], ["a", "a"], Estimate(1.0, None, None)),
    ],
)
def test_what_says_nothing_of_spread_has_no_bounds(
    values: list[float], clusters: list[str], expected: Estimate
) -> None:
    assert mean_interval(values, clusters) == expected
    zeros = [0.0] * len(values)
    assert paired_difference(values, zeros, clusters, resamples=FEW).low == expected.low


@pytest.mark.parametrize("count", [2, 5, 20, 1000])
def test_shares_of_nothing_and_of_all_have_an_interval(count: int) -> None:
    """Hold it to the limit of Clopper and Pearson that `smallest_detectable` gives."""
    limit = smallest_detectable(np.zeros(count), alone(count)).share
    right, wrong = (mean_interval([value] * count, alone(count), bounds=(0, 1)) for value in (1.0, 0.0))
    assert (right.value, right.high, wrong.value, wrong.low) == (1.0, 1.0, 0.0, 0.0)
    assert right.low == pytest.approx(1 - limit)
    assert wrong.high == pytest.approx(limit)
    assert limit == pytest.approx(3 / count, rel=0.6 if count < 10 else 0.1)
    same = paired_difference(np.ones(count), np.ones(count), alone(count), bounds=(-1, 1))
    assert (same.value, same.p) == (0.0, 1.0)
    assert (same.low, same.high) == (pytest.approx(-limit), pytest.approx(limit))


def test_clusters_of_one_mean_have_an_interval_too() -> None:
    """A model that always says yes has half of every pair right: no draw of pairs changes that."""
    found = mean_interval([1.0, 0.0] * 20, np.repeat(alone(20), 2), bounds=(0, 1))
    assert found.value == 0.5
    assert (found.low, found.high) == (pytest.approx(0.43, abs=0.01), pytest.approx(0.57, abs=0.01))


def test_repeated_questions_of_one_clip_do_not_narrow_the_interval_of_all_right() -> None:
    once = mean_interval([1.0] * 5, alone(5), bounds=(0, 1))
    assert mean_interval([1.0] * 50, np.repeat(alone(5), 10), bounds=(0, 1)) == once


@pytest.mark.parametrize(
    ("values", "clusters", "reason"),
    [
        ([], [], "not be empty"),
        ([[1.0]], ["a"], "must have 1 dimension"),
        ([1.0, np.nan], ["a", "b"], "values holds 1 values that are not finite"),
        ([1.0, np.inf], ["a", "b"], "not finite"),
        ([1.0, 2.0], ["a"], "got 1 clusters for 2 items"),
    ],
)
def test_what_has_no_mean_is_refused(values: Any, clusters: list[str], reason: str) -> None:
    with pytest.raises(OmnisinkError, match=reason):
        mean_interval(values, clusters)


samples = st.lists(
    st.tuples(st.floats(-10, 10).map(lambda v: round(v, 3)), st.sampled_from("abcdef")), min_size=1, max_size=20
)


@given(samples, st.integers(-50, 50), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_constants_order_and_names_do_not_change_the_interval(pairs: Any, constant: int, random: Any) -> None:
    values, clusters = np.array([v for v, _ in pairs]), [c for _, c in pairs]
    found = mean_interval(values, clusters, resamples=FEW)
    near(found, mean_interval(values + constant, clusters, resamples=FEW), shift=constant)
    order = list(range(len(pairs)))
    random.shuffle(order)
    near(found, mean_interval(values[order], [clusters[i] for i in order], resamples=FEW))
    near(found, mean_interval(values, [f"clip-{c}" for c in clusters], resamples=FEW))
    assert found.low is None or values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9


def test_the_seed_decides() -> None:
    values = np.random.default_rng(3).normal(size=50)
    assert mean_interval(values, alone(50)) == mean_interval(values, alone(50))
    assert mean_interval(values, alone(50), seed=1) != mean_interval(values, alone(50))


# --- paired differences ----------------------------------------------------------------------------------------------


def exact(sums: list[float]) -> float:
    """Two-sided p over all choices of signs, counted one by one."""
    drawn = [abs(sum(s * v for s, v in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=len(sums))]
    return sum(d >= abs(sum(sums)) - 1e-12 for d in drawn) / len(drawn)


def test_the_test_is_exact_for_few_clusters() -> None:
    # Five clusters that all rise: two of the 32 choices of signs are as far from zero.
    found = paired_difference([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5, alone(5))
    assert found.p == pytest.approx(2 / 32)
    gaps = [0.5, -0.25, 1.0, 2.0, -0.125, 3.0, 0.75]
    assert paired_difference(gaps, [0.0] * 7, alone(7)).p == pytest.approx(exact(gaps))


def test_whole_clusters_change_their_sign() -> None:
    arm, clusters = [1.0, 1.0, 1.0, 2.0, -1.0, 1.0], ["a", "a", "b", "b", "c", "d"]
    assert paired_difference(arm, [0.0] * 6, clusters).p == pytest.approx(exact([2.0, 3.0, -1.0, 1.0]))


def test_clusters_that_do_not_differ_have_no_part_in_the_test() -> None:
    # 8 of 1,000 items changed, all for the better: 2 of 256 choices, exactly.
    arm = [1.0] * 8 + [0.0] * 992
    found = paired_difference(arm, [0.0] * 1000, alone(1000))
    assert found.p == pytest.approx(2 / 256)
    assert found.value == pytest.approx(0.008)
    assert found.low is not None
    assert found.low > 0


def test_many_clusters_agree_with_a_t_test() -> None:
    from scipy.stats import ttest_rel

    random = np.random.default_rng(4)
    base = random.normal(size=200)
    arm = base + 0.12 + random.normal(size=200)
    found, t = paired_difference(arm, base, alone(200)), ttest_rel(arm, base)
    assert found.p == pytest.approx(t.pvalue, abs=0.01)
    assert (found.low, found.high) == pytest.approx(tuple(t.confidence_interval()), abs=0.01)
    assert found.value == pytest.approx(float(np.mean(arm - base)))


def test_equal_arms_differ_by_nothing() -> None:
    same = np.random.default_rng(5).normal(size=20)
    assert paired_difference(same, same, alone(20)) == Difference(0.0, None, None, 1.0)
    assert paired_difference([1.0], [0.0], ["a"]) == Difference(1.0, None, None, 1.0)


def test_the_test_keeps_its_size_and_finds_what_is_there() -> None:
    random = np.random.default_rng(6)
    null, real = [], []
    for _ in range(200):
        clusters = np.repeat(alone(20), 3)
        noise = np.repeat(random.normal(size=20), 3) + random.normal(size=60)
        null.append(paired_difference(noise, np.zeros(60), clusters, resamples=199).p)
        real.append(paired_difference(noise + 1.5, np.zeros(60), clusters, resamples=199).p)
    assert np.mean(np.array(null) <= 0.05) < 0.09
    assert np.mean(np.array(real) <= 0.05) > 0.9
    assert min(null + real) > 0, "a p value from drawn signs is never 0"


@given(samples)
@settings(deadline=None, max_examples=30)
def test_swapping_the_arms_swaps_the_sign_alone(pairs: Any) -> None:
    values, clusters = np.array([v for v, _ in pairs]), [c for _, c in pairs]
    there = paired_difference(values, np.zeros(len(pairs)), clusters, resamples=FEW)
    back = paired_difference(np.zeros(len(pairs)), values, clusters, resamples=FEW)
    assert there.value == pytest.approx(-back.value, abs=1e-9)
    assert there.p == pytest.approx(back.p)
    assert 0 < there.p <= 1


def test_arms_must_be_paired() -> None:
    with pytest.raises(OmnisinkError, match="must be paired, got 2 and 3 values"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], alone(2))
    with pytest.raises(OmnisinkError, match="base holds 1 values"):
        paired_difference([1.0, 2.0], [1.0, np.nan], alone(2))


# --- Holm ------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.2 times 4, 3, 2, 1: 0.04, 0.06, 0.06 and 0.2; none is below the one before.
    assert holm([0.03, None, 0.01, 0.2, 0.02]) == [
        pytest.approx(0.06),
        None,
        pytest.approx(0.04),
        pytest.approx(0.2),
        pytest.approx(0.06),
    ]
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
@settings(deadline=None, max_examples=30)
def test_holm_corrects_upward_and_keeps_the_order(p_values: list[float | None]) -> None:
    corrected = holm(p_values)
    assert [p is None for p in corrected] == [p is None for p in p_values]
    both = sorted((p, c) for p, c in zip(p_values, corrected, strict=True) if p is not None and c is not None)
    assert all(p <= c <= 1 for p, c in both)
    assert [c for _, c in both] == sorted(c for _, c in both)
    assert not both or both[0][1] == pytest.approx(min(1.0, both[0][0] * len(both)))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p_value(wrong: float) -> None:
    with pytest.raises(OmnisinkError, match="between 0 and 1"):
        holm([0.5, wrong])


# --- what is not installed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda: mean_interval([1.0, 2.0], ["a", "b"]), "scipy"),
        (lambda: rank_correlation([1.0, 2.0], [[1.0, 2.0]]), "scipy"),
        (lambda: holm([0.5]), "statsmodels"),
    ],
)
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, use: Any, name: str) -> None:
    def missing(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(statistics, "import_module", missing)
    with pytest.raises(OmnisinkError, match=rf"need {name}, which is not installed .*pip install .*\[report\]"):
        use()


def test_importing_needs_neither() -> None:
    code = (
        "import sys, omnisink.results.statistics; "
        "sys.exit(', '.join({'torch', 'scipy', 'statsmodels'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
