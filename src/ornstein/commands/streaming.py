"""Pictures are written one by one as they are finished: memory does not grow with their number, and what is there stays."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ornstein.core.progress import track
from ornstein.data.pictures import contact_sheet
from ornstein.images.provenance import read_picture, write_picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from ornstein.commands.drawing import Drawing
    from ornstein.commands.film import Film

MOST_ON_A_SHEET = 64
_COLUMNS = 4


class Written(NamedTuple):
    """files: the contact sheet, where there is one, then the pictures. kept: how many of these were there already."""

    files: list[Path]
    kept: int


def write_all(drawing: Drawing, console: Console, film: Film | None = None) -> Written | None:
    """Draw and write what is missing; None, after one line that says how far it came, where a file cannot be written.

    Args:
        film: of the only picture.
    """
    missing = drawing.missing()
    finished, count = drawing.count - len(missing), drawing.count
    kept, sheet = finished, None
    total = sum(1 for _ in drawing.batches(missing)) * drawing.steps_each
    try:
        with closing(track(iter(range(total)), total, "drawing", console=console)) as ticks:

            def look(steps: Iterator[Any], total: int) -> Iterator[Any]:
                for step in steps:
                    next(ticks, None)
                    if film:
                        film.add(step)
                    yield step

            for wanted in drawing.batches(missing):
                for k, picture in drawing.draw(wanted, look):
                    write_picture(picture, drawing.path(k), drawing.provenance(k))
                    finished += 1
                    if film:
                        film.write(picture)
            next(ticks, None)
        files = [drawing.path(k) for k in range(count)]
        if 1 < count <= MOST_ON_A_SHEET:
            sheet = drawing.out
            pictures = np.stack([np.asarray(read_picture(path).convert("RGB")) for path in files])
            write_picture(contact_sheet(pictures, _COLUMNS), sheet, {"sheet": [path.name for path in files]})
    except BrokenPipeError:  # the reader of our progress left: no fault of the disk
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        left = f"{finished} of {count} pictures are finished, in {drawing.out.absolute().parent}"
        print(f"error: cannot write {drawing.out}: {reason}; {left}; the same command goes on from there", file=sys.stderr)
        return None
    return Written([sheet, *files] if sheet else files, kept)
