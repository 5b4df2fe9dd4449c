"""A scripted expert that picks up the named block, from privileged state.

It has no memory: what it does follows from where tool and block are and what the fingers touch, as a policy that sees the
picture could tell too. A miss, a push or a disturbance is therefore answered like any other state: open, rise, try again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.simulation.environment import MAX_ROTATION, MAX_TRANSLATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.environment import TabletopEnv

HOVER_HEIGHT = 0.10
GRASP_HEIGHT = 0.021
_ALIGNED = 0.012
_ON_TARGET = 0.007
_YAW_ALIGNED = 0.12
_DESCENT_CONE = 0.35
_SAFE_HEIGHT = 0.075
_CLOSED_ON_NOTHING = 0.62
_CLOSING = 0.08
_OPEN, _CLOSE = 0.0, 1.0


class PickExpert:
    """Actions for the scene's own target."""

    def act(self, env: TabletopEnv) -> NDArray[np.float32]:
        """The next action, within bounds, float32 (7,)."""
        scene, world = env.scene, env.world
        if scene is None:
            raise DataError("call reset before asking the expert")
        tool = env.target_position
        block = world.block_position(scene.target)
        offset = block[:2] - tool[:2]
        distance = float(np.hypot(*offset))
        turn = _shortest_quarter_turn(world.block_yaw(scene.target) - _yaw(env.target_rotation))
        touching = world.touching_fingers(scene.target)
        if touching == {"left", "right"} and world.closing > _CLOSING and world.closing < _CLOSED_ON_NOTHING:
            return _action([0.0, 0.0, MAX_TRANSLATION], 0.0, _CLOSE)
        at_grasp = distance < _ALIGNED and abs(tool[2] - GRASP_HEIGHT) < 0.012
        if at_grasp and world.closing < _CLOSED_ON_NOTHING:
            if world.closing > _CLOSING or distance < _ON_TARGET:
                return _action([0.0, 0.0, 0.0], 0.0, _CLOSE)
            return _action([*offset, GRASP_HEIGHT - tool[2]], turn, _OPEN)
        if world.closing > _CLOSING:  # closed beside the block: let go before moving
            return _action([0.0, 0.0, 0.03], 0.0, _OPEN)
        if distance > _ALIGNED + _DESCENT_CONE * max(tool[2] - GRASP_HEIGHT, 0.0) or abs(turn) > 2 * _YAW_ALIGNED:
            if tool[2] < _SAFE_HEIGHT and distance > 2 * _ALIGNED:  # rise before crossing over other blocks
                return _action([0.0, 0.0, HOVER_HEIGHT - tool[2]], 0.0, _OPEN)
            return _action([*offset, HOVER_HEIGHT - tool[2]], turn, _OPEN)
        return _action([*offset, GRASP_HEIGHT - tool[2]], turn, _OPEN)


def _action(translation: list[float], turn: float, gripper: float) -> NDArray[np.float32]:
    """Within bounds: the horizontal part is shortened as a whole, so that the path over the table stays straight."""
    move = np.array(translation, dtype=np.float64)
    longest = np.abs(move[:2]).max()
    if longest > MAX_TRANSLATION:
        move[:2] *= MAX_TRANSLATION / longest
    move[2] = np.clip(move[2], -MAX_TRANSLATION, MAX_TRANSLATION)
    return np.array([*move, 0.0, 0.0, np.clip(turn, -MAX_ROTATION, MAX_ROTATION), gripper], dtype=np.float32)


def _yaw(rotation: NDArray[np.float64]) -> float:
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def _shortest_quarter_turn(angle: float) -> float:
    """A square block looks the same after a quarter turn: the equivalent angle within ±π/4."""
    quarter = np.pi / 2
    return float((angle + quarter / 2) % quarter - quarter / 2)
