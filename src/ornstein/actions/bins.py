"""Actions as tokens of 256 uniform bins (RT-1, Brohan et al. 2022, §5.1; RT-2, Brohan et al. 2023, §3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract


@dataclass(frozen=True)
class UniformBins:
    """Each dimension's range, cut into equal bins; a token is a bin's number, its value the bin's centre.

    low, high: bounds a dimension, low < high, in the action's own units.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    num_bins: int = 256

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low or self.num_bins < 2:
            raise DataError(
                f"bins need as many lower as upper bounds and at least 2 bins, got {self.low}, {self.high}, {self.num_bins}"
            )
        if not all(np.isfinite(a) and np.isfinite(b) and a < b for a, b in zip(self.low, self.high, strict=True)):
            raise DataError(f"every lower bound must be finite and below its upper bound, got {self.low} and {self.high}")

    @classmethod
    def from_contract(cls, contract: EmbodimentContract, num_bins: int = 256) -> UniformBins:
        """Over the action bounds of a contract."""
        return cls(tuple(contract.action_low.tolist()), tuple(contract.action_high.tolist()), num_bins)

    def encode(self, actions: NDArray[np.floating]) -> tuple[NDArray[np.int64], int]:
        """Tokens of actions.

        Args:
            actions: (…, D), in the bounds' units.

        Returns:
            Tokens (…, D) in 0 … num_bins − 1, and how many numbers lay outside their bounds and were clipped into them.

        Raises:
            DataError: another number of dimensions, or a number that is not finite.
        """
        values = checked_actions(actions, len(self.low))
        low, high = np.array(self.low), np.array(self.high)
        # Bounds written as float32 may come back a rounding away: that is not clipping.
        slack = 1e-6 * (high - low)
        clipped = int(((values < low - slack) | (values > high + slack)).sum())
        place = (values - low) / (high - low) * self.num_bins
        return np.clip(np.floor(place).astype(np.int64), 0, self.num_bins - 1), clipped

    def decode(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Bin centres of tokens (…, D), float32; at most half a bin from what was encoded.

        Raises:
            DataError: another number of dimensions, or a token out of range.
        """
        numbers = checked_tokens(tokens, len(self.low), self.num_bins)
        low, high = np.array(self.low), np.array(self.high)
        return (low + (numbers + 0.5) / self.num_bins * (high - low)).astype(np.float32)


def checked_actions(actions: NDArray[np.floating], dimensions: int) -> NDArray[np.float64]:
    """Actions (…, D) as float64.

    Raises:
        DataError: another number of dimensions, or a number that is not finite.
    """
    values = np.asarray(actions, dtype=np.float64)
    if values.shape[-1:] != (dimensions,):
        raise DataError(f"these tokens stand for actions of {dimensions} numbers, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError("an action holds a number that is not finite: it has no token")
    return values


def checked_tokens(tokens: NDArray[np.integer], dimensions: int, num_bins: int) -> NDArray[np.integer]:
    """Tokens (…, D), within 0 … num_bins − 1.

    Raises:
        DataError: another number of dimensions, or a token out of range.
    """
    numbers = np.asarray(tokens)
    if numbers.shape[-1:] != (dimensions,):
        raise DataError(f"these bins decode {dimensions} tokens at a time, got shape {numbers.shape}")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= num_bins):
        raise DataError(f"tokens run 0 … {num_bins - 1}, got {numbers.min()} … {numbers.max()}")
    return numbers
