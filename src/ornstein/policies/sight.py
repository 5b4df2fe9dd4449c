"""What a `CentreNet` found in a picture, and where that is on the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch.nn import functional

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.networks.centre_net import Centres

_SURE = 0.3


class Thing(NamedTuple):
    """One found thing. kind: its number. names: log-probability of each name (N,). place: its centre, (column, row) in −1 … 1.
    heading: [rad], of a square thing within ±π/4. score: 0 … 1.
    """

    kind: int
    names: NDArray[np.float64]
    place: NDArray[np.float64]
    heading: float
    score: float


def found_things(said: Centres, index: int, threshold: float = _SURE) -> list[Thing]:
    """The local maxima of a picture's heat above the threshold, the surest first."""
    heat = said.heat[index].sigmoid()
    peaks = (heat == functional.max_pool2d(heat[None], 3, stride=1, padding=1)[0]) & (heat >= threshold)
    grid = heat.shape[-1]
    things = []
    for kind, row, column in peaks.nonzero().tolist():
        offset = said.offset[index, :, row, column].numpy().astype(np.float64)
        cos, sin = said.turn[index, :, row, column].tolist()
        place = (np.array([column, row]) + offset) / grid * 2 - 1
        names = said.names[index, :, row, column].log_softmax(0).numpy().astype(np.float64)
        things.append(Thing(kind, names, place, float(np.arctan2(sin, cos) / 4), float(heat[kind, row, column])))
    return sorted(things, key=lambda thing: -thing.score)


class Camera(NamedTuple):
    """A calibrated camera that looks at the table. position: [m] in the robot's base frame. axes: (3, 3), its right, up and backward
    directions as columns. field_of_view: vertical [rad]; pictures are square.
    """

    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    field_of_view: float

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Camera:
        """
        Raises:
            DataError: it lacks a number.
        """
        try:
            camera = cls(np.array(data["position"], np.float64), np.array(data["axes"], np.float64), float(data["field_of_view"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is not a camera's calibration: {error}") from error
        if camera.position.shape != (3,) or camera.axes.shape != (3, 3) or not 0 < camera.field_of_view < np.pi:
            raise DataError("a camera has a position (3,), axes (3, 3) and a field of view within 0 … π")
        return camera

    def on_plane(self, place: NDArray[np.float64], height: float) -> NDArray[np.float64]:
        """The point (x, y) [m] at that height whose picture is at `place`, (column, row) in −1 … 1."""
        reach = np.tan(self.field_of_view / 2)
        ray = self.axes @ np.array([place[0] * reach, -place[1] * reach, -1.0])
        along = (height - self.position[2]) / ray[2]
        return np.asarray((self.position + along * ray)[:2])
