"""Headless pictures of the tabletop, and drawings onto the blocks."""

from __future__ import annotations

import ctypes.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import RenderingError
from ornstein.simulation.model import TEXTURE_SIZE

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

_FACE_COLOR = np.array([250, 249, 244], dtype=np.float64)
_MARGIN = 6
_REMEDY = "install one with: sudo apt-get update && sudo apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"


def mujoco_module() -> ModuleType:
    """mujoco, told to render off screen: it reads MUJOCO_GL when it is first imported. A value set by the user stays."""
    if "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") or not ctypes.util.find_library("OSMesa") else "osmesa"
    import mujoco

    return mujoco


class SceneRenderer:
    """Pictures of one world at one size. Owns a GL context: call `close`."""

    def __init__(self, model: Any, height: int, width: int) -> None:
        """
        Raises:
            RenderingError: no headless GL could be opened.
        """
        mujoco = mujoco_module()
        self._mujoco, self._model = mujoco, model
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:
            backend = os.environ.get("MUJOCO_GL", "unset")
            raise RenderingError(f"cannot render without a screen (MUJOCO_GL={backend}: {error}); {_REMEDY}") from error
        scene = self._renderer.scene
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX):
            scene.flags[flag] = False

    def paint(self, slot: int, name: str) -> None:
        """Put the drawing `name` on all six faces of block `slot`, upright towards the front camera."""
        texture = self._mujoco.mj_name2id(self._model, self._mujoco.mjtObj.mjOBJ_TEXTURE, f"block{slot}")
        faces = _faces(name)
        start = int(self._model.tex_adr[texture])
        self._model.tex_data[start : start + faces.size] = faces.reshape(-1)
        self._renderer._gl_context.make_current()  # several worlds may live in one process
        self._mujoco.mjr_uploadTexture(self._model, self._renderer._mjr_context, texture)

    def picture(self, data: Any, camera: str) -> NDArray[np.uint8]:
        """What that camera sees now: RGB, uint8 (height, width, 3)."""
        self._renderer.update_scene(data, camera=camera)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()


def _faces(name: str) -> NDArray[np.uint8]:
    """Six square faces, one above the other, in MuJoCo's order: right, left, up, down, front, back."""
    stamp = openmoji.drawing(name, TEXTURE_SIZE - 2 * _MARGIN).astype(np.float64)
    face = np.tile(_FACE_COLOR, (TEXTURE_SIZE, TEXTURE_SIZE, 1))
    inner = face[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    alpha = stamp[..., 3:] / 255
    inner[:] = inner * (1 - alpha) + stamp[..., :3] * alpha
    square = face.round().astype(np.uint8)
    return np.tile(square, (6, 1, 1))
