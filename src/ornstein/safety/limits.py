"""What a robot may be told, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ornstein.core.contract import EmbodimentContract

_AXES = ("dx", "dy", "dz")
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """Points between two corners [m], low < high, in the robot's base frame."""

    low: Point
    high: Point

    def __post_init__(self) -> None:
        if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(self.low, self.high, strict=True)):
            raise DataError(f"a box needs finite corners, each of low below that of high, got {self.low} and {self.high}")

    def holds(self, point: Sequence[float]) -> bool:
        """Whether a point lies strictly inside."""
        return all(a < x < b for a, x, b in zip(self.low, point, self.high, strict=True))

    def meets(self, start: Sequence[float], end: Sequence[float]) -> bool:
        """Whether the straight way from one point to another goes through the inside (Kay and Kajiya 1986, slabs)."""
        first, last = 0.0, 1.0
        for a, b, x, y in zip(self.low, self.high, start, end, strict=True):
            step = y - x
            if step == 0.0:
                if not a < x < b:
                    return False
                continue
            near, far = sorted(((a - x) / step, (b - x) / step))
            first, last = max(first, near), min(last, far)
            if first >= last:
                return False
        return True


@dataclass(frozen=True)
class ShieldLimits:
    """In the order and the units of a contract's action.

    low, high: of each command. rate: the largest change from one command to the next. jerk: the largest change of that change. absolute: which dimensions say
    where to be, as a gripper's does; the others say how far to move. axes: the dimensions that move the tool along x, y and z [m].
    workspace: where the tool's target must stay. keep_out: where it must not go. slip: how far the measured tool may be from its target before that is
    given up and the measurement believed [m]. stale_after, stop_after: how old an observation may be before the robot holds still, and before it stops for
    good [s].
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    rate: tuple[float, ...]
    jerk: tuple[float, ...]
    absolute: tuple[bool, ...]
    axes: tuple[int, int, int] | None = None
    workspace: Box | None = None
    keep_out: tuple[Box, ...] = ()
    slip: float = 0.08
    stale_after: float = 0.5
    stop_after: float = 2.0

    def __post_init__(self) -> None:
        """
        Raises:
            DataError: lists of different lengths, a limit that is not a finite number, no positive room between low and high, no rest (0) among the commands
                that move, or boxes without axes to move along.
        """
        lengths = {name: len(getattr(self, name)) for name in ("low", "high", "rate", "jerk", "absolute")}
        if len(set(lengths.values())) > 1:
            raise DataError(f"limits are one for each dimension of an action, got {lengths}")
        for k, (low, high, rate, jerk) in enumerate(zip(self.low, self.high, self.rate, self.jerk, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise DataError(f"dimension {k} is bounded by [{low}, {high}]: finite low < high is needed")
            if not self.absolute[k] and not low <= 0.0 <= high:
                raise DataError(f"dimension {k} moves, so it must be able to rest: 0 is not within [{low}, {high}]")
            smallest = 1e-4 * (high - low)
            if not (math.isfinite(rate) and math.isfinite(jerk) and min(rate, jerk) >= smallest):
                raise DataError(
                    f"rate and jerk of dimension {k} must be at least {smallest:g}, a ten-thousandth of its range, got {rate} and {jerk}"
                )
        if self.axes is None and (self.workspace is not None or self.keep_out):
            raise DataError("boxes limit a tool that moves along x, y and z: this action has no dx, dy and dz")
        if not (0 < self.slip < math.inf and 0 < self.stale_after <= self.stop_after < math.inf):
            raise DataError(
                f"slip and the ages must be positive, and stale_after at most stop_after, got {self.slip}, {self.stale_after} and {self.stop_after}"
            )

    @classmethod
    def of(cls, contract: EmbodimentContract, *, rate: float = 1.0, jerk: float = 2.0) -> ShieldLimits:
        """A contract's own bounds; its action says where to be in dimensions whose names do not begin with d.

        Args:
            rate, jerk: as shares of each dimension's range; 1 and 2 limit nothing.
        """
        names = [channel.name for channel in contract.action]
        low, high = (tuple(getattr(channel, side) for channel in contract.action) for side in ("low", "high"))
        ranges = [b - a for a, b in zip(low, high, strict=True)]
        return cls(
            low=low,
            high=high,
            rate=tuple(rate * one for one in ranges),
            jerk=tuple(jerk * one for one in ranges),
            absolute=tuple(not name.startswith("d") for name in names),
            axes=tuple(names.index(name) for name in _AXES) if set(_AXES) <= set(names) else None,  # type: ignore[arg-type]
        )

    def within(self, workspace: Box | None, *keep_out: Box) -> ShieldLimits:
        """The same, and the tool's target stays in one box and out of others."""
        return replace(self, workspace=workspace, keep_out=keep_out)
