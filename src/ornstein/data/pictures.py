"""Any picture file as the models take it: upright, RGB of 8 bits on white, a square of a given side."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SMALLEST_SIDE = 32
FIRST_FRAME, ENLARGED = "animated or of several pages: the first picture is taken", "smaller than the model's pictures: enlarged"
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def to_rgb(image: Image, behind: str = "white") -> Image:
    """RGB of 8 bits: 16 bits scaled, what is transparent on the colour `behind`, CMYK, palettes and grey converted.

    Raises:
        DataError: its numbers have no scale.
    """
    import PIL.Image

    if image.mode == "F":
        raise DataError("a picture of floating point numbers has no scale: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits; PIL's own conversion would cut them off at 255
        image = PIL.Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", opaque.size, behind), opaque)
    return image.convert("RGB")


def read_square(path: Path, side: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The middle of a picture as (side, side, 3), and what there is to say about it (`FIRST_FRAME`, `ENLARGED`).

    Turned upright as its EXIF data say, cut to a square on its shorter side and scaled with Lanczos' filter.

    Raises:
        DataError: why it cannot be used, to be read after the file's name: "is empty", "is cut short or damaged (…)".
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        if path.stat().st_size == 0:
            raise DataError("is empty (0 bytes)")
        with warnings.catch_warnings():
            # A picture of 90 million pixels and more in a small file is a decompression bomb to PIL, and a mistake to us.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata, which do not matter here
            with PIL.Image.open(path, formats=_FORMATS) as image:
                several = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
                _require_size(image)
                # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while that is twice ours: ten times as fast for 12 megapixels.
                image.draft(None, (2 * side, 2 * side))
                image.load()
                upright = PIL.ImageOps.exif_transpose(image)
                pixels = _square(to_rgb(upright), side)
                small = min(upright.size) < side
    except DataError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise DataError("is no picture in a format that is read here (PNG, JPEG, WebP, BMP, GIF, TIFF)") from error
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError) as error:
        raise DataError("has 90 million pixels or more: make it smaller") from error
    except Exception as error:  # what PIL's decoders raise on damaged files is no closed list
        raise DataError(f"is cut short or damaged ({_one_line(error)})") from error
    return pixels, (*([FIRST_FRAME] if several else []), *([ENLARGED] if small else []))


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 … count − 1, evenly."""
    return np.arange(min(count, most)) * count // min(count, most)


def contact_sheet(pictures: NDArray[np.uint8], columns: int = 8) -> Image:
    """Pictures (n, side, side, 3) in rows from the upper left, white where none is left."""
    import PIL.Image

    blank = np.full_like(pictures[:1], 255)
    padded = np.concatenate([pictures, *[blank] * (-len(pictures) % columns)]) if len(pictures) > columns else pictures
    rows = [np.concatenate(list(padded[k : k + columns]), axis=1) for k in range(0, len(padded), columns)]
    return PIL.Image.fromarray(np.concatenate(rows))


def _require_size(image: Image) -> None:
    if min(image.size) < SMALLEST_SIDE:
        width, height = image.size
        raise DataError(f"is too small ({width} × {height}; the shorter side needs {SMALLEST_SIDE} pixels)")


def _square(image: Image, side: int) -> NDArray[np.uint8]:
    import PIL.Image

    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return np.array(image.resize((side, side), PIL.Image.Resampling.LANCZOS, box=box))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
