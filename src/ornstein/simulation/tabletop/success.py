"""Whether a task is done, from physics alone: places, heights, contacts, rest. Small pure functions over moments of the world.

A task counts as done when its condition has held for half a second (`HOLD_STEPS` control steps). Each skill also says what spoils it for
good: the wrong block in the place of the right one, a push that was a lift. Else trying one thing after the other would succeed without
reading.

Lengths are metres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.assets.tabletop import DIRECTIONS
from ornstein.simulation.tabletop.model import BOWL_HEIGHT, BOWL_INNER, DRAWER_TRAVEL, MAT_HALF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.scene import Scene, Task
    from ornstein.simulation.tabletop.world import Moment

HOLD_STEPS = 5
LIFT_HEIGHT = 0.08
NEAR_GAP = 0.045
PUSH_DISTANCE, PUSH_DRIFT = 0.07, 0.035
OPEN_SHARE, CLOSED_LEFT = 0.85, 0.006
_ON_TABLE = 0.008
_AT_REST = 0.03
_LEVEL = 0.97
#: A block that is not asked for may be brushed, not carried off.
_LIFTED_BY_MISTAKE = 0.02
_STACK_GAP = 0.008


class History(NamedTuple):
    """What a verdict must remember: the moment at which the task began, and the greatest height of each block since."""

    start: Moment
    highest: NDArray[np.float64]


def is_done(scene: Scene, task: Task, now: Moment, history: History) -> bool:
    """Whether the task's condition holds now."""
    match task.skill:
        case "pick":
            return picked(now, _number(task.block), scene.block_size)
        case "move_near":
            return moved_near(now, history.start, _number(task.block), _number(task.reference), scene.block_size)
        case "push":
            step = DIRECTIONS[task.direction] if task.direction is not None else (0.0, 0.0)
            return pushed(now, history, _number(task.block), step, scene.block_size)
        case "place_in_bowl":
            return scene.bowl is not None and in_bowl(now, _number(task.block), (scene.bowl.x, scene.bowl.y), scene.block_size)
        case "place_on_mat":
            mat = scene.mats[_number(task.mat)]
            return on_mat(now, _number(task.block), (mat.x, mat.y), scene.block_size)
        case "stack":
            return stacked(now, _number(task.block), _number(task.reference), scene.block_size)
        case "open_drawer":
            return now.drawer >= OPEN_SHARE * DRAWER_TRAVEL
        case "close_drawer":
            return now.drawer <= CLOSED_LEFT


def is_spoiled(scene: Scene, task: Task, now: Moment, history: History) -> bool:
    """Whether the task can no longer be done as it was asked for."""
    size, block = scene.block_size, task.block
    others = [k for k in range(len(scene.blocks)) if k != block]
    match task.skill:
        case "pick":
            return any(picked(now, k, size) for k in others)
        case "push":
            lifted = bool(history.highest[_number(block)] > _LIFTED_BY_MISTAKE)
            return lifted or _pushed_elsewhere(now, history, task) or any(_moved(now, history.start, k) for k in others)
        case "place_in_bowl" if scene.bowl is not None:
            place = (scene.bowl.x, scene.bowl.y)
            return any(in_bowl(now, k, place, size) and not in_bowl(history.start, k, place, size) for k in others)
        case "place_on_mat":
            mats = [(mat.x, mat.y) for mat in scene.mats]
            wrong_mat = any(on_mat(now, _number(block), mat, size) for k, mat in enumerate(mats) if k != task.mat)
            wanted = mats[_number(task.mat)]
            return wrong_mat or any(on_mat(now, k, wanted, size) and not on_mat(history.start, k, wanted, size) for k in others)
        case "stack":
            pairs = [(a, b) for a in range(len(scene.blocks)) for b in range(len(scene.blocks)) if a != b]
            wrong = [(a, b) for a, b in pairs if (a, b) != (block, task.reference)]
            return any(stacked(now, a, b, size) and not stacked(history.start, a, b, size) for a, b in wrong)
        case "move_near":
            return any(_moved(now, history.start, k) for k in others)
        case _:
            return False


def _moved(now: Moment, start: Moment, block: int) -> bool:
    """Whether a block was pushed or carried as far as a push goes: a brush in passing is less."""
    return bool(np.linalg.norm(now.positions[block] - start.positions[block]) >= PUSH_DISTANCE)


def _pushed_elsewhere(now: Moment, history: History, task: Task) -> bool:
    """Whether the right block went so far in another direction than asked."""
    moved = (now.positions[_number(task.block)] - history.start.positions[_number(task.block)])[:2]
    return any(float(moved @ np.array(step)) >= PUSH_DISTANCE for name, step in DIRECTIONS.items() if name != task.direction)


def picked(now: Moment, block: int, size: float) -> bool:
    """Lifted by at least `LIFT_HEIGHT`, between both fingers."""
    return height(now, block, size) >= LIFT_HEIGHT and now.fingers[block] == {"left", "right"}


def moved_near(now: Moment, start: Moment, block: int, reference: int, size: float) -> bool:
    """Both stand on the table, let go; the gap between them is at most `NEAR_GAP`; it was the block that came, not the reference."""
    apart = _flat(now.positions[block] - now.positions[reference])
    moved = _flat(now.positions[block] - start.positions[block])
    dragged = _flat(now.positions[reference] - start.positions[reference])
    stand = all(abs(height(now, k, size)) <= _ON_TABLE and _released(now, k) for k in (block, reference))
    return stand and apart <= size + NEAR_GAP and moved > 0.02 and dragged <= 0.025


def pushed(now: Moment, history: History, block: int, step: tuple[float, float], size: float) -> bool:
    """Went at least `PUSH_DISTANCE` along the direction and at most `PUSH_DRIFT` across it, on the table all the time."""
    moved = (now.positions[block] - history.start.positions[block])[:2]
    along = float(moved @ np.array(step))
    across = float(np.linalg.norm(moved - along * np.array(step)))
    stayed = abs(height(now, block, size)) <= _ON_TABLE and history.highest[block] <= _LIFTED_BY_MISTAKE
    return bool(stayed and along >= PUSH_DISTANCE and across <= PUSH_DRIFT)


def in_bowl(now: Moment, block: int, bowl: tuple[float, float], size: float) -> bool:
    """Its centre within the rim and not above it by more than a block's half, at rest, let go."""
    away = float(np.hypot(*(now.positions[block][:2] - bowl)))
    low = now.positions[block][2] <= BOWL_HEIGHT + size / 2
    return bool(away <= BOWL_INNER and low and _released(now, block) and now.speeds[block] <= _AT_REST)


def on_mat(now: Moment, block: int, mat: tuple[float, float], size: float) -> bool:
    """Its centre over the mat, standing on the table, let go."""
    dx, dy = np.abs(now.positions[block][:2] - mat)
    return bool(max(dx, dy) <= MAT_HALF and abs(height(now, block, size)) <= _ON_TABLE and _released(now, block))


def stacked(now: Moment, block: int, reference: int, size: float) -> bool:
    """Rests level on the reference, which stands on the table; centres at most half a side apart; let go."""
    offset = now.positions[block] - now.positions[reference]
    touch = (min(block, reference), max(block, reference)) in now.block_contacts
    level = now.up[block] >= _LEVEL and abs(height(now, reference, size)) <= _ON_TABLE
    fits = _flat(offset) <= size / 2 and abs(offset[2] - size) <= _STACK_GAP
    return bool(touch and level and fits and _released(now, block) and now.speeds[block] <= _AT_REST)


def height(now: Moment, block: int, size: float) -> float:
    """How far a block is above its place on the table [m]."""
    return float(now.positions[block][2] - size / 2)


def _released(now: Moment, block: int) -> bool:
    return not now.fingers[block]


def _flat(vector: NDArray[np.float64]) -> float:
    return float(np.hypot(vector[0], vector[1]))


def _number(value: int | None) -> int:
    if value is None:  # a scene's check refuses such a task
        raise ValueError("the task lacks what it is about")
    return value
