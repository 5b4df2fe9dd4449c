"""Verdicts on moments that just pass and just fail, lengths in metres; and on what physics makes of placed blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ornstein.simulation.tabletop.model import BOWL_HEIGHT, BOWL_INNER, DRAWER_TRAVEL, MAT_HALF
from ornstein.simulation.tabletop.progress import Progress
from ornstein.simulation.tabletop.scene import Block, Bowl, Cabinet, Mat, Scene, Task
from ornstein.simulation.tabletop.success import (
    CLOSED_LEFT,
    HOLD_STEPS,
    LIFT_HEIGHT,
    NEAR_GAP,
    OPEN_SHARE,
    PUSH_DISTANCE,
    PUSH_DRIFT,
    History,
    is_done,
    is_spoiled,
)
from ornstein.simulation.tabletop.world import Moment, TabletopWorld

SIZE, HALF = 0.06, 0.03
BOTH = frozenset({"left", "right"})
A, B = (0.45, -0.10), (0.60, 0.05)
BLOCKS = (Block("panda", *A), Block("banana", *B))


def moment(*places: tuple[float, float, float], **changes: object) -> Moment:
    """Blocks at rest and untouched, lower sides at the given heights."""
    n = len(places)
    now = Moment(
        positions=np.array([(x, y, HALF + z) for x, y, z in places]).reshape(n, 3),
        up=np.ones(n),
        speeds=np.zeros(n),
        fingers=(frozenset(),) * n,
        block_contacts=frozenset(),
        drawer=0.0,
        tool=np.zeros(3),
        closing=0.0,
    )
    return replace(now, **changes)  # type: ignore[arg-type]


START = moment((*A, 0.0), (*B, 0.0))


def scene(task: Task, **things: object) -> Scene:
    return Scene(BLOCKS, (task,), "do it", **things)  # type: ignore[arg-type]


def done(task: Task, now: Moment, start: Moment = START, highest: tuple[float, ...] = (0.0, 0.0), **things: object) -> bool:
    return is_done(scene(task, **things), task, now, History(start, np.array(highest)))


def spoiled(task: Task, now: Moment, start: Moment = START, highest: tuple[float, ...] = (0.0, 0.0), **things: object) -> bool:
    return is_spoiled(scene(task, **things), task, now, History(start, np.array(highest)))


def test_pick() -> None:
    task = Task("pick", 0)
    high, low = LIFT_HEIGHT + 1e-6, LIFT_HEIGHT - 1e-3
    assert done(task, moment((*A, high), (*B, 0), fingers=(BOTH, frozenset())))
    assert not done(task, moment((*A, low), (*B, 0), fingers=(BOTH, frozenset())))
    assert not done(task, moment((*A, high), (*B, 0), fingers=(frozenset({"left"}), frozenset())))
    other = moment((*A, 0), (*B, high), fingers=(frozenset(), BOTH))
    assert spoiled(task, other)
    assert not done(task, other)


def test_move_near() -> None:
    task = Task("move_near", 0, 1)
    near, far = SIZE + NEAR_GAP - 1e-4, SIZE + NEAR_GAP + 1e-3
    assert done(task, moment((B[0] - near, B[1], 0), (*B, 0)))
    assert not done(task, moment((B[0] - far, B[1], 0), (*B, 0)))
    assert not done(task, moment((B[0] - near, B[1], 0.02), (*B, 0)))
    assert not done(task, moment((B[0] - near, B[1], 0), (*B, 0), fingers=(BOTH, frozenset())))
    assert spoiled(task, moment((*A, 0), (B[0], B[1] - PUSH_DISTANCE - 1e-4, 0)))
    assert not spoiled(task, moment((*A, 0), (B[0], B[1] - 0.03, 0)))
    # The reference came instead, or was dragged along.
    assert not done(task, moment((*A, 0), (A[0] + near, A[1], 0)))
    assert not done(task, moment((B[0] - near, B[1] + 0.03, 0), (B[0], B[1] + 0.03, 0)))


@pytest.mark.parametrize(("direction", "step"), [("left", (0, -1)), ("right", (0, 1)), ("towards", (-1, 0)), ("away", (1, 0))])
def test_push(direction: str, step: tuple[float, float]) -> None:
    task = Task("push", 0, direction=direction)  # type: ignore[arg-type]

    def at(along: float, across: float, z: float = 0.0) -> Moment:
        return moment((A[0] + along * step[0] - across * step[1], A[1] + along * step[1] + across * step[0], z), (*B, 0))

    assert done(task, at(PUSH_DISTANCE + 1e-4, PUSH_DRIFT - 1e-3))
    assert not done(task, at(PUSH_DISTANCE - 1e-3, 0))
    assert not done(task, at(PUSH_DISTANCE + 1e-4, PUSH_DRIFT + 1e-3))
    assert not done(task, at(-PUSH_DISTANCE - 1e-3, 0))
    assert not done(task, at(PUSH_DISTANCE + 1e-3, 0, z=0.01))
    assert spoiled(task, at(0.02, 0), highest=(0.021, 0.0))
    assert not spoiled(task, at(0.02, 0), highest=(0.019, 0.0))
    # One direction after the other, or one block after the other, would succeed without reading.
    assert spoiled(task, at(-PUSH_DISTANCE - 1e-4, 0))
    assert spoiled(task, at(0, PUSH_DISTANCE + 1e-4))
    assert not spoiled(task, at(PUSH_DISTANCE + 0.05, 0.02))
    assert spoiled(task, moment((*A, 0), (B[0] + PUSH_DISTANCE + 1e-4, B[1], 0)))
    assert not spoiled(task, moment((*A, 0), (B[0] + PUSH_DISTANCE - 1e-3, B[1], 0)))


def test_place_in_bowl() -> None:
    task, bowl = Task("place_in_bowl", 0), Bowl(0.5, 0.0)
    inside = BOWL_INNER - 1e-4
    assert done(task, moment((0.5 + inside, 0.0, 0.004), (*B, 0)), bowl=bowl)
    assert not done(task, moment((0.5 + BOWL_INNER + 1e-3, 0.0, 0.004), (*B, 0)), bowl=bowl)
    assert done(task, moment((0.5, 0.0, BOWL_HEIGHT - 1e-4), (*B, 0)), bowl=bowl)
    assert not done(task, moment((0.5, 0.0, BOWL_HEIGHT + 1e-3), (*B, 0)), bowl=bowl)
    assert not done(task, moment((0.5, 0.0, 0.004), (*B, 0), fingers=(BOTH, frozenset())), bowl=bowl)
    assert not done(task, moment((0.5, 0.0, 0.004), (*B, 0), speeds=np.array([0.05, 0.0])), bowl=bowl)
    assert spoiled(task, moment((*A, 0), (0.5, 0.0, 0.004)), bowl=bowl)


def test_place_on_mat() -> None:
    mats = (Mat("number", "3", 0.5, 0.1), Mat("colour", "red", 0.6, -0.1))
    task = Task("place_on_mat", 0, mat=0)
    edge = MAT_HALF - 1e-4
    assert done(task, moment((0.5 + edge, 0.1 - edge, 0), (*B, 0)), mats=mats)
    assert not done(task, moment((0.5 + MAT_HALF + 1e-3, 0.1, 0), (*B, 0)), mats=mats)
    assert not done(task, moment((0.5, 0.1, 0.02), (*B, 0)), mats=mats)
    assert not done(task, moment((0.5, 0.1, 0), (*B, 0), fingers=(BOTH, frozenset())), mats=mats)
    assert spoiled(task, moment((0.6, -0.1, 0), (*B, 0)), mats=mats)
    assert spoiled(task, moment((*A, 0), (0.5, 0.1, 0)), mats=mats)
    assert not spoiled(task, moment((*A, 0), (*B, 0)), mats=mats)


def test_stack() -> None:
    task, touch = Task("stack", 0, 1), frozenset({(0, 1)})
    on = (B[0] + SIZE / 2 - 1e-4, B[1], SIZE)
    assert done(task, moment(on, (*B, 0), block_contacts=touch))
    assert not done(task, moment((B[0] + SIZE / 2 + 1e-3, B[1], SIZE), (*B, 0), block_contacts=touch))
    assert not done(task, moment(on, (*B, 0)))
    assert not done(task, moment((*B, SIZE + 0.01), (*B, 0), block_contacts=touch))
    assert not done(task, moment(on, (*B, 0), block_contacts=touch, up=np.array([0.9, 1.0])))
    assert not done(task, moment(on, (*B, 0), block_contacts=touch, fingers=(BOTH, frozenset())))
    # The other way round is another tower.
    upside_down = moment((*A, 0), (*A, SIZE), block_contacts=touch)
    assert not done(task, upside_down)
    assert spoiled(task, upside_down)


def test_drawer() -> None:
    cabinet = Cabinet(0.45)
    for skill, passes, fails in (
        ("open_drawer", OPEN_SHARE * DRAWER_TRAVEL + 1e-5, OPEN_SHARE * DRAWER_TRAVEL - 1e-3),
        ("close_drawer", CLOSED_LEFT - 1e-5, CLOSED_LEFT + 1e-3),
    ):
        task = Task(skill)  # type: ignore[arg-type]
        assert done(task, replace(START, drawer=passes), cabinet=cabinet)
        assert not done(task, replace(START, drawer=fails), cabinet=cabinet)


def test_a_task_counts_after_half_a_second_and_a_chain_in_its_order() -> None:
    tasks = (Task("close_drawer"), Task("open_drawer"), Task("pick", 0))
    progress = Progress(Scene(BLOCKS, tasks, "do it", cabinet=Cabinet(0.45)), START)
    closed, opened = START, replace(START, drawer=DRAWER_TRAVEL)
    lifted = replace(moment((*A, 0.1), (*B, 0), fingers=(BOTH, frozenset())), drawer=DRAWER_TRAVEL)

    def after(now: Moment, steps: int) -> tuple[int, bool]:
        for _ in range(steps):
            progress.advance(now)
        return progress.done, progress.succeeded

    assert after(opened, 10) == (0, False)
    assert after(closed, HOLD_STEPS - 1) == (0, False)
    assert after(opened, 1) == (0, False)  # the hold begins anew
    assert after(closed, HOLD_STEPS) == (1, False)
    assert after(opened, HOLD_STEPS) == (2, False)
    assert after(lifted, HOLD_STEPS) == (3, True)


def test_what_an_earlier_task_placed_must_still_be_there_at_the_end() -> None:
    bowl = Bowl(0.5, 0.0)
    for last, kept in ((0.0, True), (0.15, False)):
        progress = Progress(Scene(BLOCKS, (Task("place_in_bowl", 0), Task("pick", 1)), "do it", bowl=bowl), START)
        for _ in range(HOLD_STEPS):
            progress.advance(moment((0.5, 0.0, 0.004), (*B, 0)))
        for _ in range(HOLD_STEPS):
            progress.advance(moment((0.5 + last, 0.0, 0.004), (*B, 0.1), fingers=(frozenset(), BOTH)))
        assert (progress.succeeded, progress.spoiled) == (kept, not kept)


@pytest.mark.parametrize(
    ("task", "place", "height", "expected"),
    [
        (Task("place_in_bowl", 0), (0.50, 0.0), 0.05, True),  # let fall from above
        (Task("place_in_bowl", 0), (0.50 + BOWL_INNER + 0.02, 0.0), 0.05, False),  # tilts over the rim
        (Task("stack", 0, 1), (B[0] + 0.02, B[1]), SIZE + 0.002, True),
        (Task("stack", 0, 1), (B[0] + 0.04, B[1]), SIZE + 0.002, False),  # falls off: beyond the edge of support
    ],
)
def test_physics_agrees(task: Task, place: tuple[float, float], height: float, expected: bool) -> None:
    world = TabletopWorld()
    built = Scene(BLOCKS, (task,), "do it", bowl=Bowl(0.5, 0.0))
    world.build(built)
    start = world.moment()
    at = int(world.model.joint("block0").qposadr[0])
    world.data.qpos[at : at + 3] = (*place, HALF + height)
    position, rotation = world.tool_position, world.tool_rotation
    for _ in range(20):
        world.move(position, rotation, 0.0)
    assert is_done(built, task, world.moment(), History(start, np.zeros(2))) is expected
