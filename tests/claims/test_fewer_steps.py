"""How D5 judges; its verdict is for `ornstein claims D5` to give."""

from __future__ import annotations

import numpy as np
import pytest

from ornstein.claims.fewer_steps import judge_parts, spread_change
from ornstein.images import Estimate, Features

WORSE, EQUAL, OPEN = Estimate(0.5, 0.05), Estimate(0.01, 0.01), Estimate(0.04, 0.05)


def _judged(ddim: Estimate, few: Estimate, ddpm: Estimate, spread: Estimate, law: float) -> list[str]:
    changes = {("DDIM", 50): ddim, ("DDIM", 10): WORSE, ("2M", 20): few, ("DDPM", 50): ddpm, ("DDPM", 1000): Estimate(0.0, 0.0)}
    return list(judge_parts(1.0, changes, spread, {"η = 0": law, "η = 1": 0.01}, 0.02).values())


def test_each_statement_is_judged_by_its_interval() -> None:
    """Near is within 0.05 of a distance of 1."""
    assert _judged(EQUAL, EQUAL, WORSE, Estimate(-0.3, 0.1), 0.01) == ["supported"] * 5
    assert _judged(WORSE, WORSE, Estimate(-0.5, 0.1), Estimate(0.3, 0.1), 0.03) == ["refuted"] * 5
    assert _judged(OPEN, OPEN, OPEN, Estimate(0.0, 0.1), 0.01)[:4] == ["cannot tell"] * 4


def test_spread_is_the_mean_distance_of_pairs_and_its_error_covers() -> None:
    """Points scaled by 1.1 are a tenth farther apart; over many draws the interval holds the true change nineteen times in twenty."""

    def features(values: np.ndarray) -> Features:
        return Features(values, "x", "y", "z")

    covered, values = [], []
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.normal(size=(60, 3))
        change = spread_change(features(points), features(1.1 * points))
        pairs = [np.linalg.norm(points[i] - points[j]) for i in range(60) for j in range(i)]
        assert change.value == pytest.approx(0.1 * np.mean(pairs), rel=1e-6)
        values.append(change)
    truth = np.mean([change.value for change in values])
    covered = [change.interval[0] <= truth <= change.interval[1] for change in values]
    assert 0.9 <= np.mean(covered) <= 0.99
