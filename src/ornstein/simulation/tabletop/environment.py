"""The tabletop as a gymnasium environment: `ornstein/Tabletop-v0`.

A task or a chain of tasks in plain words; the action moves the tool; success is judged from physics alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from ornstein.core.contract import Camera, Channel, EmbodimentContract
from ornstein.core.errors import DataError, unknown_name
from ornstein.simulation.tabletop.arms import ARMS
from ornstein.simulation.tabletop.canvas import Canvas
from ornstein.simulation.tabletop.model import DRAWER_TRAVEL
from ornstein.simulation.tabletop.painting import illuminate
from ornstein.simulation.tabletop.placing import goal_position
from ornstein.simulation.tabletop.progress import Progress
from ornstein.simulation.tabletop.sampling import Variation, sample_scene
from ornstein.simulation.tabletop.scene import Scene, Task
from ornstein.simulation.tabletop.world import CONTROL_HZ, TabletopWorld, project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ArmName = Literal["arm7", "arm6"]
MAX_TRANSLATION, MAX_ROTATION = 0.03, 0.2
WORKSPACE_LOW, WORKSPACE_HIGH = np.array([0.31, -0.24, 0.012]), np.array([0.74, 0.24, 0.32])
STEPS_A_TASK = 120
CAMERAS: dict[str, int] = {"front": 128, "wrist": 64}
_MAX_TILT = 0.35
# Further from the home heading, a wrist would meet its stop somewhere in the workspace.
_MAX_TURN = 1.35
_SIZES = (16, 640)
# Gymnasium's text space wants its alphabet spelt out.
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.;:!?'’-–")

_ACTION = (
    *(Channel(name, "m", -MAX_TRANSLATION, MAX_TRANSLATION) for name in ("dx", "dy", "dz")),
    *(Channel(name, "rad", -MAX_ROTATION, MAX_ROTATION) for name in ("droll", "dpitch", "dyaw")),
    Channel("gripper", "1", 0.0, 1.0),
)
_STATE = (
    *(Channel(name, "m", -1.0, 1.0) for name in ("x", "y", "z")),
    *(Channel(name, "rad", -np.pi, np.pi) for name in ("roll", "pitch", "yaw")),
    Channel("gripper", "1", 0.0, 1.0),
)


def contract(cameras: Mapping[str, int] | None = None, arm: ArmName = "arm7") -> EmbodimentContract:
    """What a policy must agree with to drive this arm.

    Args:
        cameras: side of the square pictures by camera, in their order; `CAMERAS` by default.
    """
    return EmbodimentContract(
        robot=f"ornstein-tabletop-{arm}",
        cameras=tuple(Camera(name, size, size) for name, size in (CAMERAS if cameras is None else cameras).items()),
        state=_STATE,
        action=_ACTION,
        action_frame="delta of the tool's target pose, base frame",
        rotation="extrinsic xyz Euler, radians",
        gripper="0 open … 1 closed",
        control_hz=CONTROL_HZ,
        chunk_length=1,
    )


class TabletopEnv(gymnasium.Env[dict[str, Any], "NDArray[np.float32]"]):
    """Observation: `pixels` {camera: uint8 (H, W, 3)}, `agent_pos` float32 (7,), `instruction`.

    `agent_pos`: the tool's x, y, z [m] in the base frame; its roll, pitch, yaw [rad] about the base's fixed axes, all zero
    where it points straight down as at the start; how far the gripper is closed, 0 open … 1 closed.

    Action: float32 (7,): Δx Δy Δz [m] and Δroll Δpitch Δyaw [rad] of the tool's target pose in the base frame, each within
    ±0.03 m and ±0.2 rad, and the gripper's command, 0 open … 1 closed. What is out of bounds is clipped and counted in
    `info["clipped"]`. The target stays in a box over the table, tilted at most 0.35 rad and turned at most 1.35 rad from home;
    a rotation that would lead beyond is left out. One step is 0.1 s.

    An episode ends when all tasks are done in their order, each for half a second; when one is spoiled for good (see
    `ornstein.simulation.tabletop.success`); or after `max_steps`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": CONTROL_HZ}  # noqa: RUF012  (gymnasium's attribute)

    def __init__(
        self,
        *,
        variation: Variation | None = None,
        cameras: Mapping[str, int] | None = None,
        arm: ArmName = "arm7",
        max_steps: int | None = None,
        render_mode: str = "rgb_array",
    ) -> None:
        """
        Args:
            variation: what the scenes of seeds vary in. cameras: side of the square pictures in pixels, "front" and "wrist"; with an
                empty mapping nothing is rendered and observations have no `pixels`. max_steps: of 0.1 s; 120 a task by default. render_mode: "human" opens a window.

        Raises:
            RenderingError: there is no headless GL, or no display for a window. DataError: an unknown camera or render mode, a size
                or length out of range. UnknownNameError: no such arm.
        """
        if arm not in ARMS:
            raise unknown_name("arm", arm, list(ARMS))
        cameras = dict(CAMERAS if cameras is None else cameras)
        if set(cameras) - set(CAMERAS) or not all(_SIZES[0] <= size <= _SIZES[1] for size in cameras.values()):
            raise DataError(f"cameras are some of {', '.join(CAMERAS)}, {_SIZES[0]} to {_SIZES[1]} pixels wide; got {cameras}")
        if render_mode not in self.metadata["render_modes"]:
            raise DataError(f"the tabletop renders {' or '.join(self.metadata['render_modes'])}, got {render_mode!r}")
        if max_steps is not None and max_steps < 1:
            raise DataError(f"an episode has a step at least, got max_steps {max_steps}")
        self.contract = contract(cameras, arm)
        self.variation = Variation() if variation is None else variation
        self.render_mode = render_mode
        self.world = TabletopWorld(ARMS[arm])
        self._limit, self._cameras = max_steps, cameras
        self._canvas = Canvas(self.world.model, max(*cameras.values(), CAMERAS["front"])) if cameras else None
        self._window: Any = None
        low, high = (np.array([getattr(c, side) for c in _STATE], dtype=np.float32) for side in ("low", "high"))
        pictures: dict[str, spaces.Space[Any]] = {n: spaces.Box(0, 255, (s, s, 3), np.uint8) for n, s in cameras.items()}
        self.observation_space = spaces.Dict(
            {
                **({"pixels": spaces.Dict(pictures)} if pictures else {}),
                "agent_pos": spaces.Box(low, high, dtype=np.float32),
                "instruction": spaces.Text(400, charset=_CHARACTERS),
            }
        )
        self.action_space = spaces.Box(
            self.contract.action_low.astype(np.float32), self.contract.action_high.astype(np.float32), dtype=np.float32
        )
        self.scene: Scene | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Build the scene of that seed, or `options["scene"]`.

        Raises:
            DataError: an impossible scene or an unknown option. UnknownNameError: nobody draws an object of the scene.
        """
        super().reset(seed=seed)
        unknown = set(options or {}) - {"scene"}
        if unknown:
            raise DataError(f"reset knows the option 'scene', got {sorted(unknown)}")
        scene = (options or {}).get("scene")
        if scene is None:
            scene = sample_scene(seed if seed is not None else int(self.np_random.integers(2**31)), self.variation)
        if not isinstance(scene, Scene):
            raise DataError(f"options['scene'] is a Scene (`Scene.from_json` reads one), got {type(scene).__name__}")
        scene.check()
        self.scene = scene
        illuminate(self.world.model, scene.look)  # before building, which places the camera
        if self._canvas is not None:
            self._canvas.paint(scene)
        self.world.build(scene)
        self.target_position, self.target_rotation = self.world.tool_position, self.world.tool_rotation
        self._home_rotation = self.target_rotation.copy()
        self.progress = Progress(scene, self.world.moment())
        self.max_steps = STEPS_A_TASK * len(scene.tasks) if self._limit is None else self._limit
        self._steps = self._clipped = 0
        self._show()
        return self._observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move for 0.1 s. The reward is 1 where the episode ends in success.

        Raises:
            DataError: the action is not seven finite numbers, or `reset` was not called.
        """
        if self.scene is None:
            raise DataError("call reset before step")
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != (7,) or not np.isfinite(wanted).all():
            raise DataError(f"an action is 7 finite numbers (Δx Δy Δz, Δroll Δpitch Δyaw, gripper), got {action!r}")
        bounded = np.clip(wanted, self.contract.action_low, self.contract.action_high)
        self._clipped += int((np.abs(bounded - wanted) > 1e-6).sum())
        self._aim(bounded)
        self.world.move(self.target_position, self.target_rotation, float(bounded[6]))
        self._steps += 1
        self.progress.advance(self.world.moment())
        over = self.progress.succeeded or self.progress.spoiled
        self._show()
        return self._observe(), float(self.progress.succeeded), over, not over and self._steps >= self.max_steps, self._info()

    def _aim(self, bounded: NDArray[np.float64]) -> None:
        """The tool's next target, within what this table allows."""
        turned = euler_matrix(bounded[3:6]) @ self.target_rotation
        tilt_is_fine = turned[:, 2] @ self._home_rotation[:, 2] > np.cos(_MAX_TILT)  # the tool keeps pointing down
        if tilt_is_fine and abs(euler_angles(turned @ self._home_rotation.T)[2]) < _MAX_TURN:
            self.target_rotation = turned
        self.target_position = np.clip(self.target_position + bounded[:3], WORKSPACE_LOW, WORKSPACE_HIGH)
        self.target_position[2] = max(self.target_position[2], self._floor())

    def render(self) -> Any:
        """The front camera's picture; None where a window shows it."""
        if self.render_mode == "human" or self._canvas is None:
            return None
        return self._canvas.picture(self.world.data, "front", self._cameras.get("front", CAMERAS["front"]))

    def close(self) -> None:
        """Free the GL context and close the window."""
        if self._canvas is not None:
            self._canvas.close()
        if self._window is not None:
            self._window.close()
            self._window = None

    def pointers(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the current task moves and where to, in the front picture, (column, row) in [−1, 1]: for training aids, never for
        policies.

        A block to be lifted has no other place to go to: for it both are the same. One that goes near another goes to a free place beside it, which
        depends on what else stands there (`placing.free_place`). A drawer's handle goes to where it is when the drawer is
        open, or closed: that tells on which side the drawer is.
        """
        if self.scene is None:
            raise DataError("call reset first")
        return self.pointers_of(self.progress.task)

    def pointers_of(self, task: Task) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same for any task of this scene."""
        if self.scene is None:
            raise DataError("call reset first")
        now = self.world.moment()
        if task.block is None:
            moved, goal = self.world.handle_position(), self.world.handle_position(DRAWER_TRAVEL * (task.skill == "open_drawer"))
        else:
            moved = now.positions[task.block]
            towards = goal_position(self.scene, task, now)
            goal = moved if towards is None else towards
        return project(self.world, "front", moved), project(self.world, "front", goal)

    def heading_of(self, task: Task) -> NDArray[np.float32]:
        """(sin 4ψ, cos 4ψ) of the heading ψ of the block that a task moves, which a quarter turn leaves alone; (0, 0) where it moves none:
        for training aids, never for policies.
        """
        if task.block is None:
            return np.zeros(2, np.float32)
        angle = 4 * self.world.block_yaw(task.block)
        return np.array([np.sin(angle), np.cos(angle)], np.float32)

    def _floor(self) -> float:
        """The height [m] of the tool below which a tilted gripper's lower finger would press into the table."""
        cosine = min(float(self.target_rotation[:, 2] @ self._home_rotation[:, 2]), 1.0)
        return float(0.003 + (self.world.arm.gripper.travel + 0.012) * np.sqrt(1 - cosine**2))

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        if self._window is None:
            from ornstein.simulation.tabletop.window import open_window

            self._window = open_window(self.world)
        self._window.sync()

    def _observe(self) -> dict[str, Any]:
        turned = euler_angles(self.world.tool_rotation @ self._home_rotation.T)
        state = np.concatenate([self.world.tool_position, turned, [self.world.closing]])
        seen = {"agent_pos": state.astype(np.float32), "instruction": "" if self.scene is None else self.scene.instruction}
        if self._canvas is None:
            return seen
        pictures = {name: self._canvas.picture(self.world.data, name, size) for name, size in self._cameras.items()}
        return {"pixels": pictures, **seen}

    def _info(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "is_success": progress.succeeded,
            "spoiled": progress.spoiled,
            "tasks_done": progress.done,
            "instruction": "" if self.scene is None else self.scene.instruction,
            "clipped": self._clipped,
        }


def euler_matrix(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation about the fixed x, then y, then z axis."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return np.array(
        [
            [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
            [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
            [-sy, sx * cy, cx * cy],
        ]
    )


def euler_angles(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `euler_matrix`, pitch within ±π/2."""
    return np.array(
        [
            np.arctan2(matrix[2, 1], matrix[2, 2]),
            np.arcsin(np.clip(-matrix[2, 0], -1, 1)),
            np.arctan2(matrix[1, 0], matrix[0, 0]),
        ]
    )
