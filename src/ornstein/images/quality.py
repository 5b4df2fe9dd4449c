"""How far two sets of pictures are apart, as sets of points: Fréchet and kernel distance, manifold scores, modes, diversity, copies.

Notation: x_i are the n real points, y_j the m drawn ones, in R^d (`ornstein.images.features`). Everything is float64 and exact over all
points: no random subsets, no complex square roots. torchmetrics is the oracle in the tests, not the implementation: its kernel distance
averages random subsets (another number each time), and importing it takes a second and brings matplotlib along.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from ornstein.core.errors import DataError
from ornstein.images.features import require_comparable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from ornstein.images.features import Features

_ROWS = 512  # of a matrix of distances or kernels in memory at a time
_Z = 1.959963984540054  # of a two-sided 95 % interval


def frechet_distance(a: Features, b: Features) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½): the squared 2-Wasserstein distance of the Gaussians with the two sets' moments.

    Dowson & Landau 1982; on network features, Heusel et al. 2017 (FID). With R = Σ_a^½, Σ_a Σ_b has the eigenvalues of the symmetric
    R Σ_b R, which are real and not negative: the trace is the sum of their roots, and no complex matrix occurs.

    The estimate is biased upward, by about a constant / n (Bińkowski et al. 2018): two sets of the same pictures' distribution are
    apart too. Compare figures of equal n only, beside the distance of two real sets of that n.

    Raises:
        DataError: the sets cannot be compared, or one has not more points than numbers a point: its covariance is singular, and the
            bias is all that the figure would show.
    """
    require_comparable(a, b)
    for one in (a, b):
        n, d = one.values.shape
        if n <= d:
            raise DataError(
                f"a Fréchet distance in {d} dimensions needs more than {d} pictures, got {n}: the kernel distance does not"
            )
    cov_a, cov_b = (np.atleast_2d(np.cov(one.values, rowvar=False)) for one in (a, b))
    gap = a.values.mean(0) - b.values.mean(0)
    eigenvalues, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(eigenvalues, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return max(0.0, float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error; `interval` is 95 %."""

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.value - _Z * self.error, self.value + _Z * self.error


def kernel_distance(a: Features, b: Features, *, bandwidth: float | None = None) -> Estimate:
    """Squared maximum mean discrepancy over all pairs, with the kernel k(x, y) = (x·y/d + 1)³ (Bińkowski et al. 2018, KID).

    The U-statistic  mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{ij} k(x_i, y_j)  is unbiased at every n and may come out
    negative. Its error is the two-sample jackknife's: leaving out x_i changes the figure by what its row sums say, so all n + m
    leave-one-out values come from the same pass. Where the two distributions are the same the jackknife doubles the variance (the
    statistic is degenerate there), so that the interval is too wide rather than too narrow.

    Args:
        bandwidth: σ of the kernel exp(−|x − y|² / 2σ²) instead, which is bounded, so that a few large features do not drown the rest
            (Jayasumana et al. 2024, CMMD). Distances of one σ compare; `usual_bandwidth` gives it.

    Raises:
        DataError: the sets cannot be compared, or have fewer than three points; the bandwidth is not positive and finite.
    """
    value, without_x, without_y = _kernel_distance_without_each(a, b, _kernel_of(bandwidth))
    return Estimate(value, _jackknife_error(without_x, without_y))


def usual_bandwidth(real: Features) -> float:
    """A σ for `kernel_distance`: √⅛ of the median distance of two real pictures, near enough to see what softens a drawing.

    Raises:
        DataError: there is one picture, or all are the same.
    """
    points = real.values[:1000]  # half a million pairs say what the median is
    if len(points) < 2:
        raise DataError("a bandwidth is of distances between real pictures: it needs two at least")
    apart = float(np.median(_distances(points, points)[np.triu_indices(len(points), 1)]))
    if apart == 0:
        raise DataError("most of the real pictures have the same features: there is no distance to take a bandwidth from")
    return apart / math.sqrt(8)


def kernel_distance_change(real: Features, before: Features, after: Features, *, bandwidth: float | None = None) -> Estimate:
    """How much farther from the real pictures `after` is than `before`, where picture j of both was drawn from the same noise.

    The two kernel distances share the real set and, by and large, the pictures: the jackknife leaves out picture j of both at once, so
    that what they have in common cancels. The difference is known far better than either distance.

    Args:
        bandwidth: as for `kernel_distance`.

    Raises:
        DataError: as for `kernel_distance`, or the two drawn sets are not of the same number.
    """
    require_comparable(before, after, same_n=True)
    kernel = _kernel_of(bandwidth)
    (first, *without_first), (second, *without_second) = (
        _kernel_distance_without_each(real, one, kernel) for one in (before, after)
    )
    return Estimate(
        second - first, _jackknife_error(*(late - early for late, early in zip(without_second, without_first, strict=True)))
    )


def _kernel_distance_without_each(
    a: Features, b: Features, kernel: _Kernel
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The distance, and what it is without each point of a and without each of b."""
    require_comparable(a, b)
    x, y = a.values, b.values
    n, m = len(x), len(y)
    if min(n, m) < 3:
        raise DataError(f"a kernel distance needs three pictures a set, got {n} and {m}")
    within_x, within_y, across_x, across_y = np.empty(n), np.empty(m), np.empty(n), np.zeros(m)
    for rows in _chunks(n):
        within_x[rows] = kernel(x[rows], x).sum(1) - kernel.of_itself(x[rows])
        across = kernel(x[rows], y)
        across_x[rows] = across.sum(1)
        across_y += across.sum(0)
    for rows in _chunks(m):
        within_y[rows] = kernel(y[rows], y).sum(1) - kernel.of_itself(y[rows])
    sum_x, sum_y, sum_xy = within_x.sum(), within_y.sum(), across_x.sum()
    mean_y = sum_y / (m * (m - 1))
    mean_x = sum_x / (n * (n - 1))
    without_x = (sum_x - 2 * within_x) / ((n - 1) * (n - 2)) + mean_y - 2 * (sum_xy - across_x) / ((n - 1) * m)
    without_y = mean_x + (sum_y - 2 * within_y) / ((m - 1) * (m - 2)) - 2 * (sum_xy - across_y) / (n * (m - 1))
    return float(mean_x + mean_y - 2 * sum_xy / (n * m)), without_x, without_y


def _jackknife_error(*without_each: NDArray[np.float64]) -> float:
    """The standard error of a figure of several independent sets, from what it is without each point of each."""
    return math.sqrt(sum(float((len(part) - 1) / len(part) * ((part - part.mean()) ** 2).sum()) for part in without_each))


@dataclass(frozen=True)
class ManifoldScores:
    """Four shares of k-nearest-neighbour balls; density alone may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def manifold_scores(real: Features, drawn: Features, k: int = 5) -> ManifoldScores:
    """Do drawn pictures lie among the real ones, and are the real ones all reached?

    With B(z) the closed ball around z to its k-th nearest neighbour in its own set: precision is the share of drawn points in some
    B(x_i), recall the share of real points in some B(y_j) (Kynkäänniemi et al. 2019); density is the mean number of balls B(x_i) around
    a drawn point, over k, and coverage the share of B(x_i) that hold a drawn point (Naeem et al. 2020). One real outlier has a ball that
    lets in anything, which precision counts fully and density hardly. All four depend on n and k: two sets of one distribution do not
    score 1, but their own floor.

    Raises:
        DataError: the sets cannot be compared, or have not more than k points.
    """
    require_comparable(real, drawn)
    x, y = real.values, drawn.values
    if k < 1 or min(len(x), len(y)) <= k:
        raise DataError(f"balls to the {k}-th neighbour need k ≥ 1 and more than k pictures a set, got {len(x)} and {len(y)}")
    radii_x, radii_y = _radii(x, k), _radii(y, k)
    balls = np.zeros(len(y))  # how many B(x_i) hold y_j
    reached, covered = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    for rows in _chunks(len(x)):
        distances = _distances(x[rows], y)
        inside = distances <= radii_x[rows, None]
        balls += inside.sum(0)
        covered[rows] = inside.any(1)
        reached[rows] = (distances <= radii_y).any(1)
    return ManifoldScores(float((balls > 0).mean()), float(reached.mean()), float(balls.mean() / k), float(covered.mean()), k)


@dataclass(frozen=True)
class Modes:
    """How many of `known` kinds n pictures show; `expected` ± `deviation` of them if all kinds were equally likely."""

    found: int
    known: int
    n: int
    expected: float
    deviation: float
    missing: tuple[str, ...]


def modes_found(names: Sequence[str], known: Collection[str]) -> Modes:
    """How many known kinds are among the names that a judge gave to the pictures.

    n equally likely draws from K kinds miss one with probability q = (1 − 1/K)^n and two with q₂ = (1 − 2/K)^n, so they find K (1 − q) on
    average with variance K q (1 − q) + K (K − 1) (q₂ − q²). A name that is no known kind counts among the n and finds nothing.

    Raises:
        DataError: no names, or nothing known.
    """
    kinds = set(known)
    n, count = len(names), len(kinds)
    if not n or not kinds:
        raise DataError(f"modes are counted among some pictures and kinds, got {n} and {count}")
    missing = kinds - set(names)
    q, q_2 = (1 - 1 / count) ** n, max(0.0, 1 - 2 / count) ** n
    variance = count * q * (1 - q) + count * (count - 1) * (q_2 - q * q)
    return Modes(count - len(missing), count, n, count * (1 - q), math.sqrt(max(0.0, variance)), tuple(sorted(missing)))


def diversity(features: Features, groups: Sequence[str] | None = None) -> float:
    """Mean distance of two different pictures of the same group (one prompt, say), groups weighing alike; without groups, of the set.

    Raises:
        DataError: not one group a picture, or no group of two.
    """
    groups = [""] * len(features) if groups is None else groups
    if len(groups) != len(features):
        raise DataError(f"diversity takes one group a picture, got {len(groups)} for {len(features)} pictures")
    labels = np.array(groups)
    sizes = Counter(groups)
    means = []
    for group in (name for name, size in sizes.items() if size > 1):
        points = features.values[labels == group]
        total = sum(float(_distances(points[rows], points).sum()) for rows in _chunks(len(points)))
        means.append(total / (len(points) * (len(points) - 1)))
    if not means:
        raise DataError(f"diversity is between pictures of one group, and none of the {len(sizes)} groups has two")
    return float(np.mean(means))


def vendi_score(features: Features) -> float:
    """exp(−Σ λ log λ) over the eigenvalues of K/n with K the cosines (Friedman & Dieng 2023): how many different pictures there are.

    1 where all are alike, n where all are orthogonal. K/n shares its positive eigenvalues with the d × d matrix Σ x̂ᵢ x̂ᵢᵀ / n, which is
    taken where it is the smaller.

    Raises:
        DataError: a picture has features of zero, which have no direction.
    """
    lengths = np.linalg.norm(features.values, axis=1, keepdims=True)
    if not lengths.all():
        raise DataError("a picture has features of zero, which have no cosine with others")
    unit = features.values / lengths
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    eigenvalues = np.linalg.eigvalsh(gram / len(unit))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


@dataclass(frozen=True)
class Copies:
    """The nearest training picture of each drawn one, and how many are nearer than real pictures ever come.

    Args:
        distances, nearest: (m,), of each drawn picture to its nearest training picture, and which that is.
        threshold: a fresh real picture is nearer than this with probability `expected_share`.
        nearer: how many drawn pictures are. p_value: that as many would be if drawn pictures were fresh real ones.
    """

    distances: NDArray[np.float64]
    nearest: NDArray[np.int64]
    threshold: float
    expected_share: float
    nearer: int
    p_value: float

    def closest(self, count: int) -> list[tuple[int, int]]:
        """The `count` likeliest copies as (drawn picture, training picture), nearest first."""
        return [(int(j), int(self.nearest[j])) for j in np.argsort(self.distances, kind="stable")[:count]]


def nearest_neighbours(training: Features, fresh: Features, drawn: Features) -> Copies:
    """Are drawn pictures copies? Nearer to a training picture than all but 1 % of `fresh` real ones that training never saw.

    The threshold is the r-th smallest of the n fresh distances, r = ⌊(n + 1)/100⌋. If drawn pictures were fresh real ones, all n + m
    distances would be exchangeable: one falls below with probability r/(n + 1), and the number that do is beta-binomial (m; r, n + 1 − r),
    which the p-value is exact for (distances without ties; with ties it is too large).

    Raises:
        DataError: the sets cannot be compared, or there are fewer than 99 fresh pictures to find 1 % of.
    """
    from scipy.stats import betabinom

    require_comparable(training, fresh, drawn)
    n, m = len(fresh), len(drawn)
    if n < 99:
        raise DataError(f"the nearest 1 % of fresh real pictures needs at least 99 of them, got {n}")
    rank = (n + 1) // 100
    real, _ = _nearest(fresh.values, training.values)
    distances, nearest = _nearest(drawn.values, training.values)
    threshold = float(np.partition(real, rank - 1)[rank - 1])
    nearer = int((distances < threshold).sum())
    p_value = float(betabinom(m, rank, n + 1 - rank).sf(nearer - 1))
    return Copies(distances, nearest, threshold, rank / (n + 1), nearer, p_value)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS))


class _Kernel(Protocol):
    """k(x_i, y_j) for rows of x and y, and k(x_i, x_i)."""

    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def of_itself(self, x: NDArray[np.float64]) -> NDArray[np.float64]: ...


class _Cubic:
    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def of_itself(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((x * x).sum(1) / x.shape[1] + 1) ** 3


@dataclass(frozen=True)
class _Gaussian:
    bandwidth: float

    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-(_distances(x, y) ** 2) / (2 * self.bandwidth**2))

    def of_itself(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ones(len(x))


def _kernel_of(bandwidth: float | None) -> _Kernel:
    if bandwidth is None:
        return _Cubic()
    if not 0 < bandwidth < math.inf:
        raise DataError(f"a bandwidth is positive and finite, got {bandwidth}")
    return _Gaussian(bandwidth)


def _distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean, from differences: |x|² − 2 x·y + |y|² would make an exact copy's distance a rounding error instead of 0."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(torch.from_numpy(x), torch.from_numpy(y), compute_mode=exact).numpy()


def _radii(points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Each point's distance to its k-th nearest neighbour; the nearest of all, at 0, is the point itself."""
    return np.concatenate([np.partition(_distances(points[rows], points), k, axis=1)[:, k] for rows in _chunks(len(points))])


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, indices = [], []
    for rows in _chunks(len(points)):
        distances = _distances(points[rows], others)
        indices.append(distances.argmin(1))
        values.append(distances.min(1))
    return np.concatenate(values), np.concatenate(indices)
