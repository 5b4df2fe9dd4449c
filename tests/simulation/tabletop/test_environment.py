"""The environment: gymnasium's rules, bits that repeat, actions within bounds, both arms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ornstein.core.errors import OrnsteinError
from ornstein.simulation.tabletop import Expert, Look, Scene, TabletopEnv, Task, Variation, contract, sample_scene
from ornstein.simulation.tabletop.arms import ARMS
from ornstein.simulation.tabletop.environment import WORKSPACE_HIGH, WORKSPACE_LOW, euler_angles, euler_matrix
from ornstein.simulation.tabletop.model import DRAWER_TRAVEL, FRONT_FOVY
from ornstein.simulation.tabletop.placing import free_place
from ornstein.simulation.tabletop.scene import Block, Bowl, Cabinet
from ornstein.simulation.tabletop.world import project

STILL = np.zeros(7, np.float32)
SMALL = {"front": 64, "wrist": 32}


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv(cameras=SMALL)
    yield env
    env.close()


def _run(env: TabletopEnv, seed: int, steps: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    seen = []
    for _ in range(steps):
        seen += [*observation["pixels"].values(), observation["agent_pos"], env.world.data.qpos.copy()]
        observation, *_ = env.step(rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32))
    return seen


def test_same_seed_and_actions_give_the_same_bits_whatever_ran_before(env: TabletopEnv) -> None:
    first = _run(env, 3)
    for seed in (8, 11, 12):
        _run(env, seed)
    other = TabletopEnv(cameras=SMALL)
    for again in (_run(env, 3), _run(other, 3)):
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other.close()


@pytest.mark.parametrize("arm", ARMS)
def test_gymnasium_accepts_it(arm: str) -> None:
    env = gymnasium.make("ornstein/Tabletop-v0", cameras=SMALL, arm=arm)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_gymnasium_vectorises_it() -> None:
    vector = gymnasium.make_vec("ornstein/Tabletop-v0", num_envs=2, vectorization_mode="sync", cameras={})
    observation, info = vector.reset(seed=[3, 4])
    assert observation["agent_pos"].shape == (2, 7)
    assert list(info["instruction"]) == [sample_scene(3).instruction, sample_scene(4).instruction]
    vector.close()


@pytest.mark.parametrize("arm", ARMS)
def test_contract_and_spaces_agree(arm: str) -> None:
    env = TabletopEnv(cameras=SMALL, arm=arm)  # type: ignore[arg-type]
    np.testing.assert_allclose(env.action_space.low, env.contract.action_low, rtol=1e-6)
    np.testing.assert_allclose(env.action_space.high, env.contract.action_high, rtol=1e-6)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert {c.name: c.height for c in env.contract.cameras} == {n: p.shape[0] for n, p in observation["pixels"].items()}
    assert "robot" in contract(arm="arm7").differences(contract(arm="arm6"))[0]
    env.close()


@pytest.mark.parametrize("arm", ARMS)
def test_the_tool_goes_where_it_is_told(arm: str) -> None:
    """To all corners of the workspace within two millimetres, whatever the arm."""
    env = TabletopEnv(cameras={}, arm=arm)  # type: ignore[arg-type]
    env.reset(options={"scene": Scene((), (Task("open_drawer"),), "open the drawer", cabinet=Cabinet(0.43))})
    start = env.reset(seed=1)[0]["agent_pos"]
    np.testing.assert_allclose(start, [0.45, 0, 0.2, 0, 0, 0, 0], atol=1e-3)
    empty = Scene((), (Task("close_drawer"),), "close the drawer", cabinet=Cabinet(0.47, opening=0.08))
    ranges = zip(WORKSPACE_LOW + (0.03, 0.02, 0.12), WORKSPACE_HIGH - 0.02, strict=True)  # noqa: RUF005  (arrays add)
    for corner in itertools.product(*ranges):
        env.reset(options={"scene": empty})
        for _ in range(40):
            gap = np.array(corner) - env.target_position
            env.step(np.array([*np.clip(gap, -0.03, 0.03), 0, 0, 0, 0], np.float32))
        np.testing.assert_allclose(env.world.tool_position, corner, atol=2e-3)
    env.close()


def test_out_of_bounds_is_clipped_and_counted_and_the_target_stays_in_its_box(env: TabletopEnv) -> None:
    env.reset(seed=0)
    for _ in range(40):
        *_, info = env.step(np.array([1, 1, -1, 0, 0, 0, 2], np.float32))
    assert info["clipped"] == 160
    assert (env.target_position >= WORKSPACE_LOW - 1e-9).all()
    assert (env.target_position <= WORKSPACE_HIGH + 1e-9).all()
    for channel, most in ((5, 1.36), (3, 0.36)):
        env.reset(seed=0)
        turn = np.zeros(7, np.float32)
        turn[2], turn[channel] = 0.03, 0.11
        for _ in range(30):
            observation, *_ = env.step(turn)
        assert most - 0.13 < observation["agent_pos"][channel] < most


def test_what_cannot_be_is_refused(env: TabletopEnv) -> None:
    fresh = TabletopEnv(cameras={})
    with pytest.raises(OrnsteinError, match="call reset"):
        fresh.step(STILL)
    env.reset(seed=0)
    for action in (np.full(7, np.nan), np.zeros(6)):
        with pytest.raises(OrnsteinError, match="7 finite numbers"):
            env.step(action)
    for options in ({"weather": 1}, {"scene": {"blocks": []}}):
        with pytest.raises(OrnsteinError, match="reset knows|is a Scene"):
            env.reset(options=options)
    for wrong in (
        {"arm": "arm9"},
        {"cameras": {"side": 64}},
        {"cameras": {"front": 4}},
        {"max_steps": 0},
        {"render_mode": "ascii"},
    ):
        with pytest.raises(OrnsteinError):
            TabletopEnv(**wrong)  # type: ignore[arg-type]


def test_a_window_without_a_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    env = TabletopEnv(cameras={}, render_mode="human")
    with pytest.raises(OrnsteinError, match="no display"):
        env.reset(seed=0)


def test_euler_angles_invert() -> None:
    for angles in np.random.default_rng(0).uniform(-1.2, 1.2, (50, 3)):
        np.testing.assert_allclose(euler_angles(euler_matrix(angles)), angles, atol=1e-12)


def test_faces_are_upright_and_looks_show() -> None:
    """The front camera sees a drawing as OpenMoji draws it, a digit as it is read; darker light is darker; a shifted camera sees it elsewhere."""
    from ornstein.assets import openmoji
    from ornstein.simulation.tabletop.painting import mat_texture
    from ornstein.simulation.tabletop.scene import Mat

    env = TabletopEnv(cameras={"front": 512})
    scene = Scene(
        (Block("red apple", 0.53, 0.0),), (Task("pick", 0),), "pick up the red apple", mats=(Mat("number", "4", 0.53, 0.12),)
    )
    picture = env.reset(options={"scene": scene})[0]["pixels"]["front"].astype(float)
    size = 60
    apple = np.asarray(openmoji.drawing("red apple", size), dtype=float)
    apple = apple[..., :3] * apple[..., 3:] / 255 + 250 * (1 - apple[..., 3:] / 255)
    digit = np.rot90(mat_texture("number", "4"), -1)[::2, ::2].astype(float)
    for sheet, (column, row) in ((apple, (256, 222)), (digit, (412, 258))):
        patch = picture[row - 28 : row + 28, column - 32 : column + 32].mean(-1)
        scores = []
        for turn in range(4):
            turned = np.rot90(sheet.mean(-1), turn)
            ys, xs = (np.linspace(0, len(turned) - 1, n).astype(int) for n in patch.shape)
            scores.append(np.corrcoef(turned[np.ix_(ys, xs)].ravel(), patch.ravel())[0, 1])
        assert int(np.argmax(scores)) == 0, scores
    for look, change in ((Look(brightness=0.5), -40), (Look(brightness=1.4), 5)):
        other = env.reset(options={"scene": Scene(scene.blocks, scene.tasks, "", look=look)})[0]["pixels"]["front"]
        assert (other.mean() - picture.mean()) * np.sign(change) > abs(change)
    env.close()


def test_a_turned_camera_sees_things_elsewhere_by_its_angle(env: TabletopEnv) -> None:
    """What stands where it usually looks moves by tan θ, in units of half the picture by the tangent of half its angle."""
    centre = Scene((Block("red apple", 0.53, 0.0),), (Task("pick", 0),), "", look=Look())
    for turn in (0.03, -0.05):
        seen = []
        for look in (Look(), Look(camera_turn=(0.0, turn))):
            env.reset(options={"scene": replace(centre, look=look)})
            seen.append(float(env.pointers()[0][0]))
        expected = -np.tan(turn) / np.tan(np.radians(FRONT_FOVY) / 2)
        assert seen[1] - seen[0] == pytest.approx(expected, rel=0.04)


def test_an_expert_succeeds_and_a_still_hand_does_not(env: TabletopEnv) -> None:
    for skill in ("pick", "close_drawer"):
        world = TabletopEnv(cameras={}, variation=Variation((skill,)), max_steps=60)  # type: ignore[arg-type]
        world.reset(seed=5)
        over = False
        while not over:
            _, _, terminated, over, info = world.step(STILL)
            over = over or terminated
        assert not info["is_success"]
        world.reset(seed=5)
        expert, over = Expert(), False
        while not over:
            _, reward, terminated, truncated, info = world.step(expert.act(world))
            over = terminated or truncated
        assert info["is_success"]
        assert reward == 1.0


def test_pointers_say_what_is_moved_and_where_to(env: TabletopEnv) -> None:
    """Against the scene's own places, projected; and while a block is pushed, its goal stays ahead of it."""
    scene = Scene(
        (Block("red apple", 0.50, -0.05), Block("rocket", 0.60, 0.1, 0.3)),
        (Task("push", 0, direction="right"),),
        "push the red apple right",
        bowl=Bowl(0.62, -0.12),
    )
    env.reset(options={"scene": scene})
    target, goal = env.pointers()
    places = env.world.moment().positions
    np.testing.assert_allclose(target, project(env.world, "front", places[0]), atol=1e-6)
    np.testing.assert_allclose(goal, project(env.world, "front", places[0] + [0.0, 0.07, 0.0]), atol=1e-6)
    for task, point in (
        (Task("pick", 0), places[0]),
        (Task("stack", 0, 1), places[1]),
        (Task("place_in_bowl", 0), np.array([0.62, -0.12, 0.0])),
    ):
        moved, goal_of_task = env.pointers_of(task)
        np.testing.assert_allclose(moved, target, atol=1e-6)
        np.testing.assert_allclose(goal_of_task, project(env.world, "front", point), atol=1e-6)
    np.testing.assert_allclose(env.heading_of(Task("pick", 1)), [np.sin(4 * 0.3), np.cos(4 * 0.3)], atol=0.02)
    assert not env.heading_of(Task("open_drawer")).any()
    expert = Expert()
    for _ in range(20):
        env.step(expert.act(env))
    moved, ahead = env.pointers()
    pushed = env.world.moment().positions[0]
    np.testing.assert_allclose(ahead, project(env.world, "front", pushed + np.array([0.0, 0.07, 0.0])), atol=1e-6)
    assert moved[0] > target[0] + 0.05


@pytest.mark.parametrize("in_the_way", [False, True])
def test_what_goes_near_another_is_told_where_it_will_stand(env: TabletopEnv, in_the_way: bool) -> None:
    """On the arm's side if that is free, and otherwise aside; the same place all the while, where the expert then puts it."""
    blocks = (Block("red apple", 0.45, -0.1), Block("rocket", 0.55, 0.1), Block("lion", 0.452, 0.1))
    scene = Scene(blocks[: 3 if in_the_way else 2], (Task("move_near", 0, 1),), "move the red apple near the rocket")
    env.reset(options={"scene": scene})
    task, places = scene.tasks[0], env.world.moment().positions
    x, y = free_place(scene, env.world.moment(), 0, 1)
    goal = env.pointers()[1]
    np.testing.assert_allclose(goal, project(env.world, "front", np.array([x, y, scene.block_size / 2])), atol=1e-6)
    straight = places[1][:2] - (scene.block_size + 0.75 * 0.045, 0.0)
    if in_the_way:
        assert np.linalg.norm(straight - places[2][:2]) < scene.block_size
        assert np.linalg.norm((x, y) - places[2][:2]) > scene.block_size + 0.02
    else:
        np.testing.assert_allclose((x, y), straight, atol=1e-9)
    expert, over, info = Expert(), False, {}
    while not over:
        *_, terminated, truncated, info = env.step(expert.act(env))
        over = terminated or truncated
        assert np.linalg.norm(env.pointers_of(task)[1] - goal) < 0.06
    assert info["is_success"]
    assert np.linalg.norm(env.world.moment().positions[0][:2] - (x, y)) < 0.015


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_drawers_goal_is_where_its_handle_comes_to(env: TabletopEnv, side: Literal["left", "right"]) -> None:
    """Told before the expert opens it, against where the handle then is."""
    scene = Scene((), (Task("open_drawer"),), "open the drawer", cabinet=Cabinet(0.45, side))
    env.reset(options={"scene": scene})
    closed, goal = env.pointers()
    wide = env.world.handle_position(DRAWER_TRAVEL)
    np.testing.assert_allclose(goal, project(env.world, "front", wide), atol=1e-6)
    assert abs(float(goal[0] - closed[0])) > 0.1
    expert, over, reached = Expert(), False, closed
    while not over:
        told = env.world.handle_position(env.world.moment().drawer)
        np.testing.assert_allclose(told, env.world.handle_position(), atol=1e-9)
        *_, terminated, truncated, _info = env.step(expert.act(env))
        over, reached = terminated or truncated, env.pointers()[0]
    assert np.linalg.norm(reached - goal) < 0.3 * np.linalg.norm(closed - goal)
    np.testing.assert_allclose(env.world.handle_position(DRAWER_TRAVEL), wide, atol=1e-6)
    np.testing.assert_allclose(env.pointers_of(Task("close_drawer"))[1], closed, atol=1e-6)
