"""`ornstein sample`: a sentence becomes a picture."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from ornstein.core.errors import DataError, OrnsteinError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ornstein.images import DrawingSettings, TextToImagePipeline

_FORMATS = (".png", ".jpg", ".jpeg", ".webp")
_MOST = 64


def sample(
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")],
    /,
    out: Path = Path("picture.png"),
    num: int = 1,
    steps: int = 50,
    sampler: Annotated[str, tyro.conf.arg(metavar="ddim|ddpm|dpm++|dpm++3m|dpm++sde|euler|heun")] = "ddim",
    eta: float = 0.0,
    guidance: float = 4.0,
    seed: int = 0,
    negative: str = "",
    image: Path | None = None,
    mask: Path | None = None,
    strength: float | None = None,
    to: str = "",
    frames: int | None = None,
    checkpoint: str = "text-to-image",
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Draw pictures from a sentence.

    Example: ornstein sample "a red apple on a yellow background" --num 4 --guidance 5 --out apple.png
    From a picture: ornstein sample "a fox above a house" --image rocket.png --mask upper-half.png --out fox.png

    Args:
        prompt: What to draw. The shipped model knows 310 objects, twelve background colours, two to four of a kind, and
            above / below / to the left of / to the right of.
        out: The picture file (.png, .jpg or .webp). With --num above 1: one contact sheet there, and numbered pictures beside it.
        num: How many pictures; each has noise of its own.
        steps: Denoising steps; more is slower and at times better.
        sampler: How to go from noise to picture.
        eta: DDIM only: 0 deterministic … 1 as random as DDPM.
        guidance: How strongly to follow the sentence: 0 ignores it, 1 follows it, 3 to 7 exaggerate it.
        seed: Same seed, same picture.
        negative: What guidance leads away from.
        image: Start from this picture instead of from noise.
        mask: With --image: draw anew only what is white in this one.
        strength: With --image: how much of it may change, above 0 to 1. By default 0.6, and 1 with --mask.
        to: A second prompt: --frames pictures lead from the first to it.
        frames: With --to: how many; 8 by default.
        checkpoint: A shipped model's name, or a folder written by `ornstein train`.
        json_output: Print one JSON object instead of words.
    """
    from rich.console import Console

    import ornstein
    from ornstein.core.progress import track
    from ornstein.images import DrawingSettings

    console = Console(stderr=True)
    ask = _Request(prompt, num, image, mask, strength, to, frames)
    _check(ask)
    _check_writable(out)
    started = time.perf_counter()
    pipeline = ornstein.load(checkpoint, expect="text-to-image")
    loaded = time.perf_counter()
    settings = DrawingSettings(steps, guidance, seed, sampler, eta, negative)  # type: ignore[arg-type]  # the pipeline knows the names
    pictures = _draw(pipeline, ask, settings, lambda items, total: track(items, total, "drawing", console=console))
    seconds = time.perf_counter() - loaded
    written = _write(pictures, out)
    if json_output:
        print(
            json.dumps(
                {
                    "prompt": prompt,
                    "files": [str(path) for path in written],
                    "seconds": round(seconds, 3),
                    "seconds_loading": round(loaded - started, 3),
                    "settings": {"steps": steps, "sampler": sampler, "eta": eta, "guidance": guidance, "seed": seed}
                    | {"negative": negative, "strength": strength, "to": to or None, "frames": frames}
                    | {"image": image and str(image), "mask": mask and str(mask)},
                    "checkpoint": checkpoint,
                }
            )
        )
    else:
        for path in written:
            print(path)
        console.print(f"[dim]{len(pictures)} picture(s) in {seconds:.1f} s (and {loaded - started:.1f} s to load the model)[/]")
    return 0


class _Request(NamedTuple):
    """What is to be drawn, from the command line."""

    prompt: str
    num: int
    image: Path | None
    mask: Path | None
    strength: float | None
    to: str
    frames: int | None


def _check(ask: _Request) -> None:
    """What can be refused before the model is loaded: options that need each other, or exclude each other."""
    from ornstein.language import check_text

    check_text(ask.prompt)
    if not 1 <= ask.num <= _MOST:
        raise DataError(f"--num must be between 1 and {_MOST}, got {ask.num}")
    if ask.frames is not None and not 2 <= ask.frames <= _MOST:
        raise DataError(f"--frames must be between 2 and {_MOST}, got {ask.frames}")
    if ask.image is None and (ask.mask is not None or ask.strength is not None):
        raise DataError("--mask and --strength go with --image, the picture to start from")
    if ask.to and (ask.image is not None or ask.num > 1):
        raise DataError("--to draws its own --frames: leave out --image and --num")
    if ask.frames is not None and not ask.to:
        raise DataError("--frames go with --to, the prompt that they lead to")


def _draw(pipeline: TextToImagePipeline, ask: _Request, settings: DrawingSettings, track: Any) -> list[Image]:
    from dataclasses import replace

    from ornstein.images import image_to_image, inpaint, interpolate

    if ask.to:
        return interpolate(pipeline, (ask.prompt, ask.to), ask.frames or 8, settings=settings, track=track)
    if ask.image is None:
        return pipeline(
            ask.prompt,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            seed=settings.seed,
            num_images_per_prompt=ask.num,
            sampler=settings.sampler,
            eta=settings.eta,
            negative_prompt=settings.negative_prompt,
            track=track,
        )
    image, drawn = _read(ask.image), []
    for k in range(ask.num):
        mine = replace(settings, seed=settings.seed + k)
        if ask.mask is None:
            strength = 0.6 if ask.strength is None else ask.strength
            drawn.append(image_to_image(pipeline, ask.prompt, image, strength=strength, settings=mine, track=track))
        else:
            strength = 1.0 if ask.strength is None else ask.strength
            drawn.append(inpaint(pipeline, ask.prompt, image, _read(ask.mask), strength=strength, settings=mine, track=track))
    return drawn


def _read(path: Path) -> Image:
    import PIL.Image

    try:
        with PIL.Image.open(path) as opened:
            opened.load()
            return opened.copy()
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}") from error
    except (OSError, ValueError, SyntaxError, TypeError, PIL.Image.DecompressionBombError) as error:  # PIL's own words for damage
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def _check_writable(out: Path) -> None:
    """Before minutes of work: would the file be writable at the end?"""
    import os

    if out.suffix.lower() not in _FORMATS:
        raise DataError(f"--out must end in one of {', '.join(_FORMATS)}, got {str(out)!r}")
    if out.is_dir():
        raise DataError(f"--out {out} is a folder: name a picture file in it")
    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DataError(f"cannot write to {folder}: choose another --out")


def _write(pictures: list[Image], out: Path) -> list[Path]:
    import PIL.Image

    paths = [out]
    sheet = pictures[0]
    if len(pictures) > 1:
        columns = min(len(pictures), 4)
        rows = -(-len(pictures) // columns)
        width, height = pictures[0].size
        sheet = PIL.Image.new("RGB", (columns * width, rows * height), "white")
        for k, picture in enumerate(pictures):
            sheet.paste(picture, (k % columns * width, k // columns * height))
        paths += [out.with_stem(f"{out.stem}-{k}") for k in range(len(pictures))]
    temporaries = [path.with_name(f".{path.stem}.partial{path.suffix}") for path in paths]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for temporary, picture in zip(temporaries, [sheet, *pictures], strict=False):
            picture.save(temporary)
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    except OSError as error:
        raise OrnsteinError(f"cannot write {out}: {(error.strerror or str(error)).lower()}") from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return paths
