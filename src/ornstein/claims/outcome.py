"""What an experiment returns, as plain data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Verdict = Literal["supported", "refuted", "cannot tell", "not run here"]


@dataclass(frozen=True)
class Measure:
    """One figure: its name, value, 95 % interval (None where it is exact or a single timing), number of samples and unit."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: str = ""

    def __str__(self) -> str:
        text = f"{self.value:.4g}"
        if self.interval is not None:
            text += f" ({self.interval[0]:.4g} to {self.interval[1]:.4g})"
        if self.unit:
            text += f" {self.unit}"
        return text + (f", n = {self.n}" if self.n is not None else "")


@dataclass(frozen=True)
class Outcome:
    """verdict and, in one sentence, why; the figures; the seeds; pictures, RGB uint8 (H, W, 3) by title; whatever else was set."""

    verdict: Verdict
    because: str
    measures: tuple[Measure, ...]
    seeds: tuple[int, ...]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "verdict": self.verdict,
            "because": self.because,
            "measures": [asdict(measure) for measure in self.measures],
            "seeds": list(self.seeds),
            "settings": self.settings,
        }


def combined(parts: Mapping[str, Verdict]) -> Verdict:
    """Of a statement in several parts: refuted where one is, supported where all are."""
    if "refuted" in parts.values():
        return "refuted"
    return "supported" if set(parts.values()) == {"supported"} else "cannot tell"


def mean_measure(name: str, values: Sequence[float] | NDArray[np.floating], unit: str = "") -> Measure:
    """The mean with its Student interval over independent values, such as one a seed."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise DataError(f"an interval of {name!r} needs two finite values at least, got {sample.tolist()}")
    center, error = float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(len(sample)))
    half = float(stats.t.ppf(0.975, len(sample) - 1)) * error
    return Measure(name, center, (center - half, center + half), len(sample), unit)
