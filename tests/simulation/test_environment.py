"""The tabletop, judged by its physics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ornstein.core.errors import DataError
from ornstein.simulation import PickExpert, PlacedBlock, Scene, TabletopEnv, generate_episode, sample_scene
from ornstein.simulation.environment import WORKSPACE_HIGH, WORKSPACE_LOW, _euler_angles, _euler_matrix

STILL = np.zeros(7, np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv()
    yield env
    env.close()


def _run(env: TabletopEnv, seed: int, steps: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    seen = [observation["pixels"]["front"], observation["agent_pos"]]
    for _ in range(steps):
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        observation, *_ = env.step(action)
        seen += [observation["pixels"]["front"], observation["agent_pos"], env.world.data.qpos.copy()]
    return seen


def test_same_seed_and_actions_give_the_same_bits_whatever_ran_before(env: TabletopEnv) -> None:
    first = _run(env, 3)
    _run(env, 8)
    other = TabletopEnv()
    for again in (_run(env, 3), _run(other, 3)):
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other.close()


def test_gymnasium_accepts_it() -> None:
    env = TabletopEnv(image_size=64)
    check_env(env, skip_render_check=True)
    env.close()


def test_contract_and_spaces_agree(env: TabletopEnv) -> None:
    np.testing.assert_allclose(env.action_space.low, env.contract.action_low, rtol=1e-6)
    np.testing.assert_allclose(env.action_space.high, env.contract.action_high, rtol=1e-6)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["agent_pos"].shape == (len(env.contract.state),)
    assert info["target"] in info["instruction"]


def test_the_expert_lifts_the_named_block_and_nothing_else(env: TabletopEnv) -> None:
    for seed in range(12):
        episode = generate_episode(env, PickExpert(), seed)
        assert episode.success
        heights = [env.world.height(k) for k in range(len(episode.scene.blocks))]
        assert heights[episode.scene.target] > 0.08
        assert max(h for k, h in enumerate(heights) if k != episode.scene.target) < 0.005
        assert env.world.touching_fingers(episode.scene.target) == {"left", "right"}


def test_the_expert_recovers_from_disturbances(env: TabletopEnv) -> None:
    assert sum(generate_episode(env, PickExpert(), seed, noise=0.5).success for seed in range(12)) >= 11


def _lift_another(env: TabletopEnv, seed: int) -> tuple[list[tuple[float, bool, bool, dict]], str]:
    """The expert picks the block after the target; what the environment said step by step, and that block's name."""
    judged = sample_scene(seed)
    wrong = Scene(judged.blocks, (judged.target + 1) % len(judged.blocks), judged.instruction)
    env.reset(options={"scene": judged})
    said = []
    while not said or not (said[-1][1] or said[-1][2]):
        env.scene = wrong
        action = PickExpert().act(env)
        env.scene = judged
        said.append(env.step(action)[1:])
    return said, wrong.blocks[wrong.target].name


def test_lifting_another_block_ends_the_episode_as_a_failure(env: TabletopEnv) -> None:
    """Else a policy that cannot read would succeed by lifting one block after the other."""
    for seed in (2, 3, 5):
        said, wrong = _lift_another(env, seed)
        reward, terminated, truncated, info = said[-1]
        assert terminated
        assert not truncated
        assert len(said) < env.max_steps
        assert (reward, info["is_success"], info["lifted"]) == (0.0, False, [wrong])
        assert not any(reward or info["is_success"] for reward, _, _, info in said)


def test_a_block_thrown_up_without_a_grip_is_no_success(env: TabletopEnv) -> None:
    env.reset(seed=1)
    start = env.world._block_qpos(env.scene.target)
    for _ in range(3):
        env.world.data.qpos[start + 2] = 0.3
        assert env.world.touching_fingers(env.scene.target) == frozenset()
        assert not env.step(STILL)[2]


def test_the_tool_goes_where_the_action_says(env: TabletopEnv) -> None:
    env.reset(seed=4)
    before, rotation = env.world.tool_position, env.world.tool_rotation
    for _ in range(2):
        env.step(np.array([0.03, -0.02, -0.01, 0, 0, 0.1, 0], np.float32))
    env.step(STILL)
    np.testing.assert_allclose(env.world.tool_position - before, [0.06, -0.04, -0.02], atol=0.004)
    turned = env.world.tool_rotation @ rotation.T
    np.testing.assert_allclose(_euler_angles(turned), [0, 0, 0.2], atol=0.03)


def test_the_state_says_how_the_tool_is_turned(env: TabletopEnv) -> None:
    """About the base's fixed axes, from pointing straight down."""
    env.reset(seed=4)
    for axis, angle in ((3, 0.2), (4, -0.2), (5, 0.4)):
        env.reset(seed=4)
        turn = STILL.copy()
        turn[2], turn[axis] = 0.02, angle / 2
        for _ in range(2):
            env.step(turn)
        observation, *_ = env.step(STILL)
        expected = np.zeros(3)
        expected[axis - 3] = angle
        np.testing.assert_allclose(observation["agent_pos"][3:6], expected, atol=0.03)


def test_the_gripper_opens_at_zero_and_closes_at_one(env: TabletopEnv) -> None:
    env.reset(seed=4)
    close = STILL.copy()
    close[6] = 1.0
    for _ in range(3):
        observation, *_ = env.step(close)
    assert observation["agent_pos"][6] > 0.95
    for _ in range(3):
        observation, *_ = env.step(STILL)
    assert observation["agent_pos"][6] < 0.05


def test_actions_out_of_bounds_are_clipped_and_counted_and_the_tool_stays_in_its_box(env: TabletopEnv) -> None:
    env.reset(seed=5)
    wild = np.array([9, -9, -9, 0, 0, 0, 0.5], np.float32)
    for k in range(1, 13):
        *_, info = env.step(wild)
        assert info["clipped"] == 3 * k
    assert (env.target_position >= WORKSPACE_LOW).all()
    assert (env.target_position <= WORKSPACE_HIGH).all()
    assert env.world.tool_position[2] > 0.0


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.full(7, np.inf), np.zeros(6), np.zeros((1, 7))])
def test_impossible_actions_are_refused(env: TabletopEnv, bad: np.ndarray) -> None:
    env.reset(seed=0)
    with pytest.raises(DataError, match="7 finite numbers"):
        env.step(bad)


def test_an_episode_without_success_is_cut_at_max_steps() -> None:
    env = TabletopEnv(image_size=64, max_steps=3)
    env.reset(seed=0)
    assert [env.step(STILL)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    env.close()


def test_nothing_leaks_over_a_reset(env: TabletopEnv) -> None:
    assert generate_episode(env, PickExpert(), 0).success
    env.step(np.full(7, 9, np.float32))
    env.reset(seed=1)
    for _ in range(2):
        *_, info = env.step(STILL)
        assert (info["is_success"], info["clipped"], info["lifted"]) == (False, 0, [])


def test_the_target_pixel_is_where_the_block_is_seen(env: TabletopEnv) -> None:
    """Paint the target red, everything else white: the red blob's centre is the projected centre, up to a pixel or two."""
    scene = Scene((PlacedBlock("key", 0.45, -0.10, 0.2), PlacedBlock("star", 0.60, 0.12, 0.0)), 1, "get the star")
    env.reset(options={"scene": scene})
    geom = env.world.model.geom("block1").id
    env.world.model.geom_matid[geom] = -1
    env.world.model.geom_rgba[geom] = (1, 0, 0, 1)
    picture = env.render().astype(int)
    env.world.model.geom_matid[geom] = env.world.model.material("block1").id
    red = np.argwhere((picture[..., 0] > 60) & (picture[..., 1] < 30) & (picture[..., 2] < 30))
    assert len(red) > 40
    row, column = red.mean(axis=0)
    expected = (env.target_pixel() + 1) / 2 * 128
    assert abs(column + 0.5 - expected[0]) < 2
    assert abs(row + 0.5 - expected[1]) < 3


def test_drawings_show_on_the_blocks(env: TabletopEnv) -> None:
    """The same scene with another drawing differs near its block and nowhere else."""
    blocks = (PlacedBlock("red heart", 0.5, 0.1, 0.0), PlacedBlock("star", 0.5, -0.1, 0.0))
    env.reset(options={"scene": Scene(blocks, 0, "x")})
    hearts = env.render().astype(int)
    env.reset(options={"scene": Scene((PlacedBlock("blue heart", 0.5, 0.1, 0.0), blocks[1]), 0, "x")})
    changed = np.argwhere(np.abs(env.render().astype(int) - hearts).max(-1) > 12)
    assert len(changed) > 30
    center = (env.target_pixel()[::-1] + 1) / 2 * 128
    assert np.abs(changed - center).max() < 14


def test_euler_angles_invert_and_follow_scipys_convention() -> None:
    from scipy.spatial.transform import Rotation

    for angles in np.random.default_rng(0).uniform(-1.4, 1.4, (50, 3)):
        np.testing.assert_allclose(_euler_matrix(angles), Rotation.from_euler("xyz", angles).as_matrix(), atol=1e-12)
        np.testing.assert_allclose(_euler_angles(_euler_matrix(angles)), angles, atol=1e-9)


def test_bad_options_are_refused(env: TabletopEnv) -> None:
    with pytest.raises(DataError, match="unknown|option"):
        env.reset(options={"sceen": None})
    with pytest.raises(DataError, match="from_json"):
        env.reset(options={"scene": sample_scene(0).to_json()})
    with pytest.raises(DataError, match="cameras"):
        TabletopEnv(cameras=("side",))
    with pytest.raises(DataError, match="probability"):
        generate_episode(env, PickExpert(), 0, noise=2.0)
