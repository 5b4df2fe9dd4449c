"""What `ornstein sample` draws: which pictures, where they go, which are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import DataError
from ornstein.images import (
    DrawingSettings,
    TextToImagePipeline,
    image_to_image,
    inpaint,
    interpolate,
    times_below,
)
from ornstein.images.provenance import Provenance, read_picture, read_provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image


@dataclass(frozen=True)
class Drawing:
    """`count` pictures that differ from `base` in their noise or frame alone.

    Args:
        again: it is the one picture that `base` tells, and not the first of a series.
        batch: how many are denoised together.
    """

    pipeline: TextToImagePipeline
    base: Provenance
    count: int
    out: Path
    batch: int = 1
    again: bool = False

    def path(self, k: int) -> Path:
        """out.png where there is one; else out-0.png … with as many digits as the last has, so that names sort."""
        if self.count == 1:
            return self.out
        return self.out.with_stem(f"{self.out.stem}-{k:0{len(str(self.count - 1))}d}")

    def provenance(self, k: int) -> Provenance:
        """How picture k is drawn."""
        if self.again:
            return self.base
        if self.base.to is not None:
            return replace(self.base, frame=k)
        if self.base.image is not None:
            return replace(self.base, seed=self.base.seed + k)
        first = k - k % self.batch
        return replace(self.base, index=k, batch=(first, min(self.batch, self.count - first)))

    def missing(self) -> list[int]:
        """The pictures that are not there yet, whole and with the very same settings. A single one is always drawn."""
        return [k for k in range(self.count) if self.count == 1 or not self._there(k)]

    def _there(self, k: int) -> bool:
        try:
            return read_provenance(self.path(k)) == self.provenance(k)
        except DataError:
            return False

    @cached_property
    def steps_each(self) -> int:
        """Steps of one picture, or of one batch."""
        if self.base.image is None:
            return self.base.steps
        return len(times_below(self.pipeline, self.base.strength or 1.0, self.base.steps))

    def batches(self, wanted: Sequence[int]) -> Iterator[list[int]]:
        """`wanted`, in order, those together that are denoised together."""
        return (list(group) for _, group in groupby(wanted, lambda k: k // self.batch))

    def draw(self, wanted: Sequence[int], look: Callable[[Iterator[Any], int], Iterator[Any]]) -> Iterator[tuple[int, Image]]:
        """The pictures of one batch. A batch is denoised whole even if only some of it are wanted: so they come out the same.

        Args:
            look: wraps the iteration over the steps.
        """
        about = self.provenance(wanted[0])
        settings = DrawingSettings(
            about.steps,
            about.guidance,
            about.seed,
            about.sampler,  # type: ignore[arg-type]  # the pipeline knows the names
            about.eta,
            about.negative,
            about.interval,
        )
        if about.to is not None:
            assert about.frames is not None
            assert about.frame is not None
            prompts = (about.prompt, about.to)
            (frame,) = interpolate(self.pipeline, prompts, about.frames, only=[about.frame], settings=settings, track=look)
            yield wanted[0], frame
        elif self.image is not None:
            yield wanted[0], self._edit(about, settings, look)
        else:
            first, count = about.batch
            indices = range(first, first + count)
            drawn = self.pipeline.stream([about.prompt] * count, indices, settings, batch_size=count, track=look)
            by_index = {self.provenance(k).index: k for k in wanted}
            yield from ((by_index[index], picture) for index, picture in zip(indices, drawn, strict=True) if index in by_index)

    def _edit(self, about: Provenance, settings: DrawingSettings, look: Any) -> Image:
        assert self.image is not None
        assert about.strength is not None
        how: dict[str, Any] = {"strength": about.strength, "settings": settings, "track": look}
        if self.mask is None:
            return image_to_image(self.pipeline, about.prompt, self.image, **how)
        return inpaint(self.pipeline, about.prompt, self.image, self.mask, **how)

    @cached_property
    def image(self) -> Image | None:
        """What the pictures start from."""
        return None if self.base.image is None else read_picture(Path(self.base.image))

    @cached_property
    def mask(self) -> Image | None:
        """What of it is drawn anew."""
        return None if self.base.mask is None else read_picture(Path(self.base.mask))


def sha256(path: Path | None) -> str | None:
    """Of a picture's file.

    Raises:
        DataError: there is none.
    """
    if path is None:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}") from error
