"""The report's content as plain data, and its rendering."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from ornstein.core.errors import OrnsteinError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Picture:
    """One picture, RGB uint8 (H, W, 3), with the words above and below it. `good` colours the note."""

    pixels: NDArray[np.uint8]
    title: str
    note: str = ""
    good: bool | None = None

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side under a heading."""

    heading: str
    explanation: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Filmstrip(Gallery):
    """A gallery shown as one unbroken row."""


@dataclass(frozen=True)
class Figures(Gallery):
    """Plots and wide pictures, each as wide as it is, with a table of figures (name, value) above them."""

    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Video:
    """An MP4 file's bytes with the instruction that it shows and how it ended."""

    mp4: bytes
    instruction: str
    outcome: str
    good: bool

    @property
    def source(self) -> str:
        """The video as a data URI."""
        return "data:video/mp4;base64," + base64.b64encode(self.mp4).decode()


@dataclass(frozen=True)
class RobotSection:
    """A measured policy: a headline figure, rows (condition, successes of n, interval) and a few videos. compared: what the conditions are. title: above it."""

    headline: str
    explanation: str
    rows: tuple[tuple[str, str, str], ...]
    videos: tuple[Video, ...]
    compared: str = "asked for"
    title: str = "A robot that follows instructions"


@dataclass(frozen=True)
class Report:
    """Everything on the page, from top to bottom."""

    title: str
    summary: str
    galleries: tuple[Gallery, ...]
    robots: tuple[RobotSection, ...]
    facts: tuple[tuple[str, str], ...]
    credits: tuple[str, ...] = field(default=())


def write_report(report: Report, path: Path) -> Path:
    """Write the page to `path`; it appears whole or not at all.

    Raises:
        OrnsteinError: the folder cannot be written to.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("ornstein.report").joinpath("page.html.j2").read_text(encoding="utf8"))
    layout = {Filmstrip: "strip", Figures: "plots"}
    html = template.render(report=report, layout=lambda gallery: layout.get(type(gallery), "grid"))
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(html, encoding="utf8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OrnsteinError(f"cannot write the report {path}: {error.strerror or error}") from error
    return path
