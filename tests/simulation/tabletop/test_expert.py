"""Experts solve what they are asked for, with either arm, in any manner, after being pushed about, and through chains."""

from __future__ import annotations

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.simulation.tabletop import SKILLS, Expert, TabletopEnv, Variation, sample_style
from ornstein.simulation.tabletop.arms import ARMS


def _solve(env: TabletopEnv, seed: int, noise: float = 0.0) -> bool:
    rng = np.random.default_rng([seed, 3])
    env.reset(seed=seed)
    expert, over, info = Expert(sample_style(rng)), False, {}
    while not over:
        action = expert.act(env)
        assert env.action_space.contains(action)
        if rng.random() < noise:
            action[:3] += rng.normal(0, 0.012, 3).astype(np.float32)
        _, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return bool(info["is_success"])


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("skill", SKILLS)
def test_each_skill_with_each_arm(skill: str, arm: str) -> None:
    env = TabletopEnv(cameras={}, variation=Variation((skill,), sizes=True), arm=arm)  # type: ignore[arg-type]
    assert sum(_solve(env, seed) for seed in range(6)) == 6


def test_recovers_from_pushes() -> None:
    env = TabletopEnv(cameras={})
    assert sum(_solve(env, seed, noise=0.2) for seed in range(16)) >= 15


def test_chains() -> None:
    env = TabletopEnv(cameras={}, variation=Variation(tasks=(3, 5)))
    assert sum(_solve(env, seed) for seed in range(5)) == 5


def test_before_reset_there_is_nothing_to_do() -> None:
    with pytest.raises(DataError, match="call reset"):
        Expert().act(TabletopEnv(cameras={}))
