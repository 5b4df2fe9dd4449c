"""The arm and the blocks: limits, tracking, friction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ornstein.simulation import PickExpert, PlacedBlock, Scene, TabletopEnv, sample_scene
from ornstein.simulation.controller import JOINTS, MAX_JOINT_SPEED
from ornstein.simulation.environment import _euler_angles
from ornstein.simulation.model import BLOCK_HALF

STILL = np.zeros(7, np.float32)
# In a corner, so that the rest of the table is free.
ALONE = Scene((PlacedBlock("key", 0.40, 0.16, 0.0),), 0, "get the key")


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv(image_size=16)
    yield env
    env.close()


def _lowest_corner_of_the_fingers(env: TabletopEnv) -> float:
    model, data = env.world.model, env.world.data
    lowest = np.inf
    for geom in range(model.ngeom):
        if int(model.geom_bodyid[geom]) in env.world._fingers and model.geom_contype[geom]:
            reach = np.abs(data.geom_xmat[geom].reshape(3, 3)[2]) @ model.geom_size[geom]
            lowest = min(lowest, float(data.geom_xpos[geom][2] - reach))
    return lowest


def test_blocks_start_where_the_scene_says_and_stay_there(env: TabletopEnv) -> None:
    for seed in range(4):
        env.reset(seed=seed)
        for _ in range(5):
            env.step(STILL)
        for slot, block in enumerate(env.scene.blocks):
            np.testing.assert_allclose(env.world.block_position(slot), [block.x, block.y, BLOCK_HALF], atol=2e-4)
            assert abs(env.world.block_yaw(slot) - block.yaw) < 2e-3
            assert abs(env.world.height(slot)) < 2e-4


def test_unused_blocks_are_out_of_sight() -> None:
    env = TabletopEnv(image_size=64)
    env.reset(options={"scene": ALONE})
    first = env.render()
    env.reset(seed=3)
    env.reset(options={"scene": ALONE})
    assert np.array_equal(env.render(), first)
    hidden = [env.world.model.geom(f"block{slot}").id for slot in range(1, 5)]
    env.world.model.geom_rgba[hidden, 3] = 0.0
    assert np.array_equal(env.render(), first)
    env.close()


def test_joint_targets_keep_to_the_published_speed(env: TabletopEnv) -> None:
    rng = np.random.default_rng(0)
    limits, servo = env.world.model.jnt_range[:JOINTS], env.world.data
    fastest = np.zeros(JOINTS)
    for seed in range(4):
        env.reset(seed=seed)
        for step in range(25):
            if step % 5 == 0:  # for a while in one direction, tilted little enough to be allowed
                action = rng.choice([-1, 1], 7) * env.contract.action_high * [1, 1, 1, 0.3, 0.3, 1, 1]
            start = servo.ctrl[:JOINTS].copy()
            env.step(action)
            fastest = np.maximum(fastest, np.abs(servo.ctrl[:JOINTS] - start) / 0.16)
            assert (servo.ctrl[:JOINTS] >= limits[:, 0] - 1e-9).all()
            assert (servo.ctrl[:JOINTS] <= limits[:, 1] + 1e-9).all()
    assert (fastest <= MAX_JOINT_SPEED + 1e-9).all()
    assert (fastest / MAX_JOINT_SPEED).max() > 0.99, "the limit was never reached: the test has no force"


def test_a_target_that_was_too_fast_is_reached_in_later_steps(env: TabletopEnv) -> None:
    env.reset(options={"scene": ALONE})
    before = env.world.tool_position
    for _ in range(3):
        env.step(np.array([0.04, 0.04, 0.0, 0, 0, 0.25, 0], np.float32))
    for _ in range(3):
        env.step(STILL)
    np.testing.assert_allclose(env.world.tool_position - before, [0.12, 0.12, 0.0], atol=0.004)


def test_the_heading_neither_winds_up_nor_meets_the_wrists_stop(env: TabletopEnv) -> None:
    env.reset(options={"scene": ALONE})
    turn = STILL.copy()
    for direction in (0.25, -0.25):
        turn[5] = direction
        for _ in range(14):
            env.step(turn)
        turned = _euler_angles(env.target_rotation @ env._home_rotation.T)[2]
        assert 1.0 < np.sign(direction) * turned < 1.35
        assert np.abs(env.target_rotation - env.world.tool_rotation).max() < 0.05
    turn[5] = 0.25
    env.step(turn)  # the first step back is felt at once
    assert _euler_angles(env.target_rotation @ env._home_rotation.T)[2] == pytest.approx(turned + 0.25, abs=1e-6)


@pytest.mark.parametrize(("roll", "pitch"), [(0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.15, -0.15)])
def test_a_tilted_gripper_stays_above_the_table(env: TabletopEnv, roll: float, pitch: float) -> None:
    env.reset(options={"scene": ALONE})
    for k in range(16):
        tilt = (roll, pitch) if k < 4 else (0.0, 0.0)
        env.step(np.array([0.0, -0.02, -0.04, *tilt, 0.0, 0.0], np.float32))
        assert _lowest_corner_of_the_fingers(env) > -0.0015
    tilt_cosine = env.target_rotation[:, 2] @ env._home_rotation[:, 2]
    assert 0.15 < np.arccos(tilt_cosine) <= 0.35


def test_an_upright_gripper_reaches_the_lowest_allowed_height(env: TabletopEnv) -> None:
    env.reset(options={"scene": ALONE})
    for _ in range(12):
        env.step(np.array([0.0, 0.0, -0.04, 0, 0, 0, 0], np.float32))
    assert env.target_position[2] == 0.014
    assert 0.005 < _lowest_corner_of_the_fingers(env) < 0.02


def test_a_grasped_block_does_not_slip_when_it_is_waved(env: TabletopEnv) -> None:
    rng = np.random.default_rng(1)
    for seed in range(3):
        env.reset(seed=seed)
        expert, done = PickExpert(), False
        while not done:
            _, _, success, cut, _ = env.step(expert.act(env))
            done = success or cut
        slot, world = env.scene.target, env.world
        in_hand = world.tool_rotation.T @ (world.block_position(slot) - world.tool_position)
        for _ in range(12):
            action = rng.uniform(-1, 1, 7) * env.contract.action_high
            action[6] = 1.0
            env.step(action)
        now = world.tool_rotation.T @ (world.block_position(slot) - world.tool_position)
        assert world.touching_fingers(slot) == {"left", "right"}
        assert np.linalg.norm(now - in_hand) < 0.008


def test_success_needs_height_both_fingers_two_steps_and_the_others_down(env: TabletopEnv) -> None:
    """One lift, and then each of the conditions taken away."""
    env.reset(options={"scene": sample_scene(0)})
    expert, slot, rewards = PickExpert(), env.scene.target, []
    bystander = next(k for k in range(len(env.scene.blocks)) if k != slot)
    while not rewards or not rewards[-1]:
        rewards.append(env.step(expert.act(env))[1])
        if env.world.height(slot) < 0.08:
            assert rewards[-1] == 0.0
    assert env.world.height(slot) > 0.08
    hold = STILL.copy()
    hold[6] = 1.0
    assert [env.step(hold)[4]["is_success"] for _ in range(2)] == [True, True]
    position = env.world.block_position(bystander)
    start = env.world._block_qpos(bystander)
    env.world.data.qpos[start + 2] = 0.3  # something else in the air
    *_, info = env.step(hold)
    falling = env.world.height(bystander)
    assert info["is_success"] == (falling < 0.02)
    env.world.data.qpos[start : start + 3] = position
    env.world.data.qvel[:] = 0
    assert [env.step(hold)[4]["is_success"] for _ in range(2)] == [False, True]  # two steps, counted afresh
