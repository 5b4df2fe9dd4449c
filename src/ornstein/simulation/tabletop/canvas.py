"""Headless pictures of a tabletop: one GL context that draws from any camera at any size up to its own."""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError
from ornstein.simulation.rendering import mujoco_module, no_gl
from ornstein.simulation.tabletop.painting import textures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.scene import Scene

_MOST_SHAPES = 200

_open: weakref.WeakSet[Canvas] = weakref.WeakSet()


class Canvas:
    """Owns a GL context: call `close`, or let the end of the process do it."""

    def __init__(self, model: Any, size: int) -> None:
        """
        Args:
            size: side of the largest picture in pixels.

        Raises:
            RenderingError: no headless GL could be opened.
        """
        mujoco = mujoco_module()
        self._mujoco, self._model, self._size = mujoco, model, size
        self._context: Any = None
        self._gl: Any = None
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        # mujoco's finalisers read attributes that a failed constructor never set, and complain on stderr.
        if hasattr(mujoco.gl_context, "GLContext"):
            mujoco.gl_context.GLContext._context = None
        try:
            self._gl = mujoco.gl_context.GLContext(size, size)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        except Exception as error:
            raise no_gl(error) from error
        if not _open:
            # Registered after EGL's own hook, which the first context registers, and so run before it.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _open.add(self)
        self._scene = mujoco.MjvScene(model, _MOST_SHAPES)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX):
            self._scene.flags[flag] = False
        self._options, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._ids = {name: model.camera(name).id for name in ("front", "wrist")}
        self._shown: dict[str, NDArray[np.uint8]] = {}

    def paint(self, scene: Scene) -> None:
        """Faces, mats and table of a scene."""
        for name, pixels in textures(scene):
            if self._shown.get(name) is not pixels:  # what is cached and lies there already need not be sent again
                self._upload(name, pixels)

    def _upload(self, name: str, pixels: NDArray[np.uint8]) -> None:
        texture = self._mujoco.mj_name2id(self._model, self._mujoco.mjtObj.mjOBJ_TEXTURE, name)
        start = int(self._model.tex_adr[texture])
        self._model.tex_data[start : start + pixels.size] = pixels.reshape(-1)
        self._gl.make_current()  # several worlds may live in one process
        self._mujoco.mjr_uploadTexture(self._model, self._context, texture)
        self._shown[name] = pixels

    def picture(self, data: Any, camera: str, size: int) -> NDArray[np.uint8]:
        """What that camera sees now: RGB, uint8 (size, size, 3).

        Raises:
            DataError: larger than this canvas, or it is closed.
        """
        if size > self._size or self._context is None:
            raise DataError(
                f"a canvas of {self._size} pixels {'is closed' if self._context is None else 'has no room'} for {size}"
            )
        mujoco = self._mujoco
        self._gl.make_current()
        self._camera.fixedcamid = self._ids[camera]
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        area = mujoco.MjrRect(0, 0, size, size)
        pixels = np.empty((size, size, 3), dtype=np.uint8)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, area, self._context)
        return np.ascontiguousarray(pixels[::-1])  # GL's first row is the lowest

    def close(self) -> None:
        """Free the GL context; a second call does nothing."""
        context, gl = self._context, self._gl
        self._context = self._gl = None
        _open.discard(self)
        if context is None:
            return
        # Textures are freed in whichever context is current: without this, in another world's.
        gl.make_current()
        context.free()
        gl.free()

    def __del__(self) -> None:
        self.close()


def _close_all() -> None:
    for canvas in list(_open):
        canvas.close()
