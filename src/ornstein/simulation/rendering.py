"""Headless pictures of the tabletop, and drawings onto the blocks."""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import importlib
import os
import sys
import weakref
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
_REMEDY = (
    "install one with: sudo apt-get update && sudo apt-get install -y libegl1 libopengl0 libgl1-mesa-dri libosmesa6; "
    "if MUJOCO_GL or PYOPENGL_PLATFORM was set by hand, unset it"
)
_EGL_PLATFORM_DEVICE = 0x313F
_MOST_DEVICES = 16

_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def mujoco_module() -> ModuleType:
    """mujoco, told to render off screen: EGL, else OSMesa. A MUJOCO_GL set by the user stays, and so does a Mac's own choice.

    Raises:
        RenderingError: mujoco refuses MUJOCO_GL's value, or the library that it names cannot be loaded.
    """
    late = "mujoco" in sys.modules
    chosen_here = sys.platform == "linux" and not os.environ.get("MUJOCO_GL")
    if chosen_here:
        os.environ["MUJOCO_GL"] = "osmesa" if ctypes.util.find_library("OSMesa") and not _egl_can_draw() else "egl"
    try:
        import mujoco

        if late and chosen_here:  # imported before us, it has decided for windows
            mujoco.gl_context.GLContext = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext
    except (ImportError, RuntimeError, AttributeError, OSError, ctypes.ArgumentError) as error:
        raise no_gl(error) from error
    return mujoco


def no_gl(error: Exception) -> RenderingError:
    """What to say, and how to mend it, where GL cannot be opened."""
    backend = os.environ.get("MUJOCO_GL", "unset")
    return RenderingError(f"cannot render without a screen (MUJOCO_GL={backend}: {error}); {_REMEDY}")


def _egl_can_draw() -> bool:
    """Whether EGL opens a device. mujoco fixes its choice at import, and an installed EGL may still lack a driver.

    PyOpenGL, through which mujoco speaks to EGL, also wants a libOpenGL or libGL, which EGL's package does not bring.
    """
    library = ctypes.util.find_library("EGL")
    if library is None or not (ctypes.util.find_library("OpenGL") or ctypes.util.find_library("GL")):
        return False
    egl = ctypes.CDLL(library)
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query_at = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_at = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_at or not display_at:
        return False
    pointer, number = ctypes.c_void_p, ctypes.c_int
    query = ctypes.CFUNCTYPE(ctypes.c_uint, number, pointer, ctypes.POINTER(number))(query_at)
    display_of = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(display_at)
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    devices, found = (pointer * _MOST_DEVICES)(), number()
    if not query(_MOST_DEVICES, ctypes.cast(devices, pointer), ctypes.byref(found)):
        return False
    displays = (display_of(_EGL_PLATFORM_DEVICE, device, None) for device in devices[: found.value])
    return any(display and egl.eglInitialize(display, None, None) for display in displays)


class SceneRenderer:
    """Pictures of one world at one size. Owns a GL context: call `close`, or let the end of the process do it."""

    def __init__(self, model: Any, height: int, width: int) -> None:
        """
        Raises:
            RenderingError: no headless GL could be opened.
        """
        mujoco = mujoco_module()
        self._mujoco, self._model = mujoco, model
        self._renderer: Any = None
        # mujoco's finalisers read attributes that a failed constructor never set, and complain on stderr.
        mujoco.Renderer._gl_context = mujoco.Renderer._mjr_context = None
        if hasattr(mujoco.gl_context, "GLContext"):
            mujoco.gl_context.GLContext._context = None
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:
            raise no_gl(error) from error
        if not _open:
            # Registered after EGL's own hook, which the first context registers, and so run before it.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _open.add(self)
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
        """Free the GL context; a second call does nothing."""
        renderer, self._renderer = self._renderer, None
        _open.discard(self)
        if renderer is None:
            return
        # Textures are freed in whichever context is current: without this, in another world's.
        renderer._gl_context.make_current()
        renderer._mjr_context.free()
        renderer.close()

    def __del__(self) -> None:
        self.close()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


def _faces(name: str) -> NDArray[np.uint8]:
    """Six square faces, one above the other, in MuJoCo's order: right, left, up, down, front, back."""
    stamp = openmoji.drawing(name, TEXTURE_SIZE - 2 * _MARGIN).astype(np.float64)
    face = np.tile(_FACE_COLOR, (TEXTURE_SIZE, TEXTURE_SIZE, 1))
    inner = face[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    alpha = stamp[..., 3:] / 255
    inner[:] = inner * (1 - alpha) + stamp[..., :3] * alpha
    square = face.round().astype(np.uint8)
    return np.tile(square, (6, 1, 1))
