"""The expert and its recordings: from anywhere, and exactly what happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ornstein.simulation import PickExpert, TabletopEnv, generate_episode


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv(image_size=32)
    yield env
    env.close()


def _finish(env: TabletopEnv, steps: int = 40) -> bool:
    return any(env.step(PickExpert().act(env))[2] for _ in range(steps))


def test_it_remembers_nothing(env: TabletopEnv) -> None:
    """A new expert at every step does the same: what it does follows from the world."""
    recorded = generate_episode(env, PickExpert(), 5, noise=0.3)
    again = generate_episode(env, type("Fresh", (), {"act": lambda _, e: PickExpert().act(e)})(), 5, noise=0.3)
    assert np.array_equal(recorded.actions, again.actions)
    assert vars(PickExpert()) == {}


def test_it_succeeds_from_wherever_the_arm_was_left(env: TabletopEnv) -> None:
    won = 0
    for seed in range(12):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        for _ in range(5):
            action = rng.uniform(-1, 1, 7) * env.contract.action_high
            action[3:5] = 0.0
            env.step(action)
        won += _finish(env)
    assert won >= 11


def test_it_puts_the_wrong_block_down_and_takes_the_right_one(env: TabletopEnv) -> None:
    won = 0
    for seed in range(8):
        env.reset(seed=seed)
        scene = env.scene
        env.scene = replace(scene, target=(scene.target + 1) % len(scene.blocks))
        for _ in range(8):
            env.step(PickExpert().act(env))
        assert env.world.closing > 0.1
        env.scene = scene
        won += _finish(env)
    assert won >= 7


def test_its_actions_are_within_bounds(env: TabletopEnv) -> None:
    low, high = env.action_space.low, env.action_space.high
    for seed in range(4):
        actions = generate_episode(env, PickExpert(), seed, noise=0.5).actions
        assert (actions >= low).all()
        assert (actions <= high).all()
        assert not actions[:, 3:5].any()


def test_a_recording_holds_what_happened(env: TabletopEnv) -> None:
    """Played back, the recorded actions lead through the recorded states and pictures: nothing is shifted by a step."""
    episode = generate_episode(env, PickExpert(), 7)
    observation, info = env.reset(seed=7)
    assert info["instruction"] == episode.instruction
    for t, action in enumerate(episode.actions):
        assert np.array_equal(observation["agent_pos"], episode.states[t])
        assert np.array_equal(observation["pixels"]["front"], episode.frames["front"][t])
        assert np.array_equal(env.target_pixel(), episode.target_pixels[t])
        observation, _, success, *_ = env.step(action)
    assert success
    assert episode.success


def test_labels_stay_clean_while_the_executed_action_is_disturbed(env: TabletopEnv) -> None:
    """The label of a state is what the expert says there; the arm went elsewhere."""
    clean, disturbed = (generate_episode(env, PickExpert(), 7, noise=noise) for noise in (0.0, 1.0))
    assert np.array_equal(clean.actions[0], disturbed.actions[0])
    assert np.array_equal(clean.states[0], disturbed.states[0])
    moved = np.linalg.norm(disturbed.states[1][:3] - clean.states[1][:3])
    assert 0.002 < moved < 0.06
    # Towards the block, without the jitter's scatter: a clean hover move is straight and at full speed.
    assert np.abs(disturbed.actions[:2, :2]).max(axis=1) == pytest.approx([0.04, 0.04], abs=1e-6)


def test_disturbances_turn_the_tool_over_the_table_only(env: TabletopEnv) -> None:
    disturbed = generate_episode(env, PickExpert(), 7, noise=1.0)
    assert np.abs(disturbed.states[:, 3:5]).max() < 0.06  # the servos lag a little
    clean = generate_episode(env, PickExpert(), 7)
    assert np.abs(np.diff(disturbed.states[:4, 5]) - np.diff(clean.states[:4, 5])).max() > 0.02


def test_a_recording_depends_on_its_seed_alone(env: TabletopEnv) -> None:
    first = generate_episode(env, PickExpert(), 9, noise=0.3)
    generate_episode(env, PickExpert(), 10, noise=0.3)
    again = generate_episode(env, PickExpert(), 9, noise=0.3)
    other = generate_episode(env, PickExpert(), 10, noise=0.3)
    assert np.array_equal(first.actions, again.actions)
    assert np.array_equal(first.frames["front"], again.frames["front"])
    assert not np.array_equal(first.states[0:5], other.states[0:5])
