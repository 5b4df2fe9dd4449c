"""The physics of one tabletop: build a scene, move the arm, and say what happened. No rendering, no policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.simulation.controller import JOINTS, MAX_JOINT_SPEED, ToolController
from ornstein.simulation.model import BLOCK_HALF, FINGER_TRAVEL, HOME, PARKING, PHYSICS_STEP, mjcf
from ornstein.simulation.rendering import mujoco_module
from ornstein.simulation.scene import MAX_BLOCKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.scene import Scene

CONTROL_HZ = 5.0
#: How often a filmed world notes its pose: a divisor of the physics steps in a control step.
FILM_HZ = 25.0
_SUBSTEPS = round(1 / CONTROL_HZ / PHYSICS_STEP)
_FILM_EVERY = round(1 / FILM_HZ / PHYSICS_STEP)
_FINGER_QPOS = slice(JOINTS, JOINTS + 2)
_SETTLING_STEPS = 25
# Share of a control step in which the joint targets travel; in the rest the arm settles before the next picture is taken.
_TRAVEL = 0.8


class TabletopWorld:
    """State and motion. Tool poses are in the base frame: metres, and a rotation matrix whose z axis points to the fingertips.

    film: while it is a list, the pose of everything, float32, is appended after `build` and then `FILM_HZ` times a second.
    """

    def __init__(self) -> None:
        self._mujoco = mujoco_module()
        self.model = self._mujoco.MjModel.from_xml_string(mjcf())
        self.data = self._mujoco.MjData(self.model)
        self._controller = ToolController(self.model)
        self._tool = self.model.site("tool").id
        self._blocks = [self.model.body(f"block{k}").id for k in range(MAX_BLOCKS)]
        self._block_geoms = {self.model.geom(f"block{k}").id: k for k in range(MAX_BLOCKS)}
        self._fingers = {self.model.body(f"finger_{side}").id: side for side in ("left", "right")}
        self.film: list[NDArray[np.float32]] | None = None

    def build(self, scene: Scene) -> None:
        """Put the arm at home with an open gripper and the scene's blocks on the table; the rest is parked behind the base."""
        mujoco, data = self._mujoco, self.data
        mujoco.mj_resetData(self.model, data)
        data.qpos[:JOINTS] = HOME
        data.qpos[_FINGER_QPOS] = FINGER_TRAVEL
        data.ctrl[:JOINTS] = HOME
        data.ctrl[JOINTS] = FINGER_TRAVEL
        for slot in range(MAX_BLOCKS):
            start = self._block_qpos(slot)
            if slot < len(scene.blocks):
                block = scene.blocks[slot]
                data.qpos[start : start + 3] = (block.x, block.y, BLOCK_HALF)
                data.qpos[start + 3 : start + 7] = (np.cos(block.yaw / 2), 0.0, 0.0, np.sin(block.yaw / 2))
            else:
                data.qpos[start : start + 3] = (PARKING[0] - 0.2 * slot, PARKING[1], PARKING[2])
                data.qpos[start + 3 : start + 7] = (1.0, 0.0, 0.0, 0.0)
        mujoco.mj_forward(self.model, data)
        mujoco.mj_step(self.model, data, nstep=_SETTLING_STEPS)
        self._expose()

    def move(self, position: NDArray[np.float64], rotation: NDArray[np.float64], closing: float) -> None:
        """One control step of 1/CONTROL_HZ seconds towards a tool pose and a gripper command (0 open … 1 closed).

        Where that asks for more than `MAX_JOINT_SPEED`, all joints slow down together and the rest is left to later steps.
        """
        start = np.array(self.data.ctrl[:JOINTS])
        seed = np.array(self.data.qpos)
        seed[:JOINTS] = start  # solve from the last targets: the servos' lag must not leak into the next ones
        goal = self._controller.solve(seed, position, rotation)
        haste = float((np.abs(goal - start) * CONTROL_HZ / _TRAVEL / MAX_JOINT_SPEED).max())
        if haste > 1:
            goal = start + (goal - start) / haste
        self.data.ctrl[JOINTS] = FINGER_TRAVEL * (1 - closing)
        for k in range(_SUBSTEPS):
            share = min((k + 1) / (_TRAVEL * _SUBSTEPS), 1.0)
            self.data.ctrl[:JOINTS] = start + share * (goal - start)
            self._mujoco.mj_step(self.model, self.data)
            if (k + 1) % _FILM_EVERY == 0:
                self._expose()

    def _expose(self) -> None:
        if self.film is not None:
            self.film.append(np.array(self.data.qpos, dtype=np.float32))

    @property
    def tool_position(self) -> NDArray[np.float64]:
        """Where the tool centre point is [m], shape (3,)."""
        return np.array(self.data.site_xpos[self._tool])

    @property
    def tool_rotation(self) -> NDArray[np.float64]:
        """The tool's axes as columns, shape (3, 3)."""
        return np.array(self.data.site_xmat[self._tool]).reshape(3, 3)

    @property
    def closing(self) -> float:
        """How far the gripper is really closed: 0 open … 1 closed; a held block keeps it from closing."""
        return float(np.clip(1 - self.data.qpos[_FINGER_QPOS].mean() / FINGER_TRAVEL, 0.0, 1.0))

    def block_position(self, slot: int) -> NDArray[np.float64]:
        """Centre of a block [m], shape (3,)."""
        return np.array(self.data.xpos[self._blocks[slot]])

    def block_yaw(self, slot: int) -> float:
        """Heading of a block's x axis over the table [rad]."""
        matrix = self.data.xmat[self._blocks[slot]].reshape(3, 3)
        return float(np.arctan2(matrix[1, 0], matrix[0, 0]))

    def height(self, slot: int) -> float:
        """How far a block is above its place on the table [m]."""
        return float(self.data.xpos[self._blocks[slot]][2] - BLOCK_HALF)

    def touching_fingers(self, slot: int) -> frozenset[str]:
        """Which of the fingers ("left", "right") touch that block."""
        touching = set()
        for contact in self.data.contact[: self.data.ncon]:
            for mine, other in ((contact.geom1, contact.geom2), (contact.geom2, contact.geom1)):
                if self._block_geoms.get(int(mine)) == slot:
                    side = self._fingers.get(int(self.model.geom_bodyid[other]))
                    if side is not None:
                        touching.add(side)
        return frozenset(touching)

    def _block_qpos(self, slot: int) -> int:
        return int(self.model.joint(f"block{slot}").qposadr[0])


def project(world: Any, camera: str, point: NDArray[np.float64]) -> NDArray[np.float32]:
    """A point [m] in a camera's picture, as (column, row) in [−1, 1] from the left top corner; square pictures."""
    index = world.model.camera(camera).id
    local = world.data.cam_xmat[index].reshape(3, 3).T @ (point - world.data.cam_xpos[index])
    reach = np.tan(np.radians(world.model.cam_fovy[index]) / 2) * -local[2]
    return np.array([local[0] / reach, -local[1] / reach], dtype=np.float32)
