"""Icons: one OpenMoji drawing on a plain ground, at 32 or 64 px. What small pixel models are trained and compared on.

There is a known number of kinds: every name on each of twelve background colours. Place, size and the exact colour vary, so that a
model cannot do well by storing pictures. Icon i of a stream is a pure function of (seed, i), as for scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import DataError
from ornstein.data.scenes import BACKGROUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_JITTER = 5
#: Of the picture's side: the drawing's smallest and largest side, and how far it may stand off the middle.
_SIZES = (0.75, 0.875)
_SHIFT = 0.03125


@dataclass(frozen=True)
class IconKind:
    """What an icon shows."""

    name: str
    background: str


def icon_names(count: int) -> tuple[str, ...]:
    """`count` names spread evenly over the vocabulary, so that every group of things is among them.

    Raises:
        DataError: fewer than one, or more than there are.
    """
    vocabulary = openmoji.names()
    if not 1 <= count <= len(vocabulary):
        raise DataError(f"between 1 and {len(vocabulary)} names can be asked for, got {count}")
    return tuple(vocabulary[k * len(vocabulary) // count] for k in range(count))


def icons(
    indices: Sequence[int] | NDArray[np.int64], *, names: Sequence[str], seed: int = 0, resolution: int = 32
) -> tuple[NDArray[np.uint8], list[IconKind]]:
    """Icons of a stream, RGB uint8 (n, resolution, resolution, 3), and what each shows.

    Args:
        indices: ≥ 0. names: to draw from, each as often. seed: names the stream; training uses 0. resolution: at least 16.

    Raises:
        DataError: a number is out of range, or there are no names. UnknownNameError: a name is not in the vocabulary.
    """
    if resolution < 16 or not names or seed < 0 or any(int(index) < 0 for index in indices):
        raise DataError(
            f"icons take a resolution of at least 16, a name or more, and a seed and indices of at least 0, got resolution {resolution},"
            f" {len(names)} names, seed {seed}"
        )
    pictures = np.empty((len(indices), resolution, resolution, 3), np.uint8)
    kinds = []
    for row, index in enumerate(indices):
        rng = np.random.default_rng([seed, int(index), 6])
        kind = IconKind(names[int(rng.integers(len(names)))], list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))])
        ground = np.clip(np.array(BACKGROUNDS[kind.background]) + rng.integers(-_JITTER, _JITTER + 1, 3), 0, 255)
        side = int(rng.integers(round(_SIZES[0] * resolution), round(_SIZES[1] * resolution) + 1))
        reach = max(1, round(_SHIFT * resolution))
        top, left = (resolution - side) // 2 + rng.integers(-reach, reach + 1, 2)
        pictures[row] = ground
        drawing = openmoji.drawing(kind.name, side).astype(np.uint32)
        place = pictures[row, top : top + side, left : left + side]
        alpha = drawing[..., 3:]
        place[:] = (drawing[..., :3] * alpha + place * (255 - alpha) + 127) // 255
        kinds.append(kind)
    return pictures, kinds
