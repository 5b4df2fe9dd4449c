"""Pictures of the tabletop with what is where in them: what a perception network learns from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError
from ornstein.simulation.tabletop import TabletopEnv, Variation, sample_scene, words
from ornstein.simulation.tabletop.world import project

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ornstein.simulation.tabletop import Scene

KINDS = ("block", "mat", "bowl", "handle")
#: Blocks, mats, the bowl and a handle at most.
MOST_THINGS = 10


def thing_names() -> tuple[str, ...]:
    """What blocks and mats of robot data may be called: objects first, then "number 3", "colour red", "symbol star"."""
    seen = words("seen")
    return (*seen.objects, *(f"{kind} {value}" for kind, values in seen.of_mats().items() for value in values))


@dataclass(frozen=True)
class Views:
    """B pictures, uint8 (B, S, S, 3), and the M things in each: present (B, M), kind and name as numbers (B, M), the centre's place in
    the picture (B, M, 2), (column, row) in −1 … 1, and the heading (B, M) [rad]. Bowls and handles have name 0.
    """

    pictures: NDArray[np.uint8]
    present: NDArray[np.bool_]
    kind: NDArray[np.int64]
    name: NDArray[np.int64]
    place: NDArray[np.float32]
    heading: NDArray[np.float32]


class TabletopViews:
    """Views of scenes by number; the arm stands at home. Owns a GL context: `close` it.

    A context belongs to one thread at a time, and trainings ask from another than they begin in: all drawing is done in a thread of its own.
    """

    def __init__(self, size: int = 128, *, seed: int = 0, variation: Variation | None = None) -> None:
        """
        Args:
            seed: of the stream; scene numbers are not those of any episode. variation: of the scenes; all skills by default.
        """
        self._seed, self._size = seed, size
        self._variation = Variation() if variation is None else variation
        self._drawing = ThreadPoolExecutor(1, "views")
        self._env = self._drawing.submit(TabletopEnv, cameras={"front": size}).result()
        self._names = {name: k for k, name in enumerate(thing_names())}

    def at(self, indices: Iterable[int]) -> Views:
        """The views of these numbers."""
        seen = self._drawing.submit(lambda: [self._view(int(i)) for i in indices]).result()
        if not seen:
            raise DataError("there must be at least one view to draw")
        return Views(*(np.stack(parts) for parts in zip(*seen, strict=True)))

    def camera(self) -> dict[str, Any]:
        """The front camera's calibration: position [m], axes as columns (right, up, backward), vertical field of view [rad]."""
        self._drawing.submit(self._env.reset, seed=0).result()
        model, data = self._env.world.model, self._env.world.data
        front = model.camera("front").id
        return {
            "position": data.cam_xpos[front].tolist(),
            "axes": data.cam_xmat[front].reshape(3, 3).tolist(),
            "field_of_view": float(np.radians(model.cam_fovy[front])),
        }

    def close(self) -> None:
        """Free the GL context."""
        self._drawing.submit(self._env.close).result()
        self._drawing.shutdown()

    def _view(self, index: int) -> tuple[NDArray[np.generic], ...]:
        scene = sample_scene(number_of_view(self._seed, index), self._variation)
        observation, _ = self._env.reset(options={"scene": scene})
        present, kind, name = np.zeros(MOST_THINGS, bool), np.zeros(MOST_THINGS, np.int64), np.zeros(MOST_THINGS, np.int64)
        place, heading = np.zeros((MOST_THINGS, 2), np.float32), np.zeros(MOST_THINGS, np.float32)
        for k, (what, named, point, yaw) in enumerate(self._things(scene)):
            present[k], kind[k], name[k] = True, KINDS.index(what), self._names.get(named, 0)
            place[k], heading[k] = project(self._env.world, "front", point), yaw
        return observation["pixels"]["front"], present, kind, name, place, heading

    def _things(self, scene: Scene) -> list[tuple[str, str, NDArray[np.float64], float]]:
        positions = self._env.world.moment().positions
        things = [("block", block.name, positions[k], block.yaw) for k, block in enumerate(scene.blocks)]
        things += [("mat", f"{mat.kind} {mat.value}", np.array([mat.x, mat.y, 0.0]), 0.0) for mat in scene.mats]
        if scene.bowl is not None:
            things.append(("bowl", "", np.array([scene.bowl.x, scene.bowl.y, 0.0]), 0.0))
        if scene.cabinet is not None:
            things.append(("handle", "", self._env.world.handle_position(), 0.0))
        return things


def number_of_view(seed: int, index: int) -> int:
    """A scene's seed far from those of episodes, which are small numbers."""
    return 10_000_000 + 100_000_000 * seed + index
