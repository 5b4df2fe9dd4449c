"""How a picture came out of the noise: x̂_0, what each step takes the finished picture to be, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ornstein.images.provenance import write_picture

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from ornstein.diffusion import Step
    from ornstein.images import TextToImagePipeline

_MOST_IN_A_GIF, _MOST_IN_A_STRIP = 24, 8
_MILLISECONDS, _MILLISECONDS_AT_THE_END = 120, 2000


class Film:
    """The steps of one picture, collected as latents."""

    def __init__(self, pipeline: TextToImagePipeline, row: int, out: Path) -> None:
        """
        Args:
            row: of the picture within its batch. out: a .gif, or a .png with the pictures side by side.
        """
        self.pipeline, self.row, self.out = pipeline, row, out
        self.estimates: list[Tensor] = []

    def add(self, step: Step) -> None:
        """One more step."""
        self.estimates.append(step.x_0_hat[self.row : self.row + 1].clone())

    def write(self, finished: Image) -> None:
        """Some of the steps at even distances, the first and the last among them, then the finished picture.

        Raises:
            OSError: the system refuses.
        """
        import PIL.Image

        animated = self.out.suffix.lower() == ".gif"
        chosen = evenly(len(self.estimates), (_MOST_IN_A_GIF if animated else _MOST_IN_A_STRIP) - 1)
        decoded = self.pipeline.decode(torch.cat([self.estimates[k] for k in chosen]))
        pictures = [*(PIL.Image.fromarray(pixels) for pixels in decoded), finished]
        if animated:
            durations = [_MILLISECONDS] * len(decoded) + [_MILLISECONDS_AT_THE_END]
            rest = {"append_images": pictures[1:], "duration": durations, "loop": 0}
            write_picture(pictures[0], self.out, {}, save_all=True, **rest)
            return
        width, height = finished.size
        strip = PIL.Image.new("RGB", (width * len(pictures), height))
        for k, picture in enumerate(pictures):
            strip.paste(picture, (k * width, 0))
        write_picture(strip, self.out, {"steps": [k + 1 for k in chosen]})


def evenly(total: int, most: int) -> list[int]:
    """At most `most` ≥ 2 of 0 … total − 1, at even distances, both ends among them."""
    count = min(total, most)
    return [round(k * (total - 1) / max(count - 1, 1)) for k in range(count)]
