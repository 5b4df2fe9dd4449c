"""Actions as tokens of bins that each hold as many of the training data's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.actions.bins import checked_actions, checked_tokens
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract


@dataclass(frozen=True)
class QuantileBins:
    """Each dimension's range, cut where its quantiles lie: fine where actions are frequent, coarse where they are rare.

    edges: of each dimension, ascending, one more than there are bins; the outermost are the bounds. A token is a bin's number, its value the
    bin's centre.
    """

    edges: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        table = [np.asarray(one, dtype=np.float64) for one in self.edges]
        if not table or len({len(one) for one in table}) != 1 or len(table[0]) < 3:
            raise DataError("quantile bins need the same number of edges in every dimension, at least 3")
        if not all(np.isfinite(one).all() and (np.diff(one) > 0).all() for one in table):
            raise DataError("the edges of quantile bins must be finite and ascend strictly")

    @property
    def num_bins(self) -> int:
        """Of every dimension."""
        return len(self.edges[0]) - 1

    @classmethod
    def fit(cls, actions: NDArray[np.floating], contract: EmbodimentContract, num_bins: int = 256) -> QuantileBins:
        """To the actions of a data set, (N, D), within a contract's bounds.

        A number that is more frequent than a bin's share (a gripper is open or closed, a stop is 0) would make several edges fall together;
        the bins that this leaves over halve the widest ones.

        Raises:
            DataError: fewer than 2 bins, no actions, another number of dimensions, or a number that is not finite.
        """
        low, high = contract.action_low.astype(np.float64), contract.action_high.astype(np.float64)
        values = checked_actions(actions, len(low))
        if values.ndim != 2 or not len(values) or num_bins < 2:
            raise DataError(f"quantiles need at least one action (N, {len(low)}) and 2 bins, got {values.shape} and {num_bins}")
        return cls(tuple(_edges(values[:, k], low[k], high[k], num_bins) for k in range(len(low))))

    def encode(self, actions: NDArray[np.floating]) -> tuple[NDArray[np.int64], int]:
        """Tokens of actions (…, D), and how many numbers were clipped into their bounds; as `UniformBins.encode`."""
        values = checked_actions(actions, len(self.edges))
        tokens, clipped = np.empty(values.shape, np.int64), 0
        for k, one in enumerate(self.edges):
            edges, column = np.asarray(one), values[..., k]
            slack = 1e-6 * (edges[-1] - edges[0])
            clipped += int(((column < edges[0] - slack) | (column > edges[-1] + slack)).sum())
            tokens[..., k] = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, self.num_bins - 1)
        return tokens, clipped

    def decode(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Bin centres of tokens (…, D), float32; at most half of that bin from what was encoded.

        Raises:
            DataError: another number of dimensions, or a token out of range.
        """
        numbers = checked_tokens(tokens, len(self.edges), self.num_bins)
        table = np.asarray(self.edges)
        centres = (table[:, 1:] + table[:, :-1]) / 2
        return centres[np.arange(len(self.edges)), numbers].astype(np.float32)


def _edges(values: NDArray[np.float64], low: float, high: float, num_bins: int) -> tuple[float, ...]:
    inner = np.quantile(values, np.linspace(0, 1, num_bins + 1)[1:-1])
    # Bins narrower than this would hold rounding, not motion.
    closest = (high - low) / (64 * num_bins)
    edges = [low]
    for edge in np.sort(inner):
        if edge - edges[-1] >= closest and high - edge >= closest:
            edges.append(float(edge))
    edges.append(high)
    while len(edges) <= num_bins:
        widest = int(np.argmax(np.diff(edges)))
        edges.insert(widest + 1, (edges[widest] + edges[widest + 1]) / 2)
    return tuple(edges)
