"""Success rates as measures, and how many times one is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ornstein.claims.outcome import Measure
from ornstein.evaluation import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict

_RESAMPLES = 10_000


def rate_measure(name: str, found: NDArray[np.bool_]) -> Measure:
    """In per cent, with its Wilson interval."""
    wins, n = int(found.sum()), found.size
    low, high = wilson_interval(wins, n)
    return Measure(name, 100 * wins / n, (100 * low, 100 * high), n, "%")


def ratio_interval(some: NDArray[np.bool_], others: NDArray[np.bool_]) -> tuple[float, float]:
    """Of the ratio of two success rates: 95 %, from each rate's distribution after Jeffreys' prior. Those that share scenes are taken for independent,
    which makes it wider than it need be."""
    rng = np.random.default_rng(0)
    a, b = (rng.beta(found.sum() + 0.5, (~found).sum() + 0.5, _RESAMPLES) for found in (some, others))
    low, high = np.quantile(a / b, [0.025, 0.975])
    return float(low), float(high)


def twice(some: NDArray[np.bool_], others: NDArray[np.bool_], times: float) -> Verdict:
    """Whether the first rate is at least so many times the second."""
    low, high = ratio_interval(some, others)
    return "supported" if low >= times else "refuted" if high < times else "cannot tell"
