"""The pictures of vision-language data: drawings, digits and coloured cards lying about, as a camera might take them.

They show what the robot's own data show and what those never do; nothing of what is kept from all data (`assets/tabletop_splits.json`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop.look import PATTERNS, shaded, table_shade
from ornstein.simulation.tabletop.painting import digit
from ornstein.simulation.tabletop.splits import words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

ItemKind = Literal["drawing", "number", "colour"]

RESOLUTION = 128
MOST_ITEMS = 6
_CARD, _FRAME = (250, 249, 244), (28, 30, 36)
_TRIES = 60
#: Different grounds of each pattern, besides their colours.
_GROUNDS = 64


@dataclass(frozen=True)
class WebItem:
    """One thing. name: of a drawing; a digit; or a card's colour.

    x, y: its centre, (column, row) in −1 … 1 as pointers have it. size: its side as a share of the picture's. turn: about the line of sight
    [rad]. tilt: how much it lies back, 0 facing the camera, below 1. color: what a drawing is painted in, if anything. card: whether it is
    printed on a card.
    """

    kind: ItemKind
    name: str
    x: float
    y: float
    size: float
    turn: float = 0.0
    tilt: float = 0.0
    color: str = ""
    card: bool = False


@dataclass(frozen=True)
class WebPicture:
    """A picture as plain data. pattern, ground, seed: of what lies behind, see `table_shade`, and of the noise. brightness: a factor. warmth: −1 blue … 1 red.
    blur: standard deviation in pixels of a picture of 128. noise: standard deviation in levels of 255.
    """

    items: tuple[WebItem, ...]
    pattern: str
    ground: tuple[float, float, float]
    seed: int
    brightness: float = 1.0
    warmth: float = 0.0
    blur: float = 0.0
    noise: float = 0.0


@lru_cache(maxsize=1)
def web_names() -> tuple[str, ...]:
    """Every drawing of the vocabulary but those that are kept from all data, and those whose names speak of them ("polar bear")."""
    kept = words("held_out")
    spoken = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in (*kept.objects, *kept.symbols, *kept.colours)))
    return tuple(name for name in openmoji.names() if not spoken.search(name))


@lru_cache(maxsize=1)
def web_numbers() -> tuple[str, ...]:
    """The digits that cards show."""
    return (*words("seen").numbers, *words("web_only").numbers)


@lru_cache(maxsize=1)
def web_colours() -> tuple[str, ...]:
    """The colours of cards, and those that drawings are painted in."""
    return (*words("seen").colours, *words("web_only").colours)


def name_of(item: WebItem) -> str:
    """One of `item_names`."""
    return {"number": f"number {item.name}", "colour": f"{item.name} card"}.get(item.kind, item.name)


@lru_cache(maxsize=1)
def item_names() -> tuple[str, ...]:
    """Of everything that pictures show: "lion", "number 3", "red card"."""
    cards = [*(f"number {number}" for number in web_numbers()), *(f"{colour} card" for colour in web_colours())]
    return (*web_names(), *cards)


def lay_out(items: list[WebItem], rng: np.random.Generator) -> WebPicture:
    """Give these things places, sizes and turns, apart from one another, and a background and a camera to the whole.

    Raises:
        DataError: there are none, or more than `MOST_ITEMS`.
    """
    if not 1 <= len(items) <= MOST_ITEMS:
        raise DataError(f"a picture shows 1 to {MOST_ITEMS} things, got {len(items)}")
    largest = {1: 0.9, 2: 0.46, 3: 0.4}.get(len(items), 0.3)
    placed: list[WebItem] = []
    while len(placed) < len(items):
        placed = []
        for item in items:
            found = _room(item, placed, largest, rng)
            if found is None:  # too crowded: begin again with smaller ones
                largest *= 0.9
                break
            placed.append(found)
    ground = rng.uniform(0.15, 0.95, 3)
    return WebPicture(
        tuple(placed),
        str(PATTERNS[int(rng.integers(len(PATTERNS)))]),
        (float(ground[0]), float(ground[1]), float(ground[2])),
        int(rng.integers(1 << 31)),
        brightness=float(rng.uniform(0.75, 1.15)),
        warmth=float(rng.uniform(-1, 1)),
        blur=float(rng.uniform(0, 0.8)),
        noise=float(rng.uniform(0, 5)),
    )


def render(picture: WebPicture, resolution: int = RESOLUTION) -> NDArray[np.uint8]:
    """RGB, uint8 (resolution, resolution, 3)."""
    from PIL import Image, ImageFilter

    ground = shaded(_shade(picture.pattern, picture.seed % _GROUNDS, resolution), picture.ground)
    canvas = Image.fromarray(ground).convert("RGBA")
    for item in picture.items:
        laid, corner = _laid(_face(item, _side(item.size * resolution)), item, resolution)
        canvas.alpha_composite(laid, corner)
    if picture.blur:
        canvas = canvas.filter(ImageFilter.GaussianBlur(picture.blur * resolution / RESOLUTION))
    tint = picture.brightness * np.array([1 + 0.1 * picture.warmth, 1.0, 1 - 0.1 * picture.warmth])
    pixels = np.asarray(canvas.convert("RGB")) * tint
    if picture.noise:
        pixels = pixels + np.random.default_rng([picture.seed, 1]).normal(0, picture.noise, pixels.shape)
    return pixels.clip(0, 255).round().astype(np.uint8)


def random_item(rng: np.random.Generator, kind: ItemKind, name: str) -> WebItem:
    """In a manner drawn at random; a place is still to be given."""
    color = ""
    if kind == "drawing" and name in openmoji.paintable_names() and rng.random() < 0.25:
        color = str(rng.choice(web_colours()))
    tilt = float(rng.uniform(0, 0.5)) if rng.random() < 0.5 else 0.0
    return WebItem(
        kind, name, 0.0, 0.0, 0.0, float(rng.uniform(-0.4, 0.4)), tilt, color, kind != "drawing" or bool(rng.random() < 0.5)
    )


def _room(item: WebItem, placed: list[WebItem], largest: float, rng: np.random.Generator) -> WebItem | None:
    for _ in range(_TRIES):
        size = float(rng.uniform(max(0.14, 0.5 * largest), max(largest, 0.15)))
        x, y = (float(part) for part in rng.uniform(-1 + size, 1 - size, 2))
        if all(math.hypot(x - other.x, y - other.y) > 1.2 * (size + other.size) for other in placed):
            return replace(item, x=x, y=y, size=size)
    return None


def _face(item: WebItem, side: int) -> Image:
    """What is seen of it from straight above, RGBA, a square of that side."""
    from PIL import Image

    if item.kind == "colour":
        color = openmoji.COLORS[item.name]
        face = Image.new("RGBA", (side, side), tuple(round(0.7 * part) for part in color))
        rim = max(1, side // 20)
        face.paste((*color, 255), (rim, rim, side - rim, side - rim))
        return face
    margin = side // 9 if item.card else 0
    inner = max(side - 2 * margin, 4)
    stamp = Image.fromarray(digit(item.name, inner) if item.kind == "number" else openmoji.drawing(item.name, inner, item.color))
    if not item.card:
        return stamp
    face = Image.new("RGBA", (side, side), (*_FRAME, 255))
    rim = max(1, side // 24) if item.kind == "number" else 0
    face.paste((*_CARD, 255), (rim, rim, side - rim, side - rim))
    face.alpha_composite(stamp, (margin, margin))
    return face


_shade = lru_cache(maxsize=512)(table_shade)


def _side(pixels: float) -> int:
    """Of a face that is drawn a little too large: one of few sizes, so that most have been drawn before."""
    return round(8 * math.sqrt(2) ** max(0, math.ceil(2 * math.log2(pixels / 8))))


def _laid(face: Image, item: WebItem, resolution: int) -> tuple[Image, tuple[int, int]]:
    """The part of the picture where the face lies, RGBA, transparent around it, and its upper left corner."""
    from PIL import Image

    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    c, s = math.cos(item.turn), math.sin(item.turn)
    turned = corners @ np.array([[c, s], [-s, c]])
    depth = 1 + 0.35 * item.tilt * -turned[:, 1]  # what lies back is further away above
    seen = np.stack([turned[:, 0] / depth, turned[:, 1] * (1 - item.tilt) / depth], axis=-1)
    middle = (np.array([item.x, item.y]) + 1) / 2 * resolution
    target = middle + seen * item.size * resolution / 2
    left, upper = (int(part) for part in np.clip(np.floor(target.min(0)), 0, resolution - 1))
    right, lower = (int(part) for part in np.clip(np.ceil(target.max(0)), 1, resolution))
    source = (corners + 1) / 2 * np.array(face.size)
    coefficients = _homography(target - (left, upper), source)
    size = (max(right - left, 1), max(lower - upper, 1))
    return face.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR), (left, upper)


def _homography(origin: NDArray[np.float64], image: NDArray[np.float64]) -> list[float]:
    """The eight numbers of the projective map that takes four points to four others, as Pillow wants them."""
    rows, right = [], []
    for (x, y), (u, v) in zip(origin, image, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return [float(part) for part in np.linalg.solve(np.array(rows), np.array(right))]
