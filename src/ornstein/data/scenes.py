"""Emoji scenes: OpenMoji drawings on a coloured background, with a caption drawn from a small grammar.

Scene i of a stream is a pure function of (seed, split, i): the same picture and caption on every machine, in any order
and by any number of workers. A fixed tenth of the combinations (object and background, object and colour, object and count, which
object is above or left of which, which two stand in one group) never occurs in the training split, however a scene would come by it;
every scene of the held-out split has one.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import DataError, unknown_name
from ornstein.data.naming import UNCOUNTED_NAMES, described, indefinite, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Split = Literal["train", "held-out"]
Kind = Literal["single", "count", "pair", "group", "clutter"]

RESOLUTION = 128

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 248),
    "grey": (158, 163, 170),
    "black": (38, 38, 44),
    "red": (214, 66, 62),
    "orange": (244, 150, 66),
    "yellow": (250, 218, 94),
    "green": (104, 184, 112),
    "blue": (70, 120, 208),
    "sky blue": (160, 212, 244),
    "purple": (146, 98, 190),
    "pink": (246, 176, 200),
    "brown": (150, 108, 78),
}
_BACKGROUND_JITTER = 5

KIND_SHARES: dict[Kind, float] = {"single": 0.5, "count": 0.15, "pair": 0.2, "group": 0.15}
#: How often a drawing that comes in other colours does: one alone or several of a kind, and each of two.
_PAINTED_SHARE = 0.3
RELATIONS: dict[str, str] = {
    "above": "above",
    "below": "below",
    "left": "to the left of",
    "right": "to the right of",
}
_MIRRORED = {"below": "above", "right": "left"}
COUNTS = {2: "two", 3: "three", 4: "four"}
SIZES = {"small": 44, "": 76, "large": 104}
POSITIONS: dict[str, tuple[float, float]] = {
    "": (0.5, 0.5),
    "on the left": (0.27, 0.5),
    "on the right": (0.73, 0.5),
    "at the top": (0.5, 0.27),
    "at the bottom": (0.5, 0.73),
    "in the top left corner": (0.25, 0.25),
    "in the top right corner": (0.75, 0.25),
    "in the bottom left corner": (0.25, 0.75),
    "in the bottom right corner": (0.75, 0.75),
}
_COUNT_LAYOUTS: dict[int, tuple[tuple[float, float], ...]] = {
    2: ((0.28, 0.5), (0.72, 0.5)),
    3: ((0.28, 0.71), (0.72, 0.71), (0.5, 0.28)),
    4: ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
}
# Different objects in the order in which they are named: as one reads.
_GROUP_LAYOUTS: dict[int, tuple[tuple[float, float], ...]] = {
    3: ((0.5, 0.28), (0.28, 0.71), (0.72, 0.71)),
    4: _COUNT_LAYOUTS[4],
}
_PAIR_LAYOUTS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
    "left": ((0.27, 0.5), (0.73, 0.5)),
    "right": ((0.73, 0.5), (0.27, 0.5)),
}
_COUNT_SIZES = {2: 50, 3: 48, 4: 46}
_PAIR_SIZE = 53


@dataclass(frozen=True)
class PlacedObject:
    """One drawing: its name, its centre and side in pixels of a 128 px picture, and the colour that it is painted, if any."""

    name: str
    x: float
    y: float
    size: float
    color: str = ""


@dataclass(frozen=True)
class Scene:
    """One picture as plain data: what is where, on which colour, and the caption that says so."""

    kind: Kind
    objects: tuple[PlacedObject, ...]
    background: str
    background_rgb: tuple[int, int, int]
    caption: str
    relation: str = ""
    position: str = ""
    size: str = ""


def is_held_out(*combination: object, share: float = 0.1) -> bool:
    """Whether a combination belongs to the fixed share that training never shows (decided by its SHA-256)."""
    digest = hashlib.sha256("|".join(map(str, combination)).encode()).digest()
    return digest[0] * 256 + digest[1] < share * 65536


def combinations(scene: Scene) -> list[tuple[object, ...]]:
    """What a scene combines, as `is_held_out` reads it. Below is above said the other way round, right is left."""
    names = [item.name for item in scene.objects]
    found: list[tuple[object, ...]] = [("single", name, scene.background) for name in dict.fromkeys(names)]
    found += [("color", name, color) for name, color in dict.fromkeys((o.name, o.color) for o in scene.objects if o.color)]
    if scene.kind == "count":
        found.append(("count", names[0], len(names)))
    if scene.kind == "pair":
        mirrored = _MIRRORED.get(scene.relation)
        found.append(("pair", names[1], mirrored, names[0]) if mirrored else ("pair", names[0], scene.relation, names[1]))
    if scene.kind == "group":
        found += [("group", *sorted(two)) for two in itertools.combinations(names, 2)]
    return found


def sample_scene(
    index: int,
    *,
    seed: int = 0,
    split: Split = "train",
    kind: Kind | None = None,
    shares: Mapping[Kind, float] | None = None,
    jitter: float = 1.0,
) -> Scene:
    """Scene number `index` of a stream.

    Args:
        index: ≥ 0.
        seed: names the stream; training uses 0, evaluation other ones.
        split: "train" never contains a held-out combination, each scene of "held-out" contains one.
        kind: fix the kind of scene instead of drawing it. shares: how often each kind comes; `KIND_SHARES` by default.
        jitter: how much of the random shift (up to 3 pixels) and change of size (up to 6 %) each drawing gets; 0 is none. All
            else stays the same.

    Raises:
        UnknownNameError: there is no such split or kind. DataError: a negative number, jitter is not finite, or the shares do
            not sum to 1.
    """
    if split not in get_args(Split):
        raise unknown_name("split", split, get_args(Split))
    shares = KIND_SHARES if shares is None else shares
    for name in (*shares, *([] if kind is None else [kind])):
        if name not in _DRAW:
            raise unknown_name("kind of scene", name, list(_DRAW))
    if not (all(share >= 0 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6):
        raise DataError(f"the shares of the kinds of scenes are not negative and sum to 1, got {dict(shares)}")
    if index < 0 or seed < 0 or not 0 <= jitter < np.inf:
        raise DataError(f"a scene takes an index, a seed and a jitter of at least 0, got {index}, {seed} and {jitter}")
    rng = np.random.default_rng([seed, index, 0 if split == "train" else 1])
    wanted = split == "held-out"
    # Drawn once: kinds that combine more would otherwise lose more of their share.
    chosen = kind or rng.choice(list(shares), p=list(shares.values()))
    while True:
        scene = _DRAW[chosen](rng, jitter)
        if any(is_held_out(*combination) for combination in combinations(scene)) == wanted:
            return scene


def sample_clutter(index: int, *, seed: int = 0) -> Scene:
    """A crowded picture without a caption: two to seven drawings of any size anywhere, for training autoencoders.

    Most of a grammatical scene is plain background, which an autoencoder has learnt after a minute.
    """
    rng = np.random.default_rng([seed, index, 2])
    background, rgb = _background(rng)
    objects = []
    for name in rng.choice(openmoji.names(), int(rng.integers(2, 8))):
        x, y = rng.uniform(0.1, 0.9, 2) * RESOLUTION
        objects.append(
            PlacedObject(str(name), float(x), float(y), float(rng.uniform(36, 100)), _paint(rng, str(name), background))
        )
    return Scene("clutter", tuple(objects), background, rgb, "")


def render(scene: Scene, resolution: int = RESOLUTION) -> NDArray[np.uint8]:
    """The scene as an RGB picture, uint8 (resolution, resolution, 3), 0…255."""
    from PIL import Image

    scale = resolution / RESOLUTION
    canvas = Image.new("RGB", (resolution, resolution), scene.background_rgb)
    for item in scene.objects:
        side = max(4, round(item.size * scale))
        stamp = Image.fromarray(openmoji.drawing(item.name, side, item.color))
        canvas.paste(stamp, (round(item.x * scale - side / 2), round(item.y * scale - side / 2)), stamp)
    return np.array(canvas)


def _background(rng: np.random.Generator) -> tuple[str, tuple[int, int, int]]:
    name = str(rng.choice(list(BACKGROUNDS)))
    jitter = rng.integers(-_BACKGROUND_JITTER, _BACKGROUND_JITTER + 1, 3)
    red, green, blue = (int(np.clip(value + shift, 0, 255)) for value, shift in zip(BACKGROUNDS[name], jitter, strict=True))
    return name, (red, green, blue)


def _paint(rng: np.random.Generator, name: str, background: str) -> str:
    """A colour for some of the drawings that come in any, not the background's: it would hide them."""
    draw, choice = rng.random(), int(rng.integers(len(openmoji.COLORS)))
    color = list(openmoji.COLORS)[choice]
    return color if draw < _PAINTED_SHARE and name in _paintable() and color != background else ""


@lru_cache(maxsize=1)
def _paintable() -> frozenset[str]:
    return frozenset(openmoji.paintable_names())


def _place(
    rng: np.random.Generator, name: str, at: tuple[float, float], size: float, jitter: float, color: str = ""
) -> PlacedObject:
    shift = rng.uniform(-3.0, 3.0, 2) * jitter
    scale = 1 + (rng.uniform(0.94, 1.06) - 1) * jitter
    x, y = (float(part * RESOLUTION + moved) for part, moved in zip(at, shift, strict=True))
    return PlacedObject(name, x, y, float(size * scale), color)


def _caption(rng: np.random.Generator, subject: str, background: str) -> str:
    """One of several ways to say the same; one in eight leaves the background to the painter."""
    templates = (
        "{subject} on a {background} background",
        "{subject} on a {background} background",
        "{subject} in front of a {background} background",
        "a picture of {subject} on a {background} background",
        "a {background} background with {subject}",
        "{subject} on {background}",
        "a drawing of {subject}, {background} background",
        "{subject}",
    )
    text = templates[rng.integers(len(templates))].format(subject=subject, background=background)
    return text.replace("a orange", "an orange")


def _single(rng: np.random.Generator, jitter: float) -> Scene:
    name = str(rng.choice(openmoji.names()))
    background, rgb = _background(rng)
    size = str(rng.choice(list(SIZES), p=[0.15, 0.7, 0.15]))
    # A large drawing fills the picture: it has nowhere else to be.
    position = "" if size == "large" or rng.random() < 0.65 else str(rng.choice(list(POSITIONS)[1:]))
    pixels = min(SIZES[size], 54) if position else SIZES[size]
    color = _paint(rng, name, background)
    subject = f"{described(name, size, color)} {position}".strip()
    placed = _place(rng, name, POSITIONS[position], pixels, jitter, color)
    return Scene("single", (placed,), background, rgb, _caption(rng, subject, background), position=position, size=size)


def _count(rng: np.random.Generator, jitter: float) -> Scene:
    name = str(rng.choice([name for name in openmoji.names() if name not in UNCOUNTED_NAMES]))
    count = int(rng.choice(list(COUNTS)))
    background, rgb = _background(rng)
    color = _paint(rng, name, background)
    objects = tuple(_place(rng, name, at, _COUNT_SIZES[count], jitter, color) for at in _COUNT_LAYOUTS[count])
    subject = " ".join(word for word in (COUNTS[count], color, plural(name)) if word)
    return Scene("count", objects, background, rgb, _caption(rng, subject, background))


def _pair(rng: np.random.Generator, jitter: float) -> Scene:
    names = [str(name) for name in rng.choice(openmoji.names(), 2, replace=False)]
    relation = str(rng.choice(list(RELATIONS)))
    background, rgb = _background(rng)
    colors = [_paint(rng, name, background) for name in names]
    objects = tuple(
        _place(rng, name, at, _PAIR_SIZE, jitter, color)
        for name, color, at in zip(names, colors, _PAIR_LAYOUTS[relation], strict=True)
    )
    first, second = (described(name, color) for name, color in zip(names, colors, strict=True))
    subject = f"{first} {RELATIONS[relation]} {second}"
    return Scene("pair", objects, background, rgb, _caption(rng, subject, background), relation=relation)


def _group(rng: np.random.Generator, jitter: float) -> Scene:
    count = int(rng.choice(list(_GROUP_LAYOUTS)))
    names = [str(name) for name in rng.choice(openmoji.names(), count, replace=False)]
    background, rgb = _background(rng)
    objects = tuple(
        _place(rng, name, at, _COUNT_SIZES[count], jitter) for name, at in zip(names, _GROUP_LAYOUTS[count], strict=True)
    )
    *others, last = (indefinite(name) for name in names)
    return Scene("group", objects, background, rgb, _caption(rng, f"{', '.join(others)} and {last}", background))


_DRAW = {"single": _single, "count": _count, "pair": _pair, "group": _group}
