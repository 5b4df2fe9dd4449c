"""Pictures that a model is asked about, and places marked in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

#: Of marks, in their order.
COLORS = ((220, 30, 30), (30, 90, 220))
_RADIUS = 5


def require_picture(image: Path) -> None:
    """
    Raises:
        DataError: there is no such file.
    """
    if not image.is_file():
        raise DataError(f"there is no picture {image}")


def square_of(image: Path, side: int) -> NDArray[np.uint8]:
    """The middle square of a picture file, (side, side, 3).

    Raises:
        DataError: it is no picture.
    """
    from ornstein.data.pictures import read_square

    try:
        pixels, _ = read_square(image, side)
    except DataError as error:
        raise DataError(f"{image} {error}") from error
    return pixels


def marked(pixels: NDArray[np.uint8], places: Sequence[Sequence[float]]) -> Image:
    """The picture with a circle around each place.

    Args:
        places: (column, row) in pixels.
    """
    from PIL import Image, ImageDraw

    shown = Image.fromarray(pixels)
    for (x, y), color in zip(places, COLORS, strict=False):
        ImageDraw.Draw(shown).ellipse([x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS], outline=color, width=2)
    return shown
