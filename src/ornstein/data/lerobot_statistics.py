"""Statistics of a stream of episodes, merged without rounding twice.

Columns of numbers: count n, mean μ, sum of squared deviations M, smallest and largest; two parts a and b merge as

    δ = μ_b − μ_a        μ = μ_a + δ n_b / n        M = M_a + M_b + δ² n_a n_b / n        (Chan, Golub & LeVeque 1979)

Pictures: how often each of the 256 values occurs in each channel. Counts add, and everything else follows from them exactly,
quantiles too. `std` is the population's (divided by n); quantiles interpolate linearly between the two nearest values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# By the names of `lerobot_format.STATISTICS_PARTS`.
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


@dataclass(frozen=True)
class Moments:
    """Of n rows of D numbers: float64 (D,) each."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Of an array (n ≥ 1, D) or (n,)."""
        rows = values.reshape(len(values), -1).astype(np.float64)
        mean = rows.mean(0)
        return cls(len(rows), mean, ((rows - mean) ** 2).sum(0), rows.min(0), rows.max(0))

    def merge(self, other: Moments) -> Moments:
        """Of both sets of rows together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta**2 * (self.count * other.count / count),
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Of the population."""
        return np.sqrt(self.squares / self.count)

    def to_json(self, quantiles: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
        """As the format keeps it: a list of D numbers each, and the count as a list of one."""
        tables = {"min": self.minimum, "max": self.maximum, "mean": self.mean, "std": self.std}
        return {
            **{key: value.tolist() for key, value in tables.items()},
            "count": [self.count],
            **{key: np.atleast_1d(value).tolist() for key, value in quantiles.items()},
        }


def quantiles(values: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The five quantiles of the format, over the rows of (n,) or (n, D), as float64 (D,)."""
    table = np.quantile(values.reshape(len(values), -1).astype(np.float64), list(QUANTILES.values()), axis=0)
    return dict(zip(QUANTILES, table, strict=True))


@dataclass(frozen=True)
class PixelCounts:
    """How often each value occurs: frames seen, and int64 (3, 256)."""

    frames: int
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, frames: NDArray[np.uint8]) -> PixelCounts:
        """Of pictures (T, height, width, 3)."""
        channels = frames.reshape(-1, 3).T
        return cls(len(frames), np.stack([np.bincount(channel, minlength=256) for channel in channels]).astype(np.int64))

    def merge(self, other: PixelCounts) -> PixelCounts:
        """Of all pictures together."""
        return PixelCounts(self.frames + other.frames, self.counts + other.counts)

    def to_json(self) -> dict[str, Any]:
        """As the format keeps it: values in [0, 1], shape (3, 1, 1), and the number of pictures as the count."""
        described = [_describe(channel) for channel in self.counts]
        tables = {key: [[[channel[key]]] for channel in described] for key in described[0]}
        return {
            **{key: tables[key] for key in ("min", "max", "mean", "std")},
            "count": [self.frames],
            **{q: tables[q] for q in QUANTILES},
        }


def _describe(counts: NDArray[np.int64]) -> dict[str, float]:
    values = np.arange(256) / 255
    present = np.flatnonzero(counts)
    total = int(counts.sum())
    mean = float((counts * values).sum() / total)
    below = np.cumsum(counts)

    def ranked(rank: int) -> float:  # the value at a place of the sorted list that the counts stand for
        return float(values[np.searchsorted(below, rank, side="right")])

    described = {
        "min": float(values[present[0]]),
        "max": float(values[present[-1]]),
        "mean": mean,
        "std": float(np.sqrt((counts * (values - mean) ** 2).sum() / total)),
    }
    for key, quantile in QUANTILES.items():
        place = quantile * (total - 1)
        low = int(place)
        left, right = ranked(low), ranked(min(low + 1, total - 1))
        described[key] = left + (right - left) * (place - low)
    return described
