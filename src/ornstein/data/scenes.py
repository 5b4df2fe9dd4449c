"""Emoji scenes: OpenMoji drawings on a coloured background, with a caption drawn from a small grammar.

Scene i of a stream is a pure function of (seed, split, i): the same picture and caption on every machine, in any order
and by any number of workers. A fixed tenth of the combinations (object and background, object and count, which object is above or
left of which) never occurs in the training split, however a scene would come by it; every scene of the held-out split has one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Split = Literal["train", "held-out"]
Kind = Literal["single", "count", "pair", "clutter"]

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

KIND_SHARES: dict[Kind, float] = {"single": 0.6, "count": 0.15, "pair": 0.25}
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
_PAIR_LAYOUTS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
    "left": ((0.27, 0.5), (0.73, 0.5)),
    "right": ((0.73, 0.5), (0.27, 0.5)),
}
_COUNT_SIZES = {2: 50, 3: 48, 4: 46}
_PAIR_SIZE = 53

# Names that take neither article nor number: plurals, and what is not counted.
UNCOUNTED_NAMES = frozenset(
    {
        "cherries", "grapes", "blueberries", "french fries", "pancakes", "jeans", "glasses", "sunglasses", "gloves", "socks",
        "books", "scissors", "eyes", "thumbs up", "thumbs down", "paw prints",
        "corn", "broccoli", "popcorn", "bacon", "fire", "lightning", "cheese", "sushi", "yarn", "bowling", "baguette bread",
        "meat on bone",
    }
)  # fmt: skip
_IRREGULAR_PLURALS = {
    "tomato": "tomatoes", "mango": "mangoes", "volcano": "volcanoes", "sheep": "sheep", "deer": "deer", "moai": "moai",
    "tropical fish": "tropical fish", "blowfish": "blowfish", "jellyfish": "jellyfish", "snowman": "snowmen", "tooth": "teeth",
    "kitchen knife": "kitchen knives", "fork and knife": "forks and knives", "bow and arrow": "bows and arrows",
    "cup of coffee": "cups of coffee", "pile of poo": "piles of poo", "sun with face": "suns with faces",
    "globe showing Americas": "globes showing Americas", "game die": "game dice",
}  # fmt: skip


@dataclass(frozen=True)
class PlacedObject:
    """One drawing: its name, its centre and side in pixels of a 128 px picture."""

    name: str
    x: float
    y: float
    size: float


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


def indefinite(name: str) -> str:
    """The name with its article: "an orange", "a red apple", "french fries"."""
    if name in UNCOUNTED_NAMES:
        return name
    sounds_like_a_vowel = (name[0].lower() in "aeiou" and not name.startswith(("uni", "one"))) or name.startswith("hour")
    return f"{'an' if sounds_like_a_vowel else 'a'} {name}"


def plural(name: str) -> str:
    """The name in the plural: "red apples", "strawberries", "foxes"."""
    if name in UNCOUNTED_NAMES:
        return name
    if name in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[name]
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("leaf"):
        return name[:-4] + "leaves"
    return name + "s"


def is_held_out(*combination: object) -> bool:
    """Whether a combination belongs to the fixed tenth that training never shows (decided by its SHA-256)."""
    digest = hashlib.sha256("|".join(map(str, combination)).encode()).digest()
    return digest[0] * 256 + digest[1] < 6554  # 6554 / 65536 = a tenth


def combinations(scene: Scene) -> list[tuple[object, ...]]:
    """What a scene combines, as `is_held_out` reads it. Below is above said the other way round, right is left."""
    names = [item.name for item in scene.objects]
    found: list[tuple[object, ...]] = [("single", name, scene.background) for name in dict.fromkeys(names)]
    if scene.kind == "count":
        found.append(("count", names[0], len(names)))
    if scene.kind == "pair":
        mirrored = _MIRRORED.get(scene.relation)
        found.append(("pair", names[1], mirrored, names[0]) if mirrored else ("pair", names[0], scene.relation, names[1]))
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
        objects.append(PlacedObject(str(name), float(x), float(y), float(rng.uniform(36, 100))))
    return Scene("clutter", tuple(objects), background, rgb, "")


def render(scene: Scene, resolution: int = RESOLUTION) -> NDArray[np.uint8]:
    """The scene as an RGB picture, uint8 (resolution, resolution, 3), 0…255."""
    from PIL import Image

    scale = resolution / RESOLUTION
    canvas = Image.new("RGB", (resolution, resolution), scene.background_rgb)
    for item in scene.objects:
        side = max(4, round(item.size * scale))
        stamp = Image.fromarray(openmoji.drawing(item.name, side))
        canvas.paste(stamp, (round(item.x * scale - side / 2), round(item.y * scale - side / 2)), stamp)
    return np.array(canvas)


def _background(rng: np.random.Generator) -> tuple[str, tuple[int, int, int]]:
    name = str(rng.choice(list(BACKGROUNDS)))
    jitter = rng.integers(-_BACKGROUND_JITTER, _BACKGROUND_JITTER + 1, 3)
    red, green, blue = (int(np.clip(value + shift, 0, 255)) for value, shift in zip(BACKGROUNDS[name], jitter, strict=True))
    return name, (red, green, blue)


def _place(rng: np.random.Generator, name: str, at: tuple[float, float], size: float, jitter: float) -> PlacedObject:
    shift = rng.uniform(-3.0, 3.0, 2) * jitter
    scale = 1 + (rng.uniform(0.94, 1.06) - 1) * jitter
    return PlacedObject(name, float(at[0] * RESOLUTION + shift[0]), float(at[1] * RESOLUTION + shift[1]), float(size * scale))


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
    noun = indefinite(name) if not size else f"{'' if name in UNCOUNTED_NAMES else 'a '}{size} {name}"
    subject = f"{noun} {position}".strip()
    return Scene(
        "single",
        (_place(rng, name, POSITIONS[position], pixels, jitter),),
        background,
        rgb,
        _caption(rng, subject, background),
        position=position,
        size=size,
    )


def _count(rng: np.random.Generator, jitter: float) -> Scene:
    name = str(rng.choice([name for name in openmoji.names() if name not in UNCOUNTED_NAMES]))
    count = int(rng.choice(list(COUNTS)))
    background, rgb = _background(rng)
    objects = tuple(_place(rng, name, at, _COUNT_SIZES[count], jitter) for at in _COUNT_LAYOUTS[count])
    subject = f"{COUNTS[count]} {plural(name)}"
    return Scene("count", objects, background, rgb, _caption(rng, subject, background))


def _pair(rng: np.random.Generator, jitter: float) -> Scene:
    first, second = (str(name) for name in rng.choice(openmoji.names(), 2, replace=False))
    relation = str(rng.choice(list(RELATIONS)))
    background, rgb = _background(rng)
    objects = tuple(
        _place(rng, name, at, _PAIR_SIZE, jitter) for name, at in zip((first, second), _PAIR_LAYOUTS[relation], strict=True)
    )
    subject = f"{indefinite(first)} {RELATIONS[relation]} {indefinite(second)}"
    return Scene("pair", objects, background, rgb, _caption(rng, subject, background), relation=relation)


_DRAW = {"single": _single, "count": _count, "pair": _pair}
