"""McNemar's test against published values; the smallest detectable difference against formula and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.results.mcnemar import Discordance, exact_mcnemar
from omnisink.results.power import smallest_detectable
from omnisink.results.statistics import paired_difference
from tests.evaluation.scored_runs import FEW, correlated
from tests.results.comparisons import alone


def table(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return answers of two arms with this fourfold table; `first` is right with the first alone."""
    arm = np.repeat([1.0, 1.0, 0.0, 0.0], [both, first, second, neither])
    return arm, np.repeat([1.0, 0.0, 1.0, 0.0], [both, first, second, neither])


# Fagerland, Lydersen and Laake (2013), BMC Medical Research Methodology 13:91: airway hyper-responsiveness before and
# after stem cell transplantation (exact conditional p = 0.070), and complete response before and after consolidation
# therapy (0.053). Agresti, Categorical Data Analysis: approval of the prime minister, 150 against 86.
@pytest.mark.parametrize(
    ("cells", "published", "within"),
    [((1, 1, 7, 12), 0.070, 5e-4), ((59, 6, 16, 80), 0.053, 6e-4), ((794, 150, 86, 570), 3.716e-5, 1e-8)],
)
def test_mcnemar_gives_the_published_p(cells: tuple[int, int, int, int], published: float, within: float) -> None:
    found = exact_mcnemar(*table(*cells))
    assert found is not None
    assert (found.wins, found.losses) == (cells[1], cells[2])
    assert found.p == pytest.approx(published, abs=within)


def test_mcnemar_is_of_right_and_wrong() -> None:
    assert exact_mcnemar([1.0, 0.0], [1.0, 0.0]) == Discordance(0, 0, 1.0)
    assert exact_mcnemar([1.0, 0.0], [0.0, 1.0]) == Discordance(1, 1, 1.0)
    assert exact_mcnemar([0.5, 0.0], [0.0, 1.0]) is None
    with pytest.raises(OmnisinkError, match="must be paired"):
        exact_mcnemar([1.0], [1.0, 0.0])


def test_without_clusters_it_is_the_power_of_a_paired_t_test() -> None:
    from scipy.stats import nct, t

    gap = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 200, p=[0.2, 0.6, 0.2])
    found = smallest_detectable(gap, alone(200))
    assert found.error == pytest.approx(gap.std(ddof=1) / np.sqrt(200))
    assert found.value is not None
    far = found.value / found.error  # type: ignore[operator]
    edge = t.ppf(0.975, 199)
    assert nct.sf(edge, 199, far) + nct.cdf(-edge, 199, far) == pytest.approx(0.8, abs=1e-4)
    # The usual quick formula, from quantiles of the normal distribution.
    assert found.value == pytest.approx((1.960 + 0.842) * found.error, rel=0.02)  # type: ignore[operator]
    assert not found.at_least


def test_the_error_is_that_of_clusters() -> None:
    random = np.random.default_rng(1)
    sums, sizes = random.normal(size=50), random.integers(1, 5, 50)
    gap, place = np.repeat(sums, sizes), np.repeat(alone(50), sizes)
    found = smallest_detectable(gap, list(place))
    # The sandwich by hand: residuals summed in clusters, with the corrections for few clusters and one coefficient.
    residuals = (sums - gap.mean()) * sizes
    correction = 50 / 49 * (len(gap) - 1) / (len(gap) - 1)
    assert found.error == pytest.approx(np.sqrt(correction * (residuals**2).sum()) / len(gap))
    assert found.clusters == 50
    assert found.differing == 50
    assert found.share == 1.0


def test_where_nothing_differs_there_is_a_floor_and_a_bound() -> None:
    found = smallest_detectable(np.zeros(600), [name for name in alone(300) for _ in range(2)])
    assert found.error == 0
    assert found.at_least
    assert found.differing == 0
    assert found.share == pytest.approx(3 / 300, rel=0.01), "the rule of three"
    assert found.share == pytest.approx(1 - 0.05 ** (1 / 300))
    # Six clusters must change for p < 0.05; at this share of 300 at least six do in four samples of five.
    from scipy.stats import binom

    assert found.value is not None
    share = found.value * 600 / 300
    assert binom.sf(5, 300, share) == pytest.approx(0.8)


def test_few_clusters_can_detect_nothing() -> None:
    gap = [1.0, 0.0, 1.0, -1.0, 1.0]
    found = smallest_detectable(gap, alone(5))
    assert found.value is None
    assert found.error is not None
    assert smallest_detectable(gap, ["a"] * 5).error is None
    assert paired_difference(np.ones(5), np.zeros(5), alone(5)).p > 0.05
    assert paired_difference(np.ones(6), np.zeros(6), alone(6)).p < 0.05
    assert smallest_detectable([*gap, 0.0], alone(6)).value is not None


@pytest.mark.parametrize(
    ("gap", "clusters", "reason"),
    [([], [], "must be finite"), ([np.nan], ["a"], "must be finite"), ([1.0], ["a", "b"], "needs a cluster")],
)
def test_what_has_no_power_is_refused(gap: list[float], clusters: list[str], reason: str) -> None:
    with pytest.raises(OmnisinkError, match=reason):
        smallest_detectable(gap, clusters)


def test_at_the_claimed_difference_four_samples_in_five_find_it() -> None:
    random = np.random.default_rng(2)

    def claimed(gain: float) -> float:
        values = []
        for _ in range(40):
            arm, base, place = correlated(random, 60, gain, differing=0.4)
            values.append(smallest_detectable(arm - base, list(map(str, place))).value)
        return float(np.mean(values))  # type: ignore[arg-type]

    # The difference that samples with this very difference claim to detect.
    gain = claimed(claimed(claimed(0.0)))
    found = 0
    for i in range(400):
        arm, base, place = correlated(random, 60, gain, differing=0.4)
        found += paired_difference(arm, base, list(map(str, place)), seed=i, resamples=FEW).p < 0.05
    # 400 draws have a standard error of 2 points.
    assert 0.73 <= found / 400 <= 0.87


def test_the_floor_is_where_it_should_be() -> None:
    """Where a method only ever gains, in single questions, the floor is what four samples in five detect."""
    random = np.random.default_rng(3)
    value = smallest_detectable(np.zeros(200), alone(200)).value
    assert value is not None
    gains = random.random((400, 200)) < value
    found = sum(
        paired_difference(row.astype(float), np.zeros(200), alone(200), resamples=FEW).p < 0.05 for row in gains
    )
    assert 0.73 <= found / 400 <= 0.87
