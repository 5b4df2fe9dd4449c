from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ornstein.core.errors import DataError
from ornstein.evaluation import mcnemar_exact, newcombe_difference, paired_bootstrap, wilson_interval


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (81, 263), (225, 300)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    reference = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson_interval(k, n), reference, atol=1e-12)


def test_wilson_covers_as_promised() -> None:
    """Exact coverage over a grid of true rates: the binomial probabilities of the counts whose interval holds the rate."""
    n = 50
    intervals = np.array([wilson_interval(k, n) for k in range(n + 1)])
    coverage = []
    for rate in np.linspace(0.02, 0.98, 97):
        inside = (intervals[:, 0] <= rate) & (rate <= intervals[:, 1])
        coverage.append(stats.binom.pmf(np.arange(n + 1), n, rate)[inside].sum())
    assert 0.94 < np.mean(coverage) < 0.965
    assert min(coverage) > 0.88


def test_newcombes_published_example() -> None:
    """Newcombe 1998, table II, 56/70 − 48/80: method 10 gives 0.0524 to 0.3339."""
    np.testing.assert_allclose(newcombe_difference((56, 70), (48, 80)), (0.0524, 0.3339), atol=5e-5)
    np.testing.assert_allclose(newcombe_difference((48, 80), (56, 70)), (-0.3339, -0.0524), atol=5e-5)


def test_mcnemar_is_the_sign_test_on_discordant_scenes() -> None:
    a = np.array([1] * 9 + [0] * 1 + [1] * 20 + [0] * 5, dtype=bool)
    b = np.array([0] * 9 + [1] * 1 + [1] * 20 + [0] * 5, dtype=bool)
    assert np.isclose(mcnemar_exact(a, b), 2 * stats.binom.cdf(1, 10, 0.5))
    assert mcnemar_exact(a, a) == 1.0


def test_paired_bootstrap_covers_a_known_mean() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        a = rng.normal(0.3, 1, 60)
        low, high = paired_bootstrap(a, np.zeros(60), rng, resamples=500)
        hits += low <= 0.3 <= high
    assert 178 <= hits <= 200


def test_paired_bootstrap_of_many_scenes_is_the_normal_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.2, 1, 400), rng.normal(0, 1, 400)
    for confidence in (0.8, 0.95):
        error = stats.norm.ppf(0.5 + confidence / 2) * (a - b).std(ddof=1) / np.sqrt(400)
        expected = (a - b).mean() + np.array([-error, error])
        np.testing.assert_allclose(paired_bootstrap(a, b, rng, confidence=confidence, resamples=20_000), expected, atol=0.006)


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="0 ≤ successes ≤ n"):
        wilson_interval(3, 2)
    for a, b in (((0, 0), (1, 2)), ((1, 2), (0, 0)), ((3, 2), (1, 2))):
        with pytest.raises(DataError, match="0 ≤ successes ≤ n"):
            newcombe_difference(a, b)
    with pytest.raises(DataError, match="not finite"):
        paired_bootstrap(np.array([1.0, np.nan]), np.zeros(2), np.random.default_rng(0))
    with pytest.raises(DataError, match="one of each a scene"):
        mcnemar_exact(np.ones(2, bool), np.ones(3, bool))
