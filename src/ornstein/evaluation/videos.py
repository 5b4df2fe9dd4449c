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
    # A long chain takes two lines rather than letters that nobody can read.
    lines = [caption] if draw.textlength(caption, font=ImageFont.load_default(13)) <= width - 16 else _halves(caption)
    size = 18 if len(lines) == 1 else 13
    while size > 7 and max(draw.textlength(line, font=ImageFont.load_default(size)) for line in lines) > width - 16:
        size -= 1
    draw.multiline_text((8, _BAND / 2), "\n".join(lines), fill=_INK, font=ImageFont.load_default(size), anchor="lm", spacing=2)
    pixels = np.asarray(canvas)
    return pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]  # yuv420p needs even sides


def _halves(caption: str) -> list[str]:
    """Two lines of about the same length."""
    spaces = [k for k, character in enumerate(caption) if character == " "]
    middle = min(spaces, key=lambda k: abs(k - len(caption) / 2), default=0)
    return [caption[:middle], caption[middle + 1 :]] if middle else [caption]
