"""Pictures of what happened, drawn again from its poses: at any size, from either camera, long after.

A policy sees small pictures; whoever judges it should see more. The physics is not run again, so nothing can turn out otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ornstein.simulation.tabletop.arms import ARM7, Arm
from ornstein.simulation.tabletop.canvas import Canvas
from ornstein.simulation.tabletop.painting import illuminate
from ornstein.simulation.tabletop.world import TabletopWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.scene import Scene


class Replay:
    """Draws films of `TabletopWorld`. Owns a GL context: `close` it."""

    def __init__(self, image_size: int = 384, arm: Arm = ARM7) -> None:
        """
        Args:
            image_size: side of the square pictures in pixels.

        Raises:
            RenderingError: there is no headless GL.
        """
        self._size = image_size
        self._world = TabletopWorld(arm)
        self._canvas = Canvas(self._world.model, image_size)

    def pictures(self, scene: Scene, film: Sequence[NDArray[np.float32]], camera: str = "front") -> list[NDArray[np.uint8]]:
        """One picture, RGB uint8 (size, size, 3), for each pose of a world's film of that scene.

        Raises:
            DataError: a pose has another number of coordinates than this world.
        """
        self._build(scene)
        drawn = []
        for pose in film:
            self._world.pose(pose)
            drawn.append(self._canvas.picture(self._world.data, camera, self._size))
        return drawn

    def still(self, scene: Scene, camera: str = "front") -> NDArray[np.uint8]:
        """The scene as an episode finds it, RGB uint8 (size, size, 3)."""
        self._build(scene)
        return self._canvas.picture(self._world.data, camera, self._size)

    def _build(self, scene: Scene) -> None:
        illuminate(self._world.model, scene.look)
        self._canvas.paint(scene)
        self._world.build(scene)

    def close(self) -> None:
        """Free the GL context."""
        self._canvas.close()
