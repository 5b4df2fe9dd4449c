"""The tabletop as a gymnasium environment.

A task: pick up the block that the sentence names. The action moves the tool; success is judged from physics alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ornstein.core.contract import Camera, Channel, EmbodimentContract
from ornstein.core.errors import DataError
from ornstein.simulation.rendering import SceneRenderer
from ornstein.simulation.scene import Scene, sample_scene
from ornstein.simulation.world import CONTROL_HZ, TabletopWorld, project

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TRANSLATION = 0.04
MAX_ROTATION = 0.25
WORKSPACE_LOW = np.array([0.32, -0.24, 0.014])
WORKSPACE_HIGH = np.array([0.70, 0.24, 0.30])
LIFT_HEIGHT = 0.08
_LIFTED_BY_MISTAKE = 0.02
_HELD_STEPS = 2
_MAX_TILT = 0.35
# Further from the home heading, the wrist would meet its stop somewhere in the workspace.
_MAX_TURN = 1.35
_MAX_IMAGE_SIZE = 640
# From the tool's axis to the far side of an open finger [m].
_FINGER_REACH = 0.052
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


def contract(image_size: int = 128, cameras: tuple[str, ...] = ("front",)) -> EmbodimentContract:
    """What a policy must agree with to drive this arm."""
    return EmbodimentContract(
        robot="ornstein-tabletop-arm7",
        cameras=tuple(Camera(name, image_size, image_size) for name in cameras),
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
    ±0.04 m and ±0.25 rad, and the gripper's command, 0 open … 1 closed. What is out of bounds is clipped and counted in
    `info["clipped"]`. The target stays in a box over the table, tilted at most 0.35 rad and turned at most 1.35 rad from home;
    a rotation that would lead beyond is left out. One step is 0.2 s. An episode ends when a block has been held at least 8 cm
    above its place by both fingers for two steps: with success if it is the named one and no other is up, as a failure if it is
    another (else trying one after the other would succeed without reading); or after `max_steps`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  (gymnasium's attribute)

    def __init__(
        self, *, image_size: int = 128, cameras: tuple[str, ...] = ("front",), max_steps: int = 40, render_mode: str = "rgb_array"
    ) -> None:
        """
        Args:
            image_size: side of the square pictures in pixels. cameras: "front", "wrist" or both. max_steps: of 0.2 s.

        Raises:
            RenderingError: there is no headless GL. DataError: an unknown camera or render mode, a size or length out of range.
        """
        if not 16 <= image_size <= _MAX_IMAGE_SIZE or max_steps < 1:
            raise DataError(
                f"pictures are 16 to {_MAX_IMAGE_SIZE} pixels wide and an episode has a step at least, "
                f"got image_size {image_size} and max_steps {max_steps}"
            )
        if not cameras or set(cameras) - {"front", "wrist"} or render_mode != "rgb_array":
            raise DataError(
                f"the tabletop has cameras 'front' and 'wrist' and renders 'rgb_array', got {cameras} and {render_mode!r}"
            )
        self.contract = contract(image_size, cameras)
        self.render_mode = render_mode
        self.max_steps = max_steps
        self.world = TabletopWorld()
        self._renderer = SceneRenderer(self.world.model, image_size, image_size)
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        low, high = (np.array([getattr(c, side) for c in _STATE], dtype=np.float32) for side in ("low", "high"))
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(cameras, picture)),
                "agent_pos": spaces.Box(low, high, dtype=np.float32),
                "instruction": spaces.Text(300, charset=_CHARACTERS),
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
            scene = sample_scene(seed if seed is not None else int(self.np_random.integers(2**31)))
        if not isinstance(scene, Scene):
            raise DataError(f"options['scene'] is a Scene (`Scene.from_json` reads one), got {type(scene).__name__}")
        scene.check()
        self.scene = scene
        for slot, block in enumerate(scene.blocks):
            self._renderer.paint(slot, block.name)
        self.world.build(scene)
        self.target_position, self.target_rotation = self.world.tool_position, self.world.tool_rotation
        self._home_rotation = self.target_rotation.copy()
        self._steps = self._held = self._held_wrongly = self._clipped = 0
        return self._observe(), self._info(success=False)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move for 0.2 s.

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
        turned = _euler_matrix(bounded[3:6]) @ self.target_rotation
        tilt_is_fine = turned[:, 2] @ self._home_rotation[:, 2] > np.cos(_MAX_TILT)  # the tool keeps pointing down
        if tilt_is_fine and abs(_euler_angles(turned @ self._home_rotation.T)[2]) < _MAX_TURN:
            self.target_rotation = turned
        self.target_position = np.clip(self.target_position + bounded[:3], WORKSPACE_LOW, WORKSPACE_HIGH)
        self.target_position[2] = max(self.target_position[2], self._floor())
        self.world.move(self.target_position, self.target_rotation, float(bounded[6]))
        self._steps += 1
        self._held = self._held + 1 if self._is_solved() else 0
        others = [k for k in range(len(self.scene.blocks)) if k != self.scene.target]
        self._held_wrongly = self._held_wrongly + 1 if any(map(self._is_held, others)) else 0
        success = self._held >= _HELD_STEPS
        over = success or self._held_wrongly >= _HELD_STEPS
        return self._observe(), float(success), over, not over and self._steps >= self.max_steps, self._info(success)

    def render(self) -> NDArray[np.uint8]:
        """The front camera's picture."""
        return self._renderer.picture(self.world.data, "front")

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()

    def target_pixel(self) -> NDArray[np.float32]:
        """Centre of the named block in the front picture, (column, row) in [−1, 1]: for training aids, never for policies."""
        if self.scene is None:
            raise DataError("call reset first")
        return project(self.world, "front", self.world.block_position(self.scene.target))

    def _floor(self) -> float:
        """The height [m] of the tool below which a tilted gripper's lower finger would press into the table."""
        cosine = min(float(self.target_rotation[:, 2] @ self._home_rotation[:, 2]), 1.0)
        return float(0.003 + _FINGER_REACH * np.sqrt(1 - cosine**2))

    def _is_held(self, slot: int) -> bool:
        return self.world.height(slot) >= LIFT_HEIGHT and self.world.touching_fingers(slot) == {"left", "right"}

    def _is_solved(self) -> bool:
        if self.scene is None or not self._is_held(self.scene.target):
            return False
        others = (self.world.height(k) for k in range(len(self.scene.blocks)) if k != self.scene.target)
        return max(others, default=0.0) < _LIFTED_BY_MISTAKE

    def _observe(self) -> dict[str, Any]:
        scene = self.scene
        state = np.concatenate(
            [self.world.tool_position, _euler_angles(self.world.tool_rotation @ self._flip()), [self.world.closing]]
        )
        return {
            "pixels": {c.name: self._renderer.picture(self.world.data, c.name) for c in self.contract.cameras},
            "agent_pos": state.astype(np.float32),
            "instruction": scene.instruction if scene is not None else "",
        }

    def _flip(self) -> NDArray[np.float64]:
        # The tool points down: angles are measured from the home pose, where they are zero.
        return self._home_rotation.T

    def _info(self, success: bool) -> dict[str, Any]:
        scene = self.scene
        if scene is None:
            return {}
        lifted = [b.name for k, b in enumerate(scene.blocks) if self.world.height(k) >= _LIFTED_BY_MISTAKE]
        return {
            "is_success": bool(success),
            "instruction": scene.instruction,
            "target": scene.blocks[scene.target].name,
            "lifted": lifted,
            "clipped": self._clipped,
        }


def _euler_matrix(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation about the fixed x, then y, then z axis."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return np.array(
        [
            [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
            [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
            [-sy, sx * cy, cx * cy],
        ]
    )


def _euler_angles(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `_euler_matrix`, pitch within ±π/2."""
    return np.array(
        [
            np.arctan2(matrix[2, 1], matrix[2, 2]),
            np.arcsin(np.clip(-matrix[2, 0], -1, 1)),
            np.arctan2(matrix[1, 0], matrix[0, 0]),
        ]
    )
