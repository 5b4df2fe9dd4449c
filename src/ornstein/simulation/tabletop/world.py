"""The physics of one tabletop: build a scene, move the arm, and say what is where and what touches what. No rendering, no policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.simulation.rendering import mujoco_module
from ornstein.simulation.tabletop.arms import ARM7, Arm
from ornstein.simulation.tabletop.kinematics import ToolController
from ornstein.simulation.tabletop.model import MAX_BLOCKS, MAX_MATS, PARKING, PHYSICS_STEP, mjcf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.scene import Scene

CONTROL_HZ = 10.0
#: How often a filmed world notes its pose: a divisor of the physics steps in a control step.
FILM_HZ = 20.0
_SUBSTEPS = round(1 / CONTROL_HZ / PHYSICS_STEP)
_FILM_EVERY = round(1 / FILM_HZ / PHYSICS_STEP)
_SETTLING_STEPS = 20
# Share of a control step in which the joint targets travel; in the rest the arm settles before the next picture is taken.
_TRAVEL = 0.8
_SIDES = ("left", "right")


@dataclass(frozen=True)
class Moment:
    """What is where, now; lengths in metres.

    positions (N, 3), up (N): each block's centre and the cosine of its tilt: 1 where one of its faces lies level. speeds (N): of the centres
    [m/s]. fingers: for each block which fingers ("left", "right") touch it. block_contacts: pairs (lower number first) that touch.
    drawer: how far it is open; 0 without a cabinet. tool (3), closing: the tool's place, and how far the gripper is closed, 0 … 1.
    """

    positions: NDArray[np.float64]
    up: NDArray[np.float64]
    speeds: NDArray[np.float64]
    fingers: tuple[frozenset[str], ...]
    block_contacts: frozenset[tuple[int, int]]
    drawer: float
    tool: NDArray[np.float64]
    closing: float


class TabletopWorld:
    """State and motion. Tool poses are in the base frame: metres, and a rotation matrix whose z axis points to the fingertips.

    film: while it is a list, the pose of everything, float32, is appended after `build` and then `FILM_HZ` times a second.
    """

    def __init__(self, arm: Arm = ARM7) -> None:
        self._mujoco = mujoco_module()
        self.arm = arm
        self.model = self._mujoco.MjModel.from_xml_string(mjcf(arm))
        self.data = self._mujoco.MjData(self.model)
        self.blocks = 0
        self._controller = ToolController(self.model, arm)
        self._speed = np.array(arm.speed)
        self._joints, self._fingers_at = arm.joints, slice(arm.joints, arm.joints + 2)
        self._tool = self.model.site("tool").id
        self._bodies = [self.model.body(f"block{k}").id for k in range(MAX_BLOCKS)]
        self._geoms = [self.model.geom(f"block{k}").id for k in range(MAX_BLOCKS)]
        self._qpos = [int(self.model.joint(f"block{k}").qposadr[0]) for k in range(MAX_BLOCKS)]
        self._qvel = [int(self.model.joint(f"block{k}").dofadr[0]) for k in range(MAX_BLOCKS)]
        self._drawer = int(self.model.joint("drawer").qposadr[0])
        #: By shape: the block's slot and the finger's number; −1 for any other.
        self._slot_of, self._side_of = (np.full(self.model.ngeom, -1) for _ in range(2))
        self._slot_of[self._geoms] = np.arange(MAX_BLOCKS)
        for number, side in enumerate(_SIDES):
            self._side_of[self.model.geom_bodyid == self.model.body(f"finger_{side}").id] = number
        self._fixture_geoms = {
            name: np.flatnonzero(np.isin(self.model.geom_bodyid, [self.model.body(body).id for body in bodies]))
            for name, bodies in (("bowl", ("bowl",)), ("cabinet", ("cabinet", "drawer")))
        }
        self.film: list[NDArray[np.float32]] | None = None
        #: The last one, and the state that it is of.
        self._moment: tuple[NDArray[np.float64], Moment] | None = None

    def build(self, scene: Scene) -> None:
        """Put the arm at home with an open gripper and the scene's things on the table; the rest is parked below it."""
        mujoco, data, model = self._mujoco, self.data, self.model
        mujoco.mj_resetData(model, data)
        self._moment = None
        travel = self.arm.gripper.travel
        data.qpos[: self._joints] = data.ctrl[: self._joints] = self.arm.home
        data.qpos[self._fingers_at] = data.ctrl[self._joints] = travel
        self.blocks = len(scene.blocks)
        half = scene.block_size / 2
        for slot in range(MAX_BLOCKS):
            on_table = slot < self.blocks
            place, yaw = (PARKING["block"][0] + 0.2 * slot, *PARKING["block"][1:]), 0.0
            if on_table:
                block = scene.blocks[slot]
                place, yaw = (block.x, block.y, half), block.yaw
            start = self._qpos[slot]
            data.qpos[start : start + 7] = (*place, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
            self._resize(slot, half)
            self._make_solid(np.array([self._geoms[slot]]), on_table)
            model.body_gravcomp[self._bodies[slot]] = 0.0 if on_table else 1.0
        self._furnish(scene)
        mujoco.mj_forward(model, data)
        mujoco.mj_step(model, data, nstep=_SETTLING_STEPS)
        self._expose()

    def pose(self, coordinates: NDArray[np.float32]) -> None:
        """Put everything as it was at one instant of a film of the scene that was built last.

        Raises:
            DataError: a pose has another number of coordinates than this world.
        """
        if np.shape(coordinates) != self.data.qpos.shape:
            raise DataError(f"a pose of this world has {self.data.qpos.shape} coordinates, got {np.shape(coordinates)}")
        self.data.qpos[:] = coordinates
        self._mujoco.mj_forward(self.model, self.data)

    def _resize(self, slot: int, half: float) -> None:
        """All that MuJoCo derives from a cube's size when it compiles a model."""
        model, geom, body = self.model, self._geoms[slot], self._bodies[slot]
        model.geom_size[geom] = model.geom_aabb[geom, 3:] = model.bvh_aabb[model.body_bvhadr[body], 3:] = half
        model.geom_rbound[geom] = half * np.sqrt(3)
        model.body_inertia[body] = model.body_mass[body] * (2 * half) ** 2 / 6

    def _furnish(self, scene: Scene) -> None:
        model = self.model
        for k in range(MAX_MATS):
            place = (scene.mats[k].x, scene.mats[k].y, 0.0004 + 0.0001 * k) if k < len(scene.mats) else PARKING["mat"]
            model.body_pos[model.body(f"mat{k}").id] = place
        bowl, cabinet = scene.bowl, scene.cabinet
        model.body_pos[model.body("bowl").id] = PARKING["bowl"] if bowl is None else (bowl.x, bowl.y, 0.0)
        body = model.body("cabinet").id
        model.body_pos[body] = PARKING["cabinet"] if cabinet is None else (cabinet.x, cabinet.y, 0.0)
        model.body_quat[body] = (0.0, 0.0, 0.0, 1.0) if cabinet is not None and cabinet.side == "left" else (1.0, 0.0, 0.0, 0.0)
        self._make_solid(self._fixture_geoms["bowl"], bowl is not None)
        self._make_solid(self._fixture_geoms["cabinet"], cabinet is not None)
        self.data.qpos[self._drawer] = 0.0 if cabinet is None else cabinet.opening

    def _make_solid(self, geoms: NDArray[np.intp], solid: bool) -> None:
        self.model.geom_contype[geoms] = self.model.geom_conaffinity[geoms] = int(solid)

    def move(self, position: NDArray[np.float64], rotation: NDArray[np.float64], closing: float) -> None:
        """One control step of 1/CONTROL_HZ seconds towards a tool pose and a gripper command (0 open … 1 closed).

        Where that asks for more than the joints' speed allows, all joints slow down together and the rest is left to later steps.
        """
        n, data = self._joints, self.data
        start = np.array(data.ctrl[:n])
        seed = np.array(data.qpos)
        seed[:n] = start  # solve from the last targets: the servos' lag must not leak into the next ones
        goal = self._controller.solve(seed, position, rotation)
        haste = float((np.abs(goal - start) * CONTROL_HZ / _TRAVEL / self._speed).max())
        if haste > 1:
            goal = start + (goal - start) / haste
        data.ctrl[n] = self.arm.gripper.travel * (1 - closing)
        for k in range(_SUBSTEPS):
            share = min((k + 1) / (_TRAVEL * _SUBSTEPS), 1.0)
            data.ctrl[:n] = start + share * (goal - start)
            self._mujoco.mj_step(self.model, data)
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
        return float(np.clip(1 - self.data.qpos[self._fingers_at].mean() / self.arm.gripper.travel, 0.0, 1.0))

    def block_yaw(self, slot: int) -> float:
        """Heading over the table of the block's side that is most nearly level [rad]; a quarter turn more looks alike."""
        matrix = self.data.xmat[self._bodies[slot]].reshape(3, 3)
        axis = matrix[:, int(np.argmin(np.abs(matrix[2])))]
        return float(np.arctan2(axis[1], axis[0]))

    def handle_position(self, opening: float | None = None) -> NDArray[np.float64]:
        """The middle of the drawer's handle [m], shape (3,): now, or where it would be with the drawer so far open [m]."""
        now = np.array(self.data.geom_xpos[self.model.geom("handle").id])
        if opening is None:
            return now
        joint = self.model.joint("drawer").id
        way: NDArray[np.float64] = self.data.xaxis[joint] * (opening - self.data.qpos[self._drawer])
        return now + way

    def moment(self) -> Moment:
        """What is where, now. Whoever judges, advises and draws one step asks for the same one: it is worked out once."""
        at = np.array([*self.data.qpos, *self.data.qvel, self.data.time])
        if self._moment is None or not np.array_equal(self._moment[0], at):
            self._moment = at, self._look()
        return self._moment[1]

    def _look(self) -> Moment:
        data, n = self.data, self.blocks
        rotations = data.xmat[self._bodies[:n]].reshape(n, 3, 3)
        fingers: list[set[str]] = [set() for _ in range(n)]
        touching: set[tuple[int, int]] = set()
        pairs = data.contact.geom[: data.ncon]
        slots, sides = self._slot_of[pairs], self._side_of[pairs]
        # A contact's two shapes: a block and a finger either way round, or two blocks.
        for slot, side in zip((*slots[:, 0], *slots[:, 1]), (*sides[:, 1], *sides[:, 0]), strict=True):
            if 0 <= slot < n and side >= 0:
                fingers[slot].add(_SIDES[side])
        for first, second in slots[(slots >= 0).all(axis=1)].tolist():
            touching.add((min(first, second), max(first, second)))
        return Moment(
            positions=np.array(data.xpos[self._bodies[:n]]),
            up=np.abs(rotations[:, 2]).max(axis=1) if n else np.zeros(0),
            speeds=np.array([np.linalg.norm(data.qvel[start : start + 3]) for start in self._qvel[:n]]),
            fingers=tuple(frozenset(sides) for sides in fingers),
            block_contacts=frozenset(touching),
            drawer=float(data.qpos[self._drawer]),
            tool=self.tool_position,
            closing=self.closing,
        )


def project(world: TabletopWorld, camera: str, point: NDArray[np.float64]) -> NDArray[np.float32]:
    """A point [m] in a camera's picture, as (column, row) in [−1, 1] from the left top corner; square pictures."""
    index = world.model.camera(camera).id
    local = world.data.cam_xmat[index].reshape(3, 3).T @ (point - world.data.cam_xpos[index])
    reach = np.tan(np.radians(world.model.cam_fovy[index]) / 2) * -local[2]
    return np.array([local[0] / reach, -local[1] / reach], dtype=np.float32)
