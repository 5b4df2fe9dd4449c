"""Distances against closed forms, plain loops and torchmetrics; intervals and p-values against simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ornstein.core import DataError
from ornstein.images import (
    Features,
    diversity,
    frechet_distance,
    kernel_distance,
    kernel_distance_change,
    manifold_scores,
    modes_found,
    nearest_neighbours,
    quality,
    usual_bandwidth,
    vendi_score,
)


def _points(values: np.ndarray) -> Features:
    return Features(np.asarray(values, dtype=np.float64), "points", "none", "any")


def _normal(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, d))


def _with_moments(mean: np.ndarray, covariance: np.ndarray, n: int = 60, seed: int = 0) -> Features:
    """Points whose mean and (unbiased) covariance are exactly these."""
    raw = _normal(n, len(mean), seed)
    raw = raw - raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return _points(white @ np.linalg.cholesky(covariance).T + mean)


def _covariance(d: int, seed: int) -> np.ndarray:
    root = _normal(d, d, seed)
    return root @ root.T + 0.1 * np.eye(d)


def test_frechet_of_commuting_gaussians_is_the_distance_of_their_deviations() -> None:
    """Σ_a = Q diag(s²) Qᵀ, Σ_b = Q diag(t²) Qᵀ: ‖μ‖² + Σ (s − t)²."""
    d = 6
    q, _ = np.linalg.qr(_normal(d, d, 1))
    s, t = np.linspace(0.5, 3, d), np.linspace(2, 0.1, d)
    shift = np.linspace(-1, 2, d)
    a = _with_moments(np.zeros(d), q @ np.diag(s**2) @ q.T)
    b = _with_moments(shift, q @ np.diag(t**2) @ q.T, seed=2)
    assert frechet_distance(a, b) == pytest.approx(shift @ shift + ((s - t) ** 2).sum(), rel=1e-10)


def test_frechet_of_two_dimensional_gaussians_is_the_closed_form() -> None:
    """tr (AB)^½ = √(tr AB + 2 √det AB) for 2 × 2."""
    a, b = _covariance(2, 3), _covariance(2, 4)
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    expected = 5 + np.trace(a) + np.trace(b) - 2 * cross
    sets = (_with_moments(np.zeros(2), a), _with_moments(np.array([1.0, -2.0]), b, seed=5))
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(*reversed(sets)) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_a_set_with_itself_is_zero_even_where_a_feature_is_dead() -> None:
    values = _normal(50, 8, 6)
    values[:, 3] = 0.0
    values[:, 4] = values[:, 5]
    assert frechet_distance(_points(values), _points(values)) == pytest.approx(0, abs=1e-6)
    line = _normal(50, 1, 6) @ _normal(1, 8, 7)  # rounding makes some of its seven zero eigenvalues negative
    assert frechet_distance(_points(line), _points(line + 1)) == pytest.approx(8, rel=1e-6)


def test_frechet_falls_to_its_floor_like_one_over_n() -> None:
    """The bias that makes figures of different n incomparable: halving n doubles it."""
    floors = {
        n: np.mean([frechet_distance(_points(_normal(n, 8, 2 * s)), _points(_normal(n, 8, 2 * s + 1))) for s in range(30)])
        for n in (100, 200)
    }
    assert 1.7 < floors[100] / floors[200] < 2.3


class _Identity(nn.Module):
    """torchmetrics passes pictures; these are rows of features."""

    num_features = 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_frechet_is_torchmetrics() -> None:
    from torchmetrics.image import fid

    a, b = _normal(80, 5, 7), _normal(80, 5, 8, 0.4) * 1.3
    theirs = fid.FrechetInceptionDistance(feature=_Identity(), normalize=True).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(a), real=True)
    theirs.update(torch.from_numpy(b), real=False)
    assert frechet_distance(_points(a), _points(b)) == pytest.approx(float(theirs.compute()), abs=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
def test_kernel_distance_is_torchmetrics_over_all_points() -> None:
    from torchmetrics.image import kid

    a, b = _normal(60, 5, 9), _normal(60, 5, 10, 0.3)
    theirs = kid.KernelInceptionDistance(feature=_Identity(), subsets=1, subset_size=60, normalize=True)
    theirs.update(torch.from_numpy(a).float(), real=True)
    theirs.update(torch.from_numpy(b).float(), real=False)
    assert kernel_distance(_points(a), _points(b)).value == pytest.approx(float(theirs.compute()[0]), abs=1e-4)


def _slow_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    d = x.shape[1]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / d + 1) ** 3)

    within = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    return float(sum(within) - 2 * np.mean([k(a, b) for a in x for b in y]))


@pytest.mark.parametrize("rows", [512, 4])
def test_kernel_distance_is_the_sum_over_pairs_and_its_error_the_jackknifes(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_ROWS", rows)
    x, y = _normal(9, 3, 11), _normal(11, 3, 12, 0.5)
    ours = kernel_distance(_points(x), _points(y))
    assert ours.value == pytest.approx(_slow_kernel_distance(x, y), rel=1e-12)
    variance = 0.0
    for without in (
        [_slow_kernel_distance(np.delete(x, i, 0), y) for i in range(len(x))],
        [_slow_kernel_distance(x, np.delete(y, j, 0)) for j in range(len(y))],
    ):
        variance += (len(without) - 1) * np.var(without)
    assert ours.error == pytest.approx(np.sqrt(variance), rel=1e-9)
    assert ours.interval[1] - ours.value == pytest.approx(1.96 * ours.error, rel=1e-4)


def _true_kernel_distance(d: int, shift: float) -> float:
    """Of N(0, I) and N(shift, I): E (x·y/d + 1)³ from the moments of x·y, independent x ~ N(a, I), y ~ N(b, I)."""

    def mean_kernel(a: float, b: float) -> float:
        # Per coordinate z = xy: m1 = ab, m2 = (1 + a²)(1 + b²), m3 = (a³ + 3a)(b³ + 3b); cumulants add up over coordinates.
        m_1, m_2, m_3 = a * b, (1 + a * a) * (1 + b * b), (a**3 + 3 * a) * (b**3 + 3 * b)
        k_1, k_2, k_3 = m_1, m_2 - m_1**2, m_3 - 3 * m_1 * m_2 + 2 * m_1**3
        mean, variance, third = 1 + k_1, k_2 / d, k_3 / d**2
        return mean**3 + 3 * mean * variance + third

    return mean_kernel(0, 0) + mean_kernel(shift, shift) - 2 * mean_kernel(0, shift)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.94, 1.0), (0.5, 0.92, 0.98)])
def test_the_interval_of_the_kernel_distance_covers_the_truth(shift: float, least: float, most: float) -> None:
    """Unbiased in both cases; at a distance of 0 the interval is wide (the jackknife doubles a degenerate variance), not narrow."""
    truth, estimates = _true_kernel_distance(4, shift), []
    for seed in range(400):
        rng = np.random.default_rng([13, seed])
        estimates.append(kernel_distance(_points(rng.normal(size=(80, 4))), _points(rng.normal(shift, 1, (80, 4)))))
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
    covered = np.mean([estimate.interval[0] <= truth <= estimate.interval[1] for estimate in estimates])
    assert least <= covered <= most


@pytest.mark.parametrize(("shift", "least"), [(0.0, 0.94), (0.7, 0.92)])
def test_a_bounded_kernel_is_unbiased_for_its_own_distance(shift: float, least: float) -> None:
    """Of N(0, I) and N(shift, I) in d dimensions: E k = (σ²/(σ² + 2))^{d/2} exp(−d shift²/(2(σ² + 2))) between the two."""
    d, bandwidth = 4, 1.3
    wide = bandwidth**2 + 2
    truth = 2 * (bandwidth**2 / wide) ** (d / 2) * (1 - np.exp(-d * shift**2 / (2 * wide)))
    estimates = []
    for seed in range(300):
        rng = np.random.default_rng([17, seed])
        x, y = _points(rng.normal(size=(60, d))), _points(rng.normal(shift, 1, (60, d)))
        estimates.append(kernel_distance(x, y, bandwidth=bandwidth))
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
    assert np.mean([estimate.interval[0] <= truth <= estimate.interval[1] for estimate in estimates]) >= least


def test_a_bounded_kernel_is_not_drowned_by_one_large_feature() -> None:
    """A picture in five hundred whose features are a hundred times as large: the cubic kernel sees little else."""
    rng = np.random.default_rng(18)
    real, before = rng.normal(size=(100, 3)), rng.normal(size=(100, 3))
    after = before + 0.5
    real[0], before[0], after[0] = 100, -100, -100
    sets = [_points(part) for part in (real, before, after)]
    bandwidth = usual_bandwidth(sets[0])
    cubic, bounded = kernel_distance_change(*sets), kernel_distance_change(*sets, bandwidth=bandwidth)
    assert cubic.interval[0] < 0 < cubic.interval[1]
    assert bounded.interval[0] > 0


def test_the_usual_bandwidth_scales_with_the_real_pictures() -> None:
    points = np.random.default_rng(19).normal(size=(200, 2))
    pairs = [np.hypot(*(points[i] - points[j])) for i in range(200) for j in range(i)]
    assert usual_bandwidth(_points(points)) == pytest.approx(np.median(pairs) / np.sqrt(8))
    assert usual_bandwidth(_points(3 * points)) == pytest.approx(3 * usual_bandwidth(_points(points)))
    with pytest.raises(DataError, match="no distance to take a bandwidth from"):
        usual_bandwidth(_points(np.ones((5, 2))))
    with pytest.raises(DataError, match="it needs two at least"):
        usual_bandwidth(_points(np.ones((1, 2))))
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="positive and finite"):
            kernel_distance(_points(points), _points(points), bandwidth=wrong)


def test_a_change_between_sets_of_one_noise_is_known_better_than_either() -> None:
    """Drawn from the same noise and shifted by 0.6 and 0.8: the interval covers the true difference, and is several times as narrow."""
    truth = _true_kernel_distance(4, 0.8) - _true_kernel_distance(4, 0.6)
    covered, shares = [], []
    for seed in range(200):
        rng = np.random.default_rng([seed, 3])
        real, noise = _points(rng.normal(size=(80, 4))), rng.normal(size=(80, 4))
        before, after = _points(noise + 0.6), _points(noise + 0.8)
        change = kernel_distance_change(real, before, after)
        assert change.value == pytest.approx(kernel_distance(real, after).value - kernel_distance(real, before).value, abs=1e-12)
        covered.append(change.interval[0] <= truth <= change.interval[1])
        apart = np.hypot(kernel_distance(real, before).error, kernel_distance(real, after).error)
        shares.append(change.error / apart)
    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.median(shares) < 0.6
    assert kernel_distance_change(real, before, before).error == 0
    with pytest.raises(DataError, match="are not compared"):
        kernel_distance_change(real, before, _points(noise[:50]))


def _slow_scores(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def radius(points: np.ndarray, i: int) -> float:
        return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]

    radii_x, radii_y = [radius(x, i) for i in range(len(x))], [radius(y, j) for j in range(len(y))]
    precision = np.mean([any(np.linalg.norm(b - a) <= r for a, r in zip(x, radii_x, strict=True)) for b in y])
    recall = np.mean([any(np.linalg.norm(a - b) <= r for b, r in zip(y, radii_y, strict=True)) for a in x])
    density = np.mean([sum(np.linalg.norm(b - a) <= r for a, r in zip(x, radii_x, strict=True)) for b in y]) / k
    coverage = np.mean([any(np.linalg.norm(b - a) <= r for b in y) for a, r in zip(x, radii_x, strict=True)])
    return precision, recall, density, coverage


@pytest.mark.parametrize(("k", "rows"), [(1, 512), (3, 512), (3, 7)])
def test_manifold_scores_are_the_plain_loops(k: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_ROWS", rows)
    x, y = _normal(23, 3, 14), _normal(31, 3, 15, 0.8) * 0.7
    scores = manifold_scores(_points(x), _points(y), k)
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == pytest.approx(_slow_scores(x, y, k), rel=1e-12)


def test_manifold_scores_of_the_ends() -> None:
    x = _normal(40, 3, 16)
    same = manifold_scores(_points(x), _points(x))
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = manifold_scores(_points(x), _points(x + 1000))
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    collapsed = manifold_scores(_points(x), _points(np.repeat(x[:1], 40, 0)))
    assert collapsed.precision == 1
    assert collapsed.recall <= 1 / 40
    assert collapsed.coverage < 0.5
    twins = np.repeat(x[:20], 2, 0)  # balls of radius 0 hold their centre
    again = manifold_scores(_points(twins), _points(x[:20].repeat(2, 0)), k=1)
    assert (again.precision, again.recall, again.density, again.coverage) == (1, 1, 2, 1)


def test_coverage_of_two_sets_of_one_distribution_is_its_known_expectation() -> None:
    """Naeem et al. 2020, equation 9: 1 − (n − 1)…(n − k) / ((2n − 1)…(2n − k)), free of the distribution."""
    n, k = 60, 5
    expected = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    found = [manifold_scores(_points(_normal(n, 3, 2 * s)), _points(_normal(n, 3, 2 * s + 1)), k).coverage for s in range(200)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_modes_expected_of_uniform_draws_are_the_simulated_ones() -> None:
    known = [f"kind {i}" for i in range(12)]
    rng = np.random.default_rng(17)
    found = [modes_found([known[i] for i in rng.integers(12, size=20)], known) for _ in range(3000)]
    counts = np.array([one.found for one in found])
    assert counts.mean() == pytest.approx(found[0].expected, abs=4 * found[0].deviation / np.sqrt(3000))
    assert counts.std() == pytest.approx(found[0].deviation, rel=0.06)


def test_modes_count_known_names_once() -> None:
    modes = modes_found(["a", "a", "b", "elsewhere"], ["a", "b", "c"])
    assert (modes.found, modes.known, modes.n, modes.missing) == (2, 3, 4, ("c",))
    assert modes_found(["a"], ["a"]).expected == 1
    with pytest.raises(DataError):
        modes_found([], ["a"])


def test_diversity_is_the_mean_distance_within_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_ROWS", 2)
    values = np.array([[0.0, 0], [3, 4], [100, 0], [100, 1], [100, 2], [7, 7]])
    groups = ["a", "a", "b", "b", "b", "alone"]
    assert diversity(_points(values), groups) == pytest.approx((5 + (1 + 1 + 2) / 3) / 2)
    assert diversity(_points(values[:2])) == pytest.approx(5)
    with pytest.raises(DataError, match="none of the 2 groups has two"):
        diversity(_points(values[:2]), ["a", "b"])
    with pytest.raises(DataError, match="one group a picture"):
        diversity(_points(values), ["a"])


@pytest.mark.parametrize("each", [1, 5])
def test_vendi_score_counts_orthogonal_clusters(each: int) -> None:
    corners = np.repeat(np.eye(4), each, 0) * np.linspace(0.5, 2, 4 * each)[:, None]
    assert vendi_score(_points(corners)) == pytest.approx(4)
    assert vendi_score(_points(np.ones((6, 3)))) == pytest.approx(1)
    with pytest.raises(DataError, match="zero"):
        vendi_score(_points(np.zeros((3, 2))))


def test_copies_are_found_and_shown_first() -> None:
    training, fresh, drawn = _normal(300, 4, 18), _normal(199, 4, 19), _normal(100, 4, 20)
    drawn[[7, 50]] = training[[123, 4]]
    drawn[30] = training[60] + 1e-9
    copies = nearest_neighbours(_points(training), _points(fresh), _points(drawn))
    assert set(copies.closest(2)) == {(7, 123), (50, 4)}
    assert copies.closest(3)[2] == (30, 60)
    assert copies.distances[7] == 0
    assert copies.nearer >= 3
    assert copies.expected_share == pytest.approx(0.01)
    assert np.mean(np.linalg.norm(fresh[:, None] - training[None], axis=-1).min(1) < copies.threshold) == pytest.approx(1 / 199)
    with pytest.raises(DataError, match="at least 99"):
        nearest_neighbours(_points(training), _points(fresh[:98]), _points(drawn))


def test_the_p_value_of_copies_is_a_count_of_orders() -> None:
    """Both drawn pictures nearer than all 99 fresh ones: one of the C(101, 2) ways in which two of 101 can be the smallest."""
    fresh = _normal(99, 2, 31) + 10
    copies = nearest_neighbours(_points(np.zeros((3, 2))), _points(fresh), _points(np.array([[0.1, 0.0], [0.0, 0.2]])))
    assert copies.nearer == 2
    assert copies.p_value == pytest.approx(2 / (101 * 100), rel=1e-9)


def test_where_real_pictures_repeat_themselves_no_copy_is_claimed() -> None:
    training = _points(_normal(100, 2, 32))
    copies = nearest_neighbours(training, training, training)
    assert (copies.threshold, copies.nearer, copies.p_value) == (0, 0, 1)


def test_copies_among_fresh_pictures_are_as_rare_as_stated() -> None:
    training = _points(_normal(50, 3, 21))
    shares, p_values = [], []
    for seed in range(400):
        rng = np.random.default_rng([22, seed])
        copies = nearest_neighbours(training, _points(rng.normal(size=(199, 3))), _points(rng.normal(size=(120, 3))))
        shares.append(copies.nearer / 120)
        p_values.append(copies.p_value)
    assert np.mean(shares) == pytest.approx(0.01, abs=4 * np.std(shares) / 20)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)
    assert max(p_values) == 1


def test_order_and_rotation_change_nothing() -> None:
    x, y = _normal(70, 5, 23), _normal(70, 5, 24, 0.3)
    q, _ = np.linalg.qr(_normal(5, 5, 25))
    order = np.random.default_rng(26).permutation(70)

    def figures(a: np.ndarray, b: np.ndarray) -> list[float]:
        one, other = _points(a), _points(b)
        kernel, scores = kernel_distance(one, other), manifold_scores(one, other)
        return [
            frechet_distance(one, other), kernel.value, kernel.error, scores.precision, scores.recall, scores.density, scores.coverage,
            diversity(other), vendi_score(other),
        ]  # fmt: skip

    assert figures(x[order], y) == pytest.approx(figures(x, y), rel=1e-9)
    assert figures(x @ q, y[order] @ q) == pytest.approx(figures(x, y), rel=1e-9)


def test_too_few_points_are_refused() -> None:
    few, more = _points(_normal(4, 4, 27)), _points(_normal(9, 4, 28))
    with pytest.raises(DataError, match="more than 4 pictures, got 4"):
        frechet_distance(more, few)
    with pytest.raises(DataError, match="three pictures"):
        kernel_distance(more, _points(_normal(2, 4, 29)))
    with pytest.raises(DataError, match="5-th neighbour"):
        manifold_scores(more, few)


def test_sets_of_different_origin_are_refused() -> None:
    a = _points(_normal(9, 4, 30))
    b = Features(a.values, "points", "another resize", "any")
    for distance in (frechet_distance, kernel_distance, manifold_scores):
        with pytest.raises(DataError, match="another resize"):
            distance(a, b)
    with pytest.raises(DataError, match="another resize"):
        nearest_neighbours(a, a, b)
