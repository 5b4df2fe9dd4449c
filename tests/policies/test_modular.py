"""The classical pipeline: what it is told fits the simulation, it solves each skill, looks again, and says what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ornstein
from ornstein.core.errors import CheckpointError, DataError
from ornstein.evaluation.trials import PolicyPlayer, try_scene, world_for
from ornstein.hub import BUNDLED
from ornstein.policies import ModularPolicy, TabletopFacts
from ornstein.simulation.tabletop import SKILLS, SUITES, Block, Scene, TabletopEnv, Task, sample_scene, suite
from ornstein.simulation.tabletop import model as tabletop
from ornstein.simulation.tabletop.arms import ARM7
from ornstein.simulation.tabletop.scene import AREA_HIGH, AREA_LOW, CABINET_Y
from ornstein.simulation.tabletop.success import NEAR_GAP, PUSH_DISTANCE

VALIDATION = 2_000_000


@pytest.fixture(scope="module")
def policy() -> ModularPolicy:
    return ornstein.load("modular-tabletop", expect="modular")


@pytest.fixture(scope="module")
def env(policy: ModularPolicy) -> Iterator[TabletopEnv]:
    env = world_for(policy.contract, SUITES["all"])
    yield env
    env.close()


def test_what_it_is_told_is_so() -> None:
    facts = TabletopFacts()
    assert facts.block == 2 * tabletop.BLOCK_HALF
    assert facts.travel == ARM7.gripper.travel
    assert facts.bowl == (tabletop.BOWL_INNER, tabletop.BOWL_HEIGHT)
    assert facts.drawer == tabletop.DRAWER_TRAVEL
    assert facts.handle == pytest.approx((CABINET_Y - tabletop.HANDLE_REACH, tabletop.HANDLE_Z, tabletop.HANDLE_TOP))
    assert facts.cabinet == tabletop.CABINET_HALF[0]
    assert facts.area == (*AREA_LOW, *AREA_HIGH)
    assert facts.push > PUSH_DISTANCE
    assert facts.near < NEAR_GAP


def test_it_sees_what_is_there(policy: ModularPolicy, env: TabletopEnv) -> None:
    """Every block of ten scenes by name, within seven millimetres."""
    for seed in range(VALIDATION, VALIDATION + 10):
        observation, _ = env.reset(seed=seed)
        assert env.scene is not None
        table = policy.look(observation["pixels"]["front"])
        for block in env.scene.blocks:
            number = table.most_like("block", block.name)
            assert number is not None
            assert np.hypot(*(table.places[number] - (block.x, block.y))) < 7e-3
        assert len(table.of("bowl")) == (env.scene.bowl is not None)
        assert len(table.of("handle")) == (env.scene.cabinet is not None)


@pytest.mark.parametrize("skill", SKILLS)
def test_it_solves_each_skill(policy: ModularPolicy, skill: str) -> None:
    env = world_for(policy.contract, suite(skill.replace("_", "-")))
    trials = [try_scene(PolicyPlayer(policy), env, seed) for seed in range(VALIDATION, VALIDATION + 3)]
    env.close()
    assert [trial.success for trial in trials] == [True] * 3


def test_it_does_one_thing_after_the_other(policy: ModularPolicy) -> None:
    env = world_for(policy.contract, suite("chains"))
    trials = [try_scene(PolicyPlayer(policy), env, seed) for seed in range(VALIDATION, VALIDATION + 4)]
    env.close()
    assert sum(trial.success for trial in trials) >= 3


def test_it_says_why_it_stands_still(policy: ModularPolicy, env: TabletopEnv) -> None:
    scene = Scene((Block("panda", 0.5, 0.0),), (Task("pick", 0),), "pick up the panda")
    for sentence, trouble in (
        ("dance", "nothing is known that 'dance'"),
        ("put the panda in the bowl", "I do not see a bowl"),
        ("pick up the banana", "I do not see a block that shows 'banana'"),
        ("put the panda on top of the banana", "I do not see another block that shows 'banana'"),
        ("", ""),
    ):
        observation, _ = env.reset(options={"scene": scene})
        policy.reset()
        for _ in range(12):
            action = policy.act({**observation, "instruction": sentence})  # type: ignore[typeddict-item]
            assert env.action_space.contains(action)
            observation, *_ = env.step(action)
        assert trouble in policy.trouble
        np.testing.assert_allclose(env.world.tool_position, [0.45, 0, 0.2], atol=2e-3)


def test_actions_repeat_after_a_reset(policy: ModularPolicy, env: TabletopEnv) -> None:
    def acts() -> list[np.ndarray]:
        observation, _ = env.reset(options={"scene": sample_scene(VALIDATION)})
        policy.reset()
        taken = []
        for _ in range(10):
            taken.append(policy.act(observation))  # type: ignore[arg-type]
            observation, *_ = env.step(taken[-1])
        return taken

    for a, b in zip(acts(), acts(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_does_not_fit_is_refused(policy: ModularPolicy, env: TabletopEnv, tmp_path: Path) -> None:
    observation, _ = env.reset(seed=0)
    for changed, message in (
        ({"pixels": {}}, "lacks camera 'front'"),
        ({"pixels": {"front": np.zeros((64, 64, 3), np.uint8)}}, "must give uint8"),
        ({"agent_pos": np.full(7, np.nan, np.float32)}, "finite numbers"),
        ({"instruction": 3}, "must be a sentence"),
    ):
        wrong: Any = {**observation, **changed}
        with pytest.raises(DataError, match=message):
            policy.act(wrong)
    with pytest.raises(DataError, match="see one camera"):
        ModularPolicy(policy.network, replace(policy.contract, cameras=()), policy._camera, policy._kinds, policy._names)
    with pytest.raises(DataError, match="know 4 kinds"):
        ModularPolicy(policy.network, policy.contract, policy._camera, policy._kinds[:2], policy._names)
    with pytest.raises(CheckpointError):
        ModularPolicy.from_checkpoint(ornstein.hub.find_checkpoint(BUNDLED / "emoji-classifier"))


def test_a_look_that_failed_is_looked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The episode begins anew at the next step, and not at an end that nobody asked for."""
    import ornstein

    policy = ornstein.load("modular-tabletop")
    env = TabletopEnv(cameras={"front": 128})
    try:
        observation, _ = env.reset(seed=3)
        expected = policy.act(observation)
        policy.reset()
        look = policy.look

        def fails(picture: object) -> object:
            monkeypatch.setattr(policy, "look", look)
            raise MemoryError

        monkeypatch.setattr(policy, "look", fails)
        with pytest.raises(MemoryError):
            policy.act(observation)
        np.testing.assert_array_equal(policy.act(observation), expected)
    finally:
        env.close()
