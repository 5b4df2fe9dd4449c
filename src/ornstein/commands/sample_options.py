"""The options of `ornstein sample`: what the words say, what a picture named by --like says for them, and what does not go together."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ornstein.commands.parsing import read
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from ornstein.images.provenance import Provenance

FORMATS, FILM_FORMATS = (".png", ".jpg", ".jpeg", ".webp"), (".gif", ".png")
_MOST, _MOST_FRAMES = 100_000, 64


@dataclass(frozen=True)
class Options:
    """Draw pictures from a sentence.

    Example: ornstein sample "a red apple on a yellow background" --num 4 --guidance 5 --out apple.png

    From a picture: ornstein sample "a fox above a house" --image rocket.png --mask upper-half.png --out fox.png

    Once more, with one thing changed: ornstein sample --like apple-2.png --guidance 7 --out stronger.png

    Args:
        prompt: What to draw. The shipped model knows 566 objects, half of them in seven colours, twelve background colours, two to four of
            a kind, three or four different ones, and above / below / to the left of / to the right of.
        out: The picture file (.png, .jpg or .webp). A .png says in its metadata how it was drawn. With --num above 1: numbered
            pictures beside it, and up to 64 of them on one contact sheet there.
        num: How many pictures, up to 100,000; each has noise of its own and is written as soon as it is finished. The same
            command once more keeps what is there already as .png and goes on.
        batch: Pictures denoised together: faster on an accelerator, but above 1 they differ from those drawn alone by rounding.
        steps: Denoising steps; more is slower and at times better.
        sampler: How to go from noise to picture.
        eta: DDIM only: 0 deterministic … 1 as random as DDPM.
        guidance: How strongly to follow the sentence: 0 ignores it, 1 follows it, 3 to 7 exaggerate it.
        interval: Guide only at time steps from LOW to HIGH (the noise is strongest at 1000 and gone at 0); elsewhere as with guidance 1.
        seed: Same seed, same picture.
        negative: What guidance leads away from.
        image: Start from this picture instead of from noise.
        mask: With --image: draw anew only what is white in this one.
        strength: With --image: how much of it may change, above 0 to 1. By default 0.6, and 1 with --mask.
        to: A second prompt: --frames pictures lead from the first to it.
        frames: With --to: how many; 8 by default.
        show_steps: Also write here how the one picture comes out of the noise: an animated .gif, or a .png of eight side by side.
        like: Draw the picture in this .png again from its metadata, and say whether it came out the same, bit for bit; options given
            beside it replace what it says.
        checkpoint: A shipped model's name, or a folder written by `ornstein train`.
        json_output: Print one JSON object instead of words.
    """

    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
    out: Path = Path("picture.png")
    num: int = 1
    batch: int = 1
    steps: int = 50
    sampler: Annotated[str, tyro.conf.arg(metavar="ddim|ddpm|dpm++|dpm++3m|dpm++sde|euler|heun")] = "ddim"
    eta: float = 0.0
    guidance: float = 4.0
    interval: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    seed: int = 0
    negative: str = ""
    image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    to: str = ""
    frames: int | None = None
    show_steps: Path | None = None
    like: Path | None = None
    checkpoint: str = "text-to-image"
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False


def read_options(arguments: list[str]) -> tuple[Options, Provenance | None]:
    """What the words ask for; with --like, also how that picture was drawn.

    Raises:
        OrnsteinError: they cannot be read, exclude each other, or the picture does not say.
    """
    like = _like(arguments)
    if like is None:
        options = read(Options, arguments, "sample")
        _check(options)
        return options, None
    from ornstein.images.provenance import read_provenance

    stored = read_provenance(like)
    default = _options(stored, like)
    options = read(Options, arguments, "sample", default=default)
    _check(options)
    _check_like(options, default, stored)
    return options, stored


def _like(arguments: list[str]) -> Path | None:
    """The file after --like: its settings are the other options' defaults, so it is looked for first."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--like", type=Path)
    try:
        return reader.parse_known_args(arguments)[0].like
    except argparse.ArgumentError:
        return None  # nothing after it: tyro says so


def _options(stored: Provenance, like: Path) -> Options:
    return Options(
        prompt=stored.prompt,
        batch=1,
        steps=stored.steps,
        sampler=stored.sampler,
        eta=stored.eta,
        guidance=stored.guidance,
        interval=stored.interval,
        seed=stored.seed,
        negative=stored.negative,
        image=stored.image and Path(stored.image),  # type: ignore[arg-type]
        mask=stored.mask and Path(stored.mask),  # type: ignore[arg-type]
        strength=stored.strength,
        to=stored.to or "",
        frames=stored.frames,
        like=like,
        checkpoint=stored.checkpoint,
    )


def _check(options: Options) -> None:
    """What can be refused before the model is loaded: options that need each other, or exclude each other."""
    from ornstein.language import check_text

    check_text(options.prompt)
    if not 1 <= options.num <= _MOST:
        raise DataError(f"--num must be between 1 and {_MOST:,}, got {options.num}")
    if options.batch < 1:
        raise DataError(f"--batch must be at least 1, got {options.batch}")
    if options.frames is not None and not 2 <= options.frames <= _MOST_FRAMES:
        raise DataError(f"--frames must be between 2 and {_MOST_FRAMES}, got {options.frames}")
    if options.image is None and (options.mask is not None or options.strength is not None):
        raise DataError("--mask and --strength go with --image, the picture to start from")
    if options.to and (options.image is not None or options.num > 1):
        raise DataError("--to draws its own --frames: leave out --image and --num")
    if options.frames is not None and not options.to:
        raise DataError("--frames go with --to, the prompt that they lead to")
    if options.batch > 1 and (options.to or options.image is not None):
        raise DataError("--batch is for pictures from a prompt alone: leave it out with --image and --to")
    _check_writable(options.out, "--out", FORMATS)
    if options.show_steps is not None:
        if options.num > 1 or options.to:
            raise DataError("--show-steps shows one picture: leave out --num and --to")
        _check_writable(options.show_steps, "--show-steps", FILM_FORMATS)
        if options.show_steps.absolute() == options.out.absolute():
            raise DataError("--show-steps and --out are the same file: name two")
    _check_sources(options)


def _check_sources(options: Options) -> None:
    """No picture is overwritten that this one, or the next of the series, is drawn from."""
    series = re.compile(re.escape(options.out.stem) + r"-\d+" + re.escape(options.out.suffix))
    for source, path in (("--image", options.image), ("--mask", options.mask), ("--like", options.like)):
        if path is None:
            continue
        for option, target in (("--out", options.out), ("--show-steps", options.show_steps)):
            if target is not None and target.resolve() == path.resolve():
                raise DataError(f"{option} {target} is the picture that {source} reads: name another file")
        if options.num > 1 and path.resolve().parent == options.out.resolve().parent and series.fullmatch(path.name):
            raise DataError(f"the pictures of this series would overwrite {path}, which {source} reads: choose another --out")


def _check_like(options: Options, default: Options, stored: Provenance) -> None:
    """--like is about one picture that is there, and about the very files that it was drawn from."""
    from ornstein.commands.drawing import sha256

    if any(getattr(options, name) != getattr(default, name) for name in ("num", "batch", "to", "frames")):
        raise DataError("--like draws one picture again: leave out --num, --batch, --to and --frames")
    for name, known in (("image", stored.image_sha256), ("mask", stored.mask_sha256)):
        source = getattr(options, name)
        if known is None or source != getattr(default, name):
            continue
        if not source.exists():
            raise DataError(f"{options.like} was drawn from {source}, which is not there: say with --{name} where it is")
        if sha256(source) != known:
            raise DataError(f"{source} has changed since {options.like} was drawn from it: give the right file with --{name}")


def _check_writable(out: Path, option: str, formats: tuple[str, ...]) -> None:
    """Before minutes of work: would the file be writable at the end?"""
    from ornstein.images.provenance import hidden

    if out.suffix.lower() not in formats:
        raise DataError(f"{option} must end in one of {', '.join(formats)}, got {str(out)!r}")
    if out.is_dir():
        raise DataError(f"{option} {out} is a folder: name a picture file in it")
    hidden(out).is_file()  # raises where the name is too long
    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DataError(f"cannot write to {folder}: choose another {option}")
