"""Normalisation statistics: per feature and dimension, what a policy standardises by, with a fingerprint.

    z = (x − μ) / σ        x = μ + σ z

A dimension that never moves has σ = 0; it is divided by 1, so that z = x − μ stays finite and the round trip holds.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

_TABLES = ("mean", "std", "minimum", "maximum")
# A constant column's σ comes out as rounding error, not as 0: below this share of its largest value it is constant.
_CONSTANT = 1e-7


@dataclass(frozen=True)
class NormalizationStatistics:
    """Statistics of named features such as "action" or "observation.state".

    count: frames they were taken over. Each table: feature name → one number a dimension, in the feature's own units;
    `std` is the population standard deviation (divided by N).

    Raises:
        DataError: a count below 1, tables that name different features or lengths, an empty or non-finite entry,
            a negative std, or minimum ≤ mean ≤ maximum violated.
    """

    count: int
    mean: dict[str, tuple[float, ...]]
    std: dict[str, tuple[float, ...]]
    minimum: dict[str, tuple[float, ...]]
    maximum: dict[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(f"statistics need at least one frame, got a count of {self.count}")
        for table in _TABLES:
            if set(getattr(self, table)) != set(self.mean):
                raise DataError(f"statistics: {table} names {sorted(getattr(self, table))}, mean names {sorted(self.mean)}")
        for name, mean in self.mean.items():
            for table in _TABLES:
                values = getattr(self, table)[name]
                if len(values) != len(mean) or not values:
                    raise DataError(
                        f"statistics of {name!r}: {table} has {len(values)} numbers, mean has {len(mean)}; "
                        "equal lengths of at least one are needed"
                    )
                if not all(map(math.isfinite, values)):
                    raise DataError(f"statistics of {name!r}: {table} is not finite: {values}")
            if min(self.std[name]) < 0:
                raise DataError(f"statistics of {name!r}: std is negative: {self.std[name]}")
            bounds = zip(self.minimum[name], self.maximum[name], strict=True)
            if any(low > high for low, high in bounds):
                raise DataError(f"statistics of {name!r}: minimum {self.minimum[name]} lies above maximum {self.maximum[name]}")

    @classmethod
    def from_arrays(cls, features: Mapping[str, ArrayLike]) -> NormalizationStatistics:
        """Statistics of arrays (frames, dimensions), computed in float64.

        Raises:
            DataError: no features, arrays that are not (N ≥ 1, D ≥ 1) with one N for all, or a non-finite number.
        """
        if not features:
            raise DataError("statistics need at least one feature")
        arrays = {name: np.asarray(values, np.float64) for name, values in features.items()}
        for name, array in arrays.items():
            if array.ndim != 2 or 0 in array.shape:
                raise DataError(f"statistics of {name!r}: need a non-empty (frames, dimensions) array, got shape {array.shape}")
            bad = ~np.isfinite(array)
            if bad.any():
                frame, dimension = np.argwhere(bad)[0]
                raise DataError(
                    f"statistics of {name!r}: {int(bad.sum())} numbers are not finite, "
                    f"the first in frame {frame}, dimension {dimension}"
                )
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"statistics need as many frames of each feature, got {counts}")
        return cls(
            count=next(iter(counts.values())),
            mean={name: _numbers(array.mean(0)) for name, array in arrays.items()},
            std={name: _numbers(array.std(0)) for name, array in arrays.items()},
            minimum={name: _numbers(array.min(0)) for name, array in arrays.items()},
            maximum={name: _numbers(array.max(0)) for name, array in arrays.items()},
        )

    def normalize(self, feature: str, values: ArrayLike) -> NDArray[Any]:
        """z = (x − μ) / σ over the last axis, computed in float64, in the dtype that came (float32 for integers)."""
        array, mean, scale = self._aligned(feature, values)
        return np.asarray((array - mean) / scale, _float_type(array))

    def denormalize(self, feature: str, values: ArrayLike) -> NDArray[Any]:
        """x = μ + σ z: the inverse of `normalize`."""
        array, mean, scale = self._aligned(feature, values)
        return np.asarray(mean + scale * array, _float_type(array))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any number in here."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        tables = {table: {name: list(values) for name, values in getattr(self, table).items()} for table in _TABLES}
        return {"count": self.count, **tables}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NormalizationStatistics:
        """The inverse of `to_json`, exactly.

        Raises:
            DataError: a key is missing or unknown, or a value is not a number.
        """
        if set(data) != {"count", *_TABLES}:
            raise DataError(f"statistics have the keys {sorted(data)}, expected {sorted(('count', *_TABLES))}")
        try:
            tables = {
                table: {str(name): tuple(float(value) for value in values) for name, values in data[table].items()}
                for table in _TABLES
            }
            return cls(count=int(data["count"]), **tables)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"statistics hold something that is not a number: {error}") from error

    def _aligned(self, feature: str, values: ArrayLike) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        if feature not in self.mean:
            raise DataError(f"no statistics of {feature!r}; there are those of {sorted(self.mean)}")
        array, mean = np.asarray(values), np.asarray(self.mean[feature])
        if array.ndim == 0 or array.shape[-1] != len(mean):
            raise DataError(f"{feature!r} has {len(mean)} dimensions, got an array of shape {array.shape}")
        std = np.asarray(self.std[feature])
        largest = np.maximum(np.abs(self.minimum[feature]), np.abs(self.maximum[feature]))
        return array, mean, np.where(std > _CONSTANT * largest, std, 1.0)


def _numbers(array: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(array.tolist())


def _float_type(array: NDArray[Any]) -> np.dtype[Any]:
    return array.dtype if np.issubdtype(array.dtype, np.floating) else np.dtype(np.float32)
