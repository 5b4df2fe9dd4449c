"""Where a task takes its block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ornstein.assets.tabletop import DIRECTIONS
from ornstein.simulation.tabletop.scene import AREA_HIGH, AREA_LOW, distance_to
from ornstein.simulation.tabletop.success import NEAR_GAP, PUSH_DISTANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.scene import Scene, Task
    from ornstein.simulation.tabletop.world import Moment

_TURNS = 24
#: How far apart two blocks are put, as shares of the gap between them that still counts as near.
_CLOSEST, _FARTHEST = 0.45, 0.75


def goal_position(scene: Scene, task: Task, now: Moment) -> NDArray[np.float64] | None:
    """Where the task takes its block [m], as the present moment tells; None for a block that is lifted and for the drawer."""
    match task.skill:
        case "move_near" if task.block is not None and task.reference is not None:
            return np.array([*free_place(scene, now, task.block, task.reference), scene.block_size / 2])
        case "stack" if task.reference is not None:
            return now.positions[task.reference]
        case "push" if task.block is not None and task.direction is not None:
            return now.positions[task.block] + PUSH_DISTANCE * np.array([*DIRECTIONS[task.direction], 0.0])
        case "place_in_bowl" if scene.bowl is not None:
            return np.array([scene.bowl.x, scene.bowl.y, 0.0])
        case "place_on_mat" if task.mat is not None:
            mat = scene.mats[task.mat]
            return np.array([mat.x, mat.y, 0.0])
        case _:
            return None


def free_place(scene: Scene, now: Moment, block: int, reference: int) -> tuple[float, float]:
    """A free place [m] next to the reference: on the side of the arm, or as near to that as may be. It does not depend on where the block is, so it stays
    where it is while the block is on its way."""
    base = now.positions[reference][:2]
    away = now.positions[block][:2] - base
    others = [now.positions[k][:2] for k in range(len(scene.blocks)) if k not in (block, reference)]
    # Anything near enough is fine, so that a hand which arrived need not be put right by millimetres.
    closest, farthest = (scene.block_size + share * NEAR_GAP for share in (_CLOSEST, _FARTHEST))
    apart = min(max(float(np.hypot(*away)), closest), farthest)
    best, least = base, math.inf
    for turn in np.linspace(-math.pi, math.pi, _TURNS, endpoint=False):
        place = base + apart * np.array([-math.cos(turn), -math.sin(turn)])
        gap = min((float(np.hypot(*(place - other))) for other in others), default=1.0)
        outside = max(0.0, *(np.array(AREA_LOW) - place), *(place - np.array(AREA_HIGH)))
        if scene.bowl is not None:
            gap = min(gap, float(np.hypot(place[0] - scene.bowl.x, place[1] - scene.bowl.y)) - 0.03)
        if scene.cabinet is not None:  # where a drawer would push it away again
            gap = min(gap, distance_to(float(place[0]), float(place[1]), scene.cabinet.corridor()) + 0.05)
        cost = abs(float(turn)) + 60 * max(0.10 - gap, 0.0) + 40 * outside
        if cost < least:
            best, least = place, cost
    return float(best[0]), float(best[1])
