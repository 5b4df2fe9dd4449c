"""Whatever comes in, what goes out is within the limits: the law of `ornstein.safety.shield`, checked on what went out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ornstein.safety import Box, Shield, ShieldLimits
from ornstein.simulation.tabletop import contract

BODY = contract({})
ROOM = Box((0.31, -0.24, 0.012), (0.74, 0.24, 0.32))
POST = Box((0.5, -0.02, 0.0), (0.53, 0.02, 0.2))
HOME = (0.45, 0.0, 0.2)
_JUNK: tuple[Any, ...] = (
    None, "left", [1, 2], np.full(7, np.nan), np.full(7, np.inf), np.full(7, -np.inf), np.full(7, 1e300), np.full(7, 5e-324), {},
    np.zeros((7, 1)), np.zeros(8), np.zeros(7, complex), np.zeros(7, object), [np.nan] * 6 + [1], np.zeros(7, bool), b"1234567", [[]], object(), 1.0,
)  # fmt: skip


def limits(rate: float = 0.3, jerk: float = 0.15) -> ShieldLimits:
    return ShieldLimits.of(BODY, rate=rate, jerk=jerk).within(ROOM, POST)


def broken(out: np.ndarray, by: ShieldLimits, start: tuple[float, ...]) -> list[str]:
    """What of the law these commands break, (T, 7), for a tool that began at `start`."""
    sent = out.astype(np.float64)
    before = np.vstack([np.zeros((2, 7)), sent])
    changes, found = np.diff(before, axis=0), []
    if (sent < by.low).any() or (sent > by.high).any():
        found.append("bounds")
    if (np.abs(changes) > by.rate).any():
        found.append("rate")
    if (np.abs(np.diff(changes, axis=0)) > by.jerk).any():
        found.append("jerk")
    places = np.array(start) + np.vstack([np.zeros(3), np.cumsum(sent[:, :3], axis=0)])
    if (
        by.workspace is not None
        and ((places < np.array(by.workspace.low) - 1e-9) | (places > np.array(by.workspace.high) + 1e-9)).any()
    ):
        found.append("workspace")
    for box in by.keep_out:
        ways = np.linspace(places[:-1], places[1:], 50)
        if ((ways > np.array(box.low) + 1e-9) & (ways < np.array(box.high) - 1e-9)).all(-1).any():
            found.append("keep out")
    return found


def followed(shield: Shield, actions: list[Any]) -> np.ndarray:
    """What goes out to a robot that does what it is told."""
    place, out = np.array(HOME), []
    for action in actions:
        out.append(shield.guard(action, tool=place).action)
        place = place + out[-1][:3].astype(np.float64)
    return np.stack(out)


def sequence(kind: str, rng: np.random.Generator, steps: int) -> list[Any]:
    """Actions that mean no good."""
    low, high = BODY.action_low, BODY.action_high
    match kind:
        case "far beyond":
            return list(rng.normal(size=(steps, 7)) * 10.0 ** rng.integers(-3, 12, (steps, 1)))
        case "to and fro":
            return [high if k % 2 else low for k in range(steps)]
        case "into a corner":
            way = np.where(rng.random(7) < 0.5, low, high)
            return [way] * steps
        case "slowly faster":
            return [np.minimum(high, high * k / 20) * np.sign(rng.normal(size=7)) for k in range(steps)]
        case "junk":
            return [_JUNK[int(rng.integers(len(_JUNK)))] if rng.random() < 0.5 else rng.uniform(low, high) for _ in range(steps)]
        case _:
            return list(rng.uniform(low, high, (steps, 7)))


KINDS = ("plausible", "far beyond", "to and fro", "into a corner", "slowly faster", "junk")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "jerk"), [(1.0, 2.0), (0.5, 1.0), (0.3, 0.15), (0.1, 0.02), (0.05, 1.0)])
def test_nothing_that_comes_in_breaks_the_law(kind: str, rate: float, jerk: float) -> None:
    by, rng = limits(rate, jerk), np.random.default_rng(KINDS.index(kind))
    for _ in range(4):
        shield = Shield(by)
        out = followed(shield, sequence(kind, rng, 120))
        assert out.dtype == np.float32
        assert broken(out, by, HOME) == []
