"""A window on a world, where a display exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ornstein.core.errors import RenderingError

if TYPE_CHECKING:
    from ornstein.simulation.tabletop.world import TabletopWorld


def open_window(world: TabletopWorld) -> Any:
    """MuJoCo's own viewer beside the simulation; `sync` shows the present, `close` ends it.

    Raises:
        RenderingError: there is no display.
    """
    import os
    import sys

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RenderingError("there is no display for a window (DISPLAY is not set): use render_mode='rgb_array'")
    import mujoco.viewer

    try:
        return mujoco.viewer.launch_passive(world.model, world.data, show_left_ui=False, show_right_ui=False)
    except Exception as error:
        raise RenderingError(f"cannot open a window: {error}; use render_mode='rgb_array'") from error
