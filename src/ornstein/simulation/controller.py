"""From a tool pose to joint targets: differential inverse kinematics by `mink`.

The policy speaks of the tool (Δx Δy Δz, Δroll Δpitch Δyaw); the arm has position servos in its joints. Each control step
solves for joint targets that reach the tool target, by a few differential steps from the last ones, and the servos follow
along a straight line in joint space, no faster than the joints of a real arm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.simulation.model import HOME

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SOLVES = 6
_POSITION_TOLERANCE = 5e-4
_ROTATION_TOLERANCE = 5e-3
JOINTS = 7
#: What the published arm allows [rad/s]; `TabletopWorld.move` slows down to it.
MAX_JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])


class ToolController:
    """Joint targets whose forward kinematics is a tool pose, close to the last ones and to the home posture."""

    def __init__(self, model: Any) -> None:
        import mink

        self._mink = mink
        self._configuration = mink.Configuration(model)
        self._frame = mink.FrameTask("tool", "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-3)
        # A seventh joint leaves one freedom: keep the elbow where it is at home.
        self._posture = mink.PostureTask(model, cost=np.r_[np.full(JOINTS, 2e-3), np.zeros(model.nv - JOINTS)])
        reference = np.array(self._configuration.q)
        reference[:JOINTS] = HOME
        self._posture.set_target(reference)
        self._limits = [mink.ConfigurationLimit(model)]

    def solve(
        self, qpos: NDArray[np.float64], position: NDArray[np.float64], rotation: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint angles [rad] (7,) for a tool at `position` [m] with `rotation` (3, 3), starting from the state `qpos`."""
        mink = self._mink
        target = mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position)
        self._frame.set_target(target)
        self._configuration.update(qpos)
        for _ in range(_SOLVES):
            error = self._frame.compute_error(self._configuration)
            if np.linalg.norm(error[:3]) < _POSITION_TOLERANCE and np.linalg.norm(error[3:]) < _ROTATION_TOLERANCE:
                break
            velocity = mink.solve_ik(
                self._configuration, [self._frame, self._posture], 1.0, "daqp", damping=1e-4, limits=self._limits
            )
            velocity[JOINTS:] = 0.0  # blocks and fingers are not ours to move
            self._configuration.integrate_inplace(velocity, 1.0)
        return np.array(self._configuration.q[:JOINTS])
