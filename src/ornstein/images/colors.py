"""Which colour is a drawing painted? Read by comparing it with the drawing in each colour that it can have."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ornstein.assets import openmoji

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of 255, a channel's mean over the drawing: variants nearer than this look the same. A red car is a car painted red.
_SAME = 18.0
_SIDE = 64
_SOFTNESS = 1.5  # pixels
#: Generated drawings lie a pixel or two beside where they belong.
_SHIFTS = tuple((dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2))


@lru_cache(maxsize=1)
def _paintable() -> frozenset[str]:
    return frozenset(openmoji.paintable_names())


@lru_cache(maxsize=4096)
def looks_like(name: str, color: str) -> str:
    """The colour by which a variant goes here: empty where painting `name` in `color` hardly changes it."""
    if not color or name not in _paintable():
        return ""
    own, painted = (openmoji.drawing(name, _SIDE, variant).astype(np.float64) for variant in ("", color))
    weight = own[..., 3] / 255
    return "" if (np.abs(own - painted)[..., :3].mean(-1) * weight).sum() < _SAME * weight.sum() else color


def read_color(picture: NDArray[np.uint8], name: str, x: float, y: float, size: float) -> str:
    """The colour of the drawing called `name` at (x, y) with sides of `size` pixels; empty for its own.

    Args:
        picture: RGB uint8 (h, w, 3).
    """
    if name not in _paintable():
        return ""
    from scipy.ndimage import gaussian_filter

    side = max(8, round(size))
    top, left = round(y - side / 2) + side, round(x - side / 2) + side
    # Both are made soft, so that it does not matter how soft the picture is.
    softened = gaussian_filter(picture.astype(np.float64), (_SOFTNESS, _SOFTNESS, 0))
    padded = np.pad(softened, ((side, side), (side, side), (0, 0)), mode="edge")
    patches = np.stack([padded[top + dy : top + dy + side, left + dx : left + dx + side] for dy, dx in _SHIFTS])
    own = openmoji.drawing(name, side)
    alpha = own[..., 3:] / 255
    ground = np.median(np.concatenate([picture[:4], picture[-4:]]).reshape(-1, 3), axis=0)
    errors = {}
    for color in ("", *openmoji.COLORS):
        variant = openmoji.painted(own, color) if color else own
        expected = gaussian_filter(alpha * variant[..., :3] + (1 - alpha) * ground, (_SOFTNESS, _SOFTNESS, 0))
        errors[color] = float((np.abs(patches - expected).mean(-1) * alpha[..., 0]).sum((1, 2)).min())
    return looks_like(name, min(errors, key=lambda color: errors[color]))
