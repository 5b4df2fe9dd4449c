"""Pictures without a screen: which backend, whose context, and what is said where there is none."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import numpy as np
import pytest

from ornstein.simulation.tabletop import TabletopEnv

REPORT = (
    "from ornstein.core.errors import RenderingError\n"
    "from ornstein.simulation.tabletop import TabletopEnv\n"
    "try:\n"
    "    env = TabletopEnv(cameras={'front': 64})\n"
    "    env.reset(seed=0)\n"
    "    import hashlib, os\n"
    "    print('drawn by', os.environ['MUJOCO_GL'], hashlib.sha256(env.render().tobytes()).hexdigest())\n"
    "except RenderingError as error:\n"
    "    print('refused:', error)\n"
)


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, without the backend that this one has chosen."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"MUJOCO_GL", "PYOPENGL_PLATFORM"}}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**inherited, **environment}
    )


def test_without_a_gl_the_error_names_the_remedy() -> None:
    broken = "import mujoco\ndef broken(*a, **k): raise ImportError('no EGL device')\nmujoco.gl_context.GLContext = broken\n"
    done = _python(broken + REPORT, MUJOCO_GL="egl")
    assert done.stdout.startswith("refused:")
    assert "apt-get install -y libegl1" in done.stdout
    assert "no EGL device" in done.stdout


def test_with_no_library_at_all_the_error_names_the_remedy() -> None:
    """PyOpenGL, too, finds nothing where the linker finds nothing."""
    hidden = (
        "import ctypes, ctypes.util\n"
        "ctypes.util.find_library = lambda name: None\n"
        "load = ctypes.CDLL.__init__\n"
        "def refuse(self, name, *a, **k):\n"
        "    if name and any(part in str(name) for part in ('EGL', 'OSMesa', 'OpenGL', 'libGL')): raise OSError(name)\n"
        "    load(self, name, *a, **k)\n"
        "ctypes.CDLL.__init__ = refuse\n"
    )
    done = _python(hidden + REPORT)
    assert done.stdout.startswith("refused:")
    assert "apt-get install -y libegl1" in done.stdout


@pytest.mark.parametrize("value", ["nonsense", "disabled"])
def test_a_wrong_choice_by_hand_is_named_and_nothing_else_is_printed(value: str) -> None:
    done = _python(REPORT, MUJOCO_GL=value)
    assert done.stdout.startswith(f"refused: cannot render without a screen (MUJOCO_GL={value}")
    assert "unset it" in done.stdout
    assert done.stderr == ""


def test_each_installed_backend_draws_and_the_process_ends_silently() -> None:
    """The environment is never closed here: its context must be freed before EGL itself is."""
    for library, backend in (("EGL", "egl"), ("OSMesa", "osmesa")):
        done = _python(REPORT, MUJOCO_GL=backend)
        assert done.stdout.startswith(f"drawn by {backend}" if ctypes.util.find_library(library) else "refused:")
        assert done.stderr == ""


def test_an_egl_without_a_driver_gives_way_to_osmesa() -> None:
    done = _python(REPORT, __EGL_VENDOR_LIBRARY_FILENAMES="/nowhere")
    assert done.stdout.startswith("drawn by osmesa" if ctypes.util.find_library("OSMesa") else "refused:")


def test_an_egl_without_a_libgl_gives_way_to_osmesa() -> None:
    """A bare machine: EGL answers, but PyOpenGL finds no GL behind it."""
    hidden = "import ctypes.util\nfind = ctypes.util.find_library\nctypes.util.find_library = lambda n: None if n in ('OpenGL', 'GL') else find(n)\n"
    done = _python(hidden + REPORT)
    # Without OSMesa EGL is tried all the same: PyOpenGL may know more places than the linker does.
    assert done.stdout.startswith("drawn by osmesa" if ctypes.util.find_library("OSMesa") else ("drawn by egl", "refused:"))
    assert done.stderr == ""


def test_a_mujoco_that_was_imported_first_draws_without_a_screen_too() -> None:
    done = _python("import mujoco\n" + REPORT, MUJOCO_GL="")  # an empty value is no choice
    assert done.stdout.startswith(("drawn by egl", "drawn by osmesa"))


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_closing_one_world_leaves_the_pictures_of_another_alone(backend: str) -> None:
    """Both contexts number their textures from one: freed in the wrong one, the other's blocks turn blank."""
    if ctypes.util.find_library({"egl": "EGL", "osmesa": "OSMesa"}[backend]) is None:
        assert _python(REPORT, MUJOCO_GL=backend).stdout.startswith("refused:")
        return
    code = (
        "from ornstein.simulation.tabletop import TabletopEnv\n"
        "for closing in ('close', '__del__'):\n"
        "    ours, other = TabletopEnv(cameras={'front': 64}), TabletopEnv(cameras={'front': 64})\n"
        "    other.reset(seed=4), ours.reset(seed=3)\n"
        "    before = ours.render()\n"
        "    getattr(other._canvas, closing)()\n"
        "    print((ours.render() == before).all())\n"
    )
    assert _python(code, MUJOCO_GL=backend).stdout == "True\nTrue\n"


def test_worlds_in_one_process_draw_their_own_blocks() -> None:
    one, other = TabletopEnv(cameras={"front": 64}), TabletopEnv(cameras={"front": 64})
    alone = [one.reset(seed=seed)[0]["pixels"]["front"] for seed in (5, 6)]
    one.reset(seed=5), other.reset(seed=6)
    assert np.array_equal(one.render(), alone[0])
    assert np.array_equal(other.render(), alone[1])
    one.close(), other.close()
    one.close()
