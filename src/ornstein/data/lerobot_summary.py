"""The numbers of a data set at a glance, and what in them makes a training go wrong in silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data.lerobot_format import ACTION, INDEX_FEATURES, STATE
from ornstein.data.lerobot_reader import LeRobotDataset

if TYPE_CHECKING:
    from pathlib import Path

# An action that is always the same teaches nothing; one whose bulk fills a hundredth of its range was measured in another unit or has strays;
# so was one that uses a fiftieth of its contract's range.
_STILL, _STRAY, _USED = 1e-7, 100.0, 0.02


@dataclass(frozen=True)
class StatisticsRow:
    """One number of every frame. low, high: the contract's bounds, where there is one."""

    name: str
    mean: float
    std: float
    minimum: float
    q01: float
    q99: float
    maximum: float
    low: float | None = None
    high: float | None = None


def statistics_rows(folder: Path) -> list[StatisticsRow]:
    """Of every number of a data set, counted anew from its frames, a column at a time.

    Raises:
        DataError: it is not a whole data set, or a number is not finite.
    """
    data = LeRobotDataset(folder)
    bounds = {}
    if data.contract is not None:
        bounds = {STATE: data.contract.state, ACTION: data.contract.action}
    rows = []
    for key, feature in data.features.items():
        if not feature.is_numeric or key in INDEX_FEATURES:
            continue
        values = data.column(key).reshape(len(data), -1).astype(np.float64)
        channels = bounds.get(key, ())
        for k in range(values.shape[1]):
            column = values[:, k]
            q01, q99 = np.quantile(column, [0.01, 0.99])
            rows.append(
                StatisticsRow(
                    f"{key}.{channels[k].name}" if channels else key if values.shape[1] == 1 else f"{key}[{k}]",
                    float(column.mean()),
                    float(column.std()),
                    float(column.min()),
                    float(q01),
                    float(q99),
                    float(column.max()),
                    channels[k].low if channels else None,
                    channels[k].high if channels else None,
                )
            )
    if not rows:
        raise DataError(f"{folder} has no numbers but its counters")
    return rows


def suspicions(rows: list[StatisticsRow]) -> list[str]:
    """What to look at before training, one line each; empty where nothing stands out."""
    found = []
    for row in rows:
        if row.name.startswith(ACTION) and row.std < _STILL:
            found.append(f"{row.name} is always {row.mean:.4g}: a policy learns nothing from it")
        bulk = row.q99 - row.q01
        if bulk > 0 and row.maximum - row.minimum > _STRAY * bulk:
            found.append(
                f"{row.name} lies within {row.q01:.4g} … {row.q99:.4g}, but for strays from {row.minimum:.4g} to {row.maximum:.4g}"
            )
        if row.low is None or row.high is None:
            continue
        used, whole = row.maximum - row.minimum, row.high - row.low
        if row.minimum < row.low - 1e-6 or row.maximum > row.high + 1e-6:
            found.append(
                f"{row.name} goes from {row.minimum:.4g} to {row.maximum:.4g}, its contract from {row.low:.4g} to {row.high:.4g}"
            )
        elif _STILL < used < _USED * whole:
            found.append(
                f"{row.name} uses {used / whole:.2%} of its contract's range {row.low:.4g} … {row.high:.4g}: in other units?"
            )
    return found
