"""A million actions that mean no good, through shields of many limits: how many violations of the law, and what does a step cost?

.venv/bin/python benchmarks/shield.py      # writes benchmarks/results/shield.json
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from record import RESULTS, write

from ornstein.core.progress import track
from ornstein.safety import Box, Shield, ShieldLimits, violations
from ornstein.simulation.tabletop import contract

ACTIONS, SEQUENCE = 1_000_000, 250
SEED = 0
BODY = contract({})
ROOM = Box((0.31, -0.24, 0.012), (0.74, 0.24, 0.32))
POST = Box((0.5, -0.02, 0.0), (0.53, 0.02, 0.2))
HOME = (0.45, 0.0, 0.2)
JUNK: tuple[Any, ...] = (
    None,
    "left",
    [1, 2],
    np.zeros(8),
    np.zeros((7, 1)),
    np.zeros(7, complex),
    np.zeros(7, object),
    {},
    b"1234567",
)


def main() -> None:
    """Sequences of each kind through a fresh shield of random limits; the first tenth of time is that of the arm's own bounds and workspace."""
    rng = np.random.default_rng(SEED)
    broken, interfered, plain, all_times = 0, 0, list[float](), list[float]()
    for k in track(range(ACTIONS // SEQUENCE), ACTIONS // SEQUENCE, "sequences"):
        usual = k % 10 == 0
        limits = ShieldLimits.of(BODY) if usual else ShieldLimits.of(BODY, rate=rng.uniform(0.02, 1), jerk=rng.uniform(0.01, 2))
        limits = limits.within(ROOM) if usual else limits.within(ROOM, POST)
        shield, place, out = Shield(limits), np.array(HOME), []
        for action in _sequence(rng, plausible=usual):
            began = time.perf_counter()
            found = shield.guard(action, tool=place)
            (plain if usual else all_times).append(time.perf_counter() - began)
            out.append(found.action)
            interfered += bool(found.reasons)
            place = place + found.action[:3].astype(np.float64)
        broken += bool(violations(np.stack(out), limits, HOME))
    times = 1e6 * np.array(plain)
    write(
        RESULTS / "shield.json",
        {
            "actions": ACTIONS,
            "seed": SEED,
            "sequences_that_broke_the_law": broken,
            "actions_that_were_changed": interfered,
            "microseconds_a_step": {"median": float(np.median(times)), "p99": float(np.percentile(times, 99))},
            "microseconds_a_step_of_tight_limits": {
                "median": 1e6 * float(np.median(all_times)),
                "p99": 1e6 * float(np.percentile(all_times, 99)),
            },
        },
    )


def _sequence(rng: np.random.Generator, *, plausible: bool) -> list[Any]:
    low, high = BODY.action_low, BODY.action_high
    kind = 0 if plausible else int(rng.integers(6))
    actions: list[Any] = list(rng.uniform(low, high, (SEQUENCE, 7)).astype(np.float32))
    if kind == 1:
        actions = list(rng.normal(size=(SEQUENCE, 7)) * 10.0 ** rng.integers(-320, 300, (SEQUENCE, 1)))
    elif kind == 2:
        actions = [high if k % 2 else low for k in range(SEQUENCE)]
    elif kind == 3:
        actions = [np.where(rng.random(7) < 0.5, low, high)] * SEQUENCE
    elif kind == 4:
        actions = [JUNK[int(rng.integers(len(JUNK)))] if rng.random() < 0.5 else one for one in actions]
    elif kind == 5:
        for one in actions:
            one[int(rng.integers(7))] = rng.choice([np.nan, np.inf, -np.inf, 5e-324, 3e38])
    return actions


if __name__ == "__main__":
    main()
