"""MuJoCo told to draw without a screen, and what to say where it cannot."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import os
import sys
from typing import TYPE_CHECKING

from ornstein.core.errors import RenderingError

if TYPE_CHECKING:
    from types import ModuleType


_REMEDY = (
    "install one with: sudo apt-get update && sudo apt-get install -y libegl1 libopengl0 libgl1-mesa-dri libosmesa6; "
    "if MUJOCO_GL or PYOPENGL_PLATFORM was set by hand, unset it"
)
_EGL_PLATFORM_DEVICE = 0x313F
_MOST_DEVICES = 16


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
