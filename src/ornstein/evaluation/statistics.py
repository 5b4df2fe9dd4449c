"""Intervals and tests for success rates. numpy and scipy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a success rate by inverting the score test (Wilson 1927); sensible at 0 and n, unlike the normal one.

    Raises:
        DataError: not 0 ≤ successes ≤ n with n ≥ 1, or a confidence outside (0, 1).
    """
    if not (n >= 1 and 0 <= successes <= n and 0 < confidence < 1):
        raise DataError(f"a success rate needs 0 ≤ successes ≤ n, n ≥ 1, got {successes} of {n} at confidence {confidence}")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    rate = successes / n
    center = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)))
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True)
class Rate:
    """k of n with the 95 % Wilson interval."""

    successes: int
    n: int

    @property
    def rate(self) -> float:
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.successes, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.successes}/{self.n} = {self.rate:.1%} ({low:.1%} to {high:.1%})"

    def to_json(self) -> dict[str, Any]:
        return {"successes": self.successes, "n": self.n, "rate": self.rate, "wilson95": list(self.interval)}


def newcombe_difference(a: tuple[int, int], b: tuple[int, int], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of p_a − p_b for independent groups, from their Wilson intervals (Newcombe 1998, method 10).

    Args:
        a, b: (successes, n).

    Raises:
        DataError: as `wilson_interval`, for either group.
    """
    (low_a, high_a), (low_b, high_b) = wilson_interval(*a, confidence), wilson_interval(*b, confidence)
    rate_a, rate_b = a[0] / a[1], b[0] / b[1]
    difference = rate_a - rate_b
    low = difference - float(np.hypot(rate_a - low_a, high_b - rate_b))
    high = difference + float(np.hypot(high_a - rate_a, rate_b - low_b))
    return low, high


def mcnemar_exact(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Two-sided p-value that two policies succeed equally often on the same scenes (McNemar's test, exact binomial).

    Raises:
        DataError: the two do not have one outcome a scene each.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"paired outcomes need one of each a scene, got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_bootstrap(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Percentile interval of mean(a − b) over resampled scenes.

    Raises:
        DataError: the two do not have one value a scene each, or a value is not finite.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise DataError(f"a paired bootstrap needs one value of each a scene, got shapes {a.shape} and {b.shape}")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if not np.isfinite(difference).all():
        raise DataError("a paired bootstrap cannot resample values that are not finite: a failed episode counts as 0")
    means = difference[rng.integers(len(difference), size=(resamples, len(difference)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
