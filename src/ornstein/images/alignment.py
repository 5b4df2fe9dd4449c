"""Does a picture show what its caption says? Objects, colours, count, background, place and size, read without knowing the caption.

A reading starts from the pixels that differ from the background's colour. The grammar of scenes puts two to four drawings side by side, one
above the other, in a triangle or in a square, 56 pixels apart. Generated drawings are soft and touch, so connected regions alone would join
neighbours: a picture is first tried as each of these layouts, whose dividing lines must be nearly free, and is taken as its regions
where none fits. The judge (which never saw a generated picture) then names each place on an otherwise plain ground, the picture that it
knows. Where it is surer of the whole than of the pieces, which have other names or none, the pieces were one drawing.

The reading has mistakes of its own, so state it on real scenes beside any figure: that is the ceiling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data.scenes import POSITIONS, RESOLUTION, SIZES, PlacedObject
from ornstein.images.colors import looks_like, read_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.data.scenes import Scene
    from ornstein.images.judge import EmojiJudge, Verdict

Window = tuple[slice, slice]  # rows, columns

_HALF = RESOLUTION // 2
_FIRST, _SECOND, _ALL = slice(0, _HALF), slice(_HALF, RESOLUTION), slice(0, RESOLUTION)
_LAYOUTS: dict[str, tuple[Window, ...]] = {
    "side by side": ((_ALL, _FIRST), (_ALL, _SECOND)),
    "one above the other": ((_FIRST, _ALL), (_SECOND, _ALL)),
    "triangle": ((_FIRST, _ALL), (_SECOND, _FIRST), (_SECOND, _SECOND)),
    "square": ((_FIRST, _FIRST), (_FIRST, _SECOND), (_SECOND, _FIRST), (_SECOND, _SECOND)),
}
# Chosen on scenes of seed 78, as they are and through the shipped autoencoder; the figures in docs/quality.md are of other seeds.
_DIFFERS = 40  # of 255, in one channel at least: such a pixel belongs to a drawing. Halos of soft pictures stay below.
_REGION_DIFFERS = 30  # the same for connected regions, which a gap would break
_LONGEST_OF_MANY = 62  # pixels: one drawing of several is at most this long, …
_SHORTEST = 24  # … and at least this
_TWO_WIDE = 74  # two places side by side span more than one drawing
_FREE = 0.35  # the share of a dividing line that may be crossed
_FRAGMENT = 0.7  # a region shorter than this share of the longest is a piece of a drawing, …
_GAP = 6  # … if it is as near as this
_DUST = 60  # pixels: a smaller region is nothing
_UNSURE = 0.5  # the judge's probability of a piece that is no drawing by itself


@dataclass(frozen=True)
class Reading:
    """What a picture shows: drawings with their centres and nominal sides, as in a scene, and the background."""

    objects: tuple[PlacedObject, ...]
    background: str


@dataclass(frozen=True)
class Alignment:
    """What of a caption is right in a picture. None: the caption does not say it.

    Args:
        objects: every object that is named is there, and no other kind.
        colors: each is of the colour that is said, and what is said without one is of its own. None where no colour is said.
        count: as many drawings as asked for. background: its named colour.
        place: the position of a single object; of two, which is above or left of which.
        size: small or large.
    """

    objects: bool
    colors: bool | None
    count: bool
    background: bool | None
    place: bool | None
    size: bool | None

    @property
    def all_right(self) -> bool:
        return all(part is not False for part in (self.objects, self.colors, self.count, self.background, self.place, self.size))


def align(scene: Scene, reading: Reading) -> Alignment:
    """Compare what was asked for with what is there."""
    there = reading.objects
    alone = there[0] if len(there) == 1 else None
    place: bool | None = None
    if scene.relation:
        place = _relation(there, scene.objects[0].name, scene.objects[1].name) == scene.relation
    elif scene.position:
        place = alone is not None and _position(alone) == scene.position
    return Alignment(
        objects={item.name for item in there} == {item.name for item in scene.objects},
        colors=_looks(there) == _looks(scene.objects) if any(item.color for item in scene.objects) else None,
        count=len(there) == len(scene.objects),
        background=reading.background == scene.background if says_background(scene) else None,
        place=place,
        size=(alone is not None and _size(alone, bool(scene.position)) == scene.size) if scene.size else None,
    )


def _looks(objects: Sequence[PlacedObject]) -> set[tuple[str, str]]:
    return {(item.name, looks_like(item.name, item.color)) for item in objects}


def says_background(scene: Scene) -> bool:
    """Whether the caption names the background: one in eight leaves it to the painter."""
    return f"{scene.background} background" in scene.caption or scene.caption.endswith(f" on {scene.background}")


def read(judge: EmojiJudge, pictures: NDArray[np.uint8]) -> list[Reading]:
    """Read RGB uint8 (n, 128, 128, 3).

    Raises:
        DataError: the pictures are of another shape or type.
    """
    if pictures.ndim != 4 or pictures.shape[1:] != (RESOLUTION, RESOLUTION, 3) or pictures.dtype != np.uint8:
        raise DataError(
            f"the reader takes uint8 (n, {RESOLUTION}, {RESOLUTION}, 3), as scenes are, got {pictures.dtype} {pictures.shape}"
        )
    found = [_boxes(_difference(picture)) for picture in pictures]
    whole = judge.verdicts(pictures)
    pieces = name_windows(judge, pictures, [[_widened(box) for box in boxes] if len(boxes) > 1 else [] for boxes in found])
    backgrounds = judge.backgrounds(pictures)
    readings = []
    for picture, boxes, verdict, parts, background in zip(pictures, found, whole, pieces, backgrounds, strict=True):
        if len(boxes) > 1 and not _one_drawing(verdict, parts):
            objects = tuple(_placed(picture, part.ranking[0], box) for part, box in zip(parts, boxes, strict=True))
        else:
            objects = (_placed(picture, verdict.ranking[0], _around(boxes)),) if boxes else ()
        readings.append(Reading(objects, background))
    return readings


def name_windows(judge: EmojiJudge, pictures: NDArray[np.uint8], windows: Sequence[Sequence[Window]]) -> list[list[Verdict]]:
    """What the judge sees in each window of each picture, alone on a plain ground of the colour of the picture's upper and lower edge."""
    alone = []
    for picture, mine in zip(pictures, windows, strict=True):
        ground = np.median(np.concatenate([picture[:4], picture[-4:]]).reshape(-1, 3), axis=0).astype(np.uint8)
        for rows, columns in mine:
            canvas = np.broadcast_to(ground, picture.shape).copy()
            canvas[rows, columns] = picture[rows, columns]
            alone.append(canvas)
    verdicts = iter(judge.verdicts(np.stack(alone)) if alone else [])
    return [[next(verdicts) for _ in mine] for mine in windows]


def _difference(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far each pixel is from the border's median colour, in the channel where it is farthest."""
    border = np.ones(picture.shape[:2], dtype=bool)
    border[6:-6, 6:-6] = False
    return np.abs(picture.astype(np.float64) - np.median(picture[border], axis=0)).max(-1)


def _boxes(difference: NDArray[np.float64]) -> list[Window]:
    """The box of each drawing: of the layout whose dividing lines are freest, else of the regions."""
    found = {name: _crossed(difference, name) for name in _LAYOUTS}
    best = min(found, key=lambda name: found[name])
    if found[best] <= _FREE:
        boxes = [_box(difference > _DIFFERS, cell) for cell in _LAYOUTS[best]]
        return [box for box in boxes if box is not None]
    return _regions(difference > _REGION_DIFFERS)


def _crossed(difference: NDArray[np.float64], layout: str) -> float:
    """How much of a layout's most crossed dividing line is drawing; infinite where the drawings do not fit the layout."""
    drawn = difference > _DIFFERS
    whole = _box(drawn)
    if whole is None:
        return math.inf
    height, width = _lengths(whole)
    fits = {
        "side by side": width >= _TWO_WIDE and height <= _LONGEST_OF_MANY,
        "one above the other": height >= _TWO_WIDE and width <= _LONGEST_OF_MANY,
    }.get(layout, min(height, width) >= _TWO_WIDE)
    boxes = [_box(drawn, cell) for cell in _LAYOUTS[layout]]
    if not fits or not all(box is not None and _SHORTEST <= max(_lengths(box)) <= _LONGEST_OF_MANY for box in boxes):
        return math.inf
    strength = np.minimum(difference, 60) / 60
    (top, bottom), (left, right) = ((side.start, side.stop) for side in whole)
    lines = {
        "side by side": [strength.T[:, top:bottom]],
        "one above the other": [strength[:, left:right]],
        "triangle": [strength[:, left:right], strength.T[:, _HALF:bottom]],
        "square": [strength[:, left:_HALF], strength[:, _HALF:right], strength.T[:, top:_HALF], strength.T[:, _HALF:bottom]],
    }[layout]
    # Drawings are shifted by up to three pixels and differ in size: the line may lie five off the middle.
    return max(float(line[_HALF - 5 : _HALF + 6].mean(1).min()) for line in lines)


def _regions(drawn: NDArray[np.bool_]) -> list[Window]:
    """Boxes of connected regions; overlapping ones, and pieces near another, are joined."""
    from scipy.ndimage import find_objects, label

    labels, _ = label(drawn, np.ones((3, 3)))
    boxes: list[Window] = [box for box in find_objects(labels) if max(_lengths(box)) > 2]
    while len(boxes) > 1:
        longest = max(max(_lengths(box)) for box in boxes)
        pairs = [
            (apart, i, j)
            for i in range(len(boxes))
            for j in range(i)
            if (apart := _apart(boxes[i], boxes[j])) <= -2
            or (apart <= _GAP and min(max(_lengths(boxes[i])), max(_lengths(boxes[j]))) < _FRAGMENT * longest)
        ]
        if not pairs:
            break
        _, i, j = min(pairs)
        boxes = [box for k, box in enumerate(boxes) if k not in (i, j)] + [_around([boxes[i], boxes[j]])]
    return [box for box in boxes if drawn[box].sum() >= _DUST]


def _one_drawing(whole: Verdict, pieces: Sequence[Verdict]) -> bool:
    """Where the judge is surer of the whole than of the pieces, and none of these carries the whole's name, or one is no drawing."""
    sure = [piece.probability for piece in pieces]
    if whole.probability <= sum(sure) / len(sure):
        return False
    return whole.ranking[0] not in {piece.ranking[0] for piece in pieces} or min(sure) < _UNSURE


def _box(drawn: NDArray[np.bool_], cell: Window = (_ALL, _ALL)) -> Window | None:
    rows, columns = np.nonzero(drawn[cell])
    if not len(rows):
        return None
    top, left = cell[0].start, cell[1].start
    return slice(top + rows.min(), top + rows.max() + 1), slice(left + columns.min(), left + columns.max() + 1)


def _lengths(box: Window) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _apart(a: Window, b: Window) -> int:
    """Pixels between two boxes; negative where they overlap."""
    return max(max(p.start - q.stop, q.start - p.stop) for p, q in zip(a, b, strict=True))


def _around(boxes: Sequence[Window]) -> Window:
    rows, columns = (
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
    return rows, columns


def _widened(box: Window) -> Window:
    rows, columns = (slice(max(side.start - 2, 0), side.stop + 2) for side in box)
    return rows, columns


def _placed(picture: NDArray[np.uint8], name: str, box: Window) -> PlacedObject:
    """Drawings are centred in their squares and fill them the longer way."""
    y, x = ((side.start + side.stop) / 2 for side in box)
    size = max(_lengths(box))
    return PlacedObject(name, x, y, size, read_color(picture, name, x, y, size))


def _position(item: PlacedObject) -> str:
    def distance(name: str) -> float:
        x, y = POSITIONS[name]
        return math.hypot(item.x - x * RESOLUTION, item.y - y * RESOLUTION)

    return min(POSITIONS, key=distance)


def _relation(there: Sequence[PlacedObject], first: str, second: str) -> str:
    """Where the one object called `first` is, seen from the one called `second`; empty where there is not exactly one of each."""
    a, b = ([item for item in there if item.name == name] for name in (first, second))
    if len(a) != 1 or len(b) != 1:
        return ""
    x, y = a[0].x - b[0].x, a[0].y - b[0].y
    if abs(y) > abs(x):
        return "above" if y < 0 else "below"
    return "left" if x < 0 else "right"


def _size(item: PlacedObject, placed: bool) -> str:
    """The nearest size. Off the middle, a drawing of no stated size has 54 pixels and none is large."""
    sizes = {"small": SIZES["small"], "": 54} if placed else SIZES
    return min(sizes, key=lambda name: abs(math.log(item.size / sizes[name])))
