"""`ornstein sample`: a sentence becomes a picture."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ornstein.commands.sample_options import read_options
from ornstein.core.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from ornstein.commands.drawing import Drawing
    from ornstein.commands.sample_options import Options
    from ornstein.images import TextToImagePipeline
    from ornstein.images.provenance import Provenance


def sample(arguments: list[str]) -> int:
    """Draw what the words ask for (see `ornstein sample --help`)."""
    options, stored = read_options(arguments)
    from rich.console import Console

    import ornstein
    from ornstein.commands.drawing import Drawing
    from ornstein.commands.film import Film
    from ornstein.commands.streaming import write_all

    console = Console(stderr=True)
    started = time.perf_counter()
    pipeline = ornstein.load(options.checkpoint, expect="text-to-image")
    loaded = time.perf_counter()
    base = _provenance(options, pipeline)
    if stored is not None:
        base = _again(base, stored, options, console)
    count = 1 if stored else (base.frames or options.num)
    drawing = Drawing(pipeline, base, count, options.out, options.batch, again=stored is not None)
    film = None
    if options.show_steps is not None:
        film = Film(pipeline, base.index - base.batch[0], options.show_steps)
    done = write_all(drawing, console, film)
    if done is None:
        return 1
    seconds = time.perf_counter() - loaded
    differing = _differing(options, base, stored)
    if options.json_output:
        record = _record(options, drawing, done.files, done.kept, seconds, loaded - started)
        print(json.dumps(record | ({} if differing is None else {"pixels_that_differ": differing})))
        return int(bool(differing))
    for path in done.files:
        print(path)
    kept = f", {done.kept} were there already" if done.kept else ""
    console.print(
        f"[dim]{count - done.kept} picture(s) in {seconds:.1f} s (and {loaded - started:.1f} s to load the model){kept}[/]"
    )
    if differing is not None:
        same = f"the same as {options.like}, to the bit"
        console.print(f"{differing} pixels differ from {options.like}" if differing else same, soft_wrap=True)
    return int(bool(differing))


def _provenance(options: Options, pipeline: TextToImagePipeline) -> Provenance:
    import torch

    import ornstein
    from ornstein.commands.drawing import sha256
    from ornstein.images.provenance import Provenance

    strength = options.strength
    if options.image is not None and strength is None:
        strength = 0.6 if options.mask is None else 1.0
    return Provenance(
        prompt=options.prompt,
        seed=options.seed,
        index=0,
        batch=(0, 1),
        steps=options.steps,
        sampler=options.sampler,
        eta=options.eta,
        guidance=options.guidance,
        interval=options.interval,
        negative=options.negative,
        image=options.image and str(options.image),  # type: ignore[arg-type]
        image_sha256=sha256(options.image),
        mask=options.mask and str(options.mask),  # type: ignore[arg-type]
        mask_sha256=sha256(options.mask),
        strength=strength,
        to=options.to or None,
        frames=(options.frames or 8) if options.to else None,
        frame=None,
        checkpoint=options.checkpoint,
        fingerprint=pipeline.fingerprint,
        ornstein=ornstein.__version__,
        torch=torch.__version__,
    )


def _again(base: Provenance, stored: Provenance, options: Options, console: Console) -> Provenance:
    """What is asked for now, at the stored picture's place among its noises or frames."""
    if base.fingerprint != stored.fingerprint:
        raise CheckpointError(
            f"{options.like} was drawn by checkpoint {stored.fingerprint}, and {options.checkpoint} is {base.fingerprint}:"
            " say with --checkpoint where the right one is"
        )
    if (base.ornstein, base.torch) != (stored.ornstein, stored.torch):
        console.print(
            f"drawn by ornstein {stored.ornstein} with torch {stored.torch}: with {base.ornstein} and {base.torch}"
            " the last bits may differ",
            soft_wrap=True,
        )
    base = replace(base, frame=stored.frame)
    return base if base.image is not None else replace(base, index=stored.index, batch=stored.batch)


def _differing(options: Options, base: Provenance, stored: Provenance | None) -> int | None:
    """How many pixels came out other than in the picture that was to be drawn again; None where something was to change."""
    import numpy as np

    from ornstein.images.provenance import read_picture

    if stored is None or options.like is None or options.out.suffix.lower() != ".png":
        return None
    if replace(base, checkpoint=stored.checkpoint, ornstein=stored.ornstein, torch=stored.torch) != stored:
        return None
    new, old = (np.asarray(read_picture(path).convert("RGB")) for path in (options.out, options.like))
    return int((new != old).any(-1).sum()) if new.shape == old.shape else new.shape[0] * new.shape[1]


def _record(
    options: Options, drawing: Drawing, files: list[Path], kept: int, seconds: float, seconds_loading: float
) -> dict[str, object]:
    names = ("steps", "sampler", "eta", "guidance", "interval", "seed", "negative", "strength", "frames")
    return {
        "prompt": options.prompt,
        "files": [str(path) for path in files],
        "kept": kept,
        "steps_file": options.show_steps and str(options.show_steps),
        "seconds": round(seconds, 3),
        "seconds_loading": round(seconds_loading, 3),
        "settings": {name: getattr(options, name) for name in names}
        | {"to": options.to or None}
        | {"image": options.image and str(options.image), "mask": options.mask and str(options.mask)},
        "checkpoint": options.checkpoint,
        "fingerprint": drawing.base.fingerprint,
    }
