"""From a tool pose to joint targets: differential inverse kinematics by `mink`.

A policy speaks of the tool (Δx Δy Δz, Δroll Δpitch Δyaw); an arm has position servos in its joints. Each control step solves for joint
targets that reach the tool target, by a few differential steps from the last ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.arms import Arm

_MOST_SOLVES = 4
_POSITION_TOLERANCE, _ROTATION_TOLERANCE = 5e-4, 5e-3


class ToolController:
    """Joint targets whose forward kinematics is a tool pose, close to the last ones and to the home posture."""

    def __init__(self, model: Any, arm: Arm) -> None:
        import mink

        self._mink, self._joints = mink, arm.joints
        self._configuration = mink.Configuration(model)
        self._frame = mink.FrameTask("tool", "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-3)
        # A seventh joint leaves one freedom: keep the elbow where it is at home.
        self._posture = mink.PostureTask(model, cost=np.r_[np.full(arm.joints, 2e-3), np.zeros(model.nv - arm.joints)])
        reference = np.array(self._configuration.q)
        reference[: arm.joints] = arm.home
        self._posture.set_target(reference)
        self._limits = [mink.ConfigurationLimit(model)]

    def solve(
        self, qpos: NDArray[np.float64], position: NDArray[np.float64], rotation: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint angles [rad] (joints,) for a tool at `position` [m] with `rotation` (3, 3), starting from the state `qpos`."""
        mink = self._mink
        self._frame.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position))
        self._configuration.update(qpos)
        for _ in range(_MOST_SOLVES):
            error = self._frame.compute_error(self._configuration)
            if np.linalg.norm(error[:3]) < _POSITION_TOLERANCE and np.linalg.norm(error[3:]) < _ROTATION_TOLERANCE:
                break
            velocity = mink.solve_ik(
                self._configuration, [self._frame, self._posture], 1.0, "daqp", damping=1e-4, limits=self._limits
            )
            velocity[self._joints :] = 0.0  # blocks, fingers and drawer are not ours to move
            self._configuration.integrate_inplace(velocity, 1.0)
        return np.array(self._configuration.q[: self._joints])
