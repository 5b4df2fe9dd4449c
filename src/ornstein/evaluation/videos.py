"""Episodes as MP4 files, the instruction written above the picture."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_BAND = 36
_INK, _PAPER = (29, 34, 48), (255, 255, 255)
_LAST_FRAME_SECONDS = 1.0


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], caption: str, rate: float) -> None:
    """Write frames, RGB uint8 (H, W, 3); the last one stays for a second.

    Plays in every browser: H.264, yuv420p, the index at the front.
    """
    import av

    pictures = [_titled(frame, caption) for frame in frames]
    pictures += [pictures[-1]] * round(rate * _LAST_FRAME_SECONDS)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = pictures[0].shape[0], pictures[0].shape[1], "yuv420p"
        stream.options = {"crf": "20", "preset": "fast", "threads": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _titled(frame: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[:2]
    canvas = Image.new("RGB", (width, height + _BAND), _PAPER)
    canvas.paste(Image.fromarray(frame), (0, _BAND))
    draw = ImageDraw.Draw(canvas)
    size = 18
    while size > 9 and draw.textlength(caption, font=ImageFont.load_default(size)) > canvas.width - 16:
        size -= 1
    draw.text((8, _BAND / 2), caption, fill=_INK, font=ImageFont.load_default(size), anchor="lm")
    pixels = np.asarray(canvas)
    return pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]  # yuv420p needs even sides
