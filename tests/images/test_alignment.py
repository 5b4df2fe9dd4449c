"""The reader of pictures against scenes whose content is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ornstein
from ornstein.core import DataError
from ornstein.data.scenes import POSITIONS, RELATIONS, PlacedObject, Scene, render, sample_scene
from ornstein.images import Alignment, EmojiJudge, Reading, align, read
from ornstein.images.alignment import says_background

_EACH = 24
_SCENES = {kind: [sample_scene(i, seed=79, kind=kind) for i in range(_EACH)] for kind in ("single", "count", "pair", "group")}


@pytest.fixture(scope="module")
def judge() -> EmojiJudge:
    return ornstein.load("emoji-classifier", expect="emoji-classifier")


@pytest.fixture(scope="module")
def readings(judge: EmojiJudge) -> dict[str, list[Reading]]:
    return {kind: read(judge, np.stack([render(scene) for scene in scenes])) for kind, scenes in _SCENES.items()}


def _drawn(*objects: tuple[str, float, float, float], background: tuple[int, int, int] = (160, 212, 244)) -> np.ndarray:
    return render(Scene("single", tuple(PlacedObject(*item) for item in objects), "sky blue", background, ""))


@pytest.mark.parametrize("kind", ["single", "count", "pair", "group"])
def test_real_scenes_are_read_right(readings: dict[str, list[Reading]], kind: str) -> None:
    alignments = [align(scene, reading) for scene, reading in zip(_SCENES[kind], readings[kind], strict=True)]
    for part in ("objects", "colors", "count", "background", "place", "size"):
        answers = [answer for one in alignments if (answer := getattr(one, part)) is not None]
        assert sum(answers) >= 0.9 * len(answers), part
    assert sum(one.all_right for one in alignments) >= 0.9 * _EACH


@pytest.mark.parametrize("kind", ["single", "count", "pair", "group"])
def test_objects_are_found_where_they_were_put(readings: dict[str, list[Reading]], kind: str) -> None:
    """Within 1.2 pixels and three per cent of the size, only where the names are right."""
    off, by = [], []
    for scene, reading in zip(_SCENES[kind], readings[kind], strict=True):
        for item in scene.objects:
            near = min(reading.objects, key=lambda other, item=item: np.hypot(other.x - item.x, other.y - item.y))
            if near.name == item.name:
                off.append(np.hypot(near.x - item.x, near.y - item.y))
                by.append(abs(np.log(near.size / item.size)))
    assert np.quantile(off, 0.9) < 1.2
    assert np.quantile(by, 0.9) < 0.03


def test_the_captions_of_other_scenes_are_not_read_into_a_picture(readings: dict[str, list[Reading]]) -> None:
    for kind, scenes in _SCENES.items():
        assert sum(align(scene, reading).all_right for scene, reading in zip(scenes, readings[kind][1:], strict=False)) == 0


def test_a_reading_does_not_depend_on_the_pictures_around_it(judge: EmojiJudge, readings: dict[str, list[Reading]]) -> None:
    pictures = np.stack([render(scene) for scene in _SCENES["pair"][3:6]])
    assert read(judge, pictures) == readings["pair"][3:6]


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_two_objects_exchanged_are_another_relation(judge: EmojiJudge, relation: str) -> None:
    scene = next(s for i in range(99) if (s := sample_scene(i, seed=80, kind="pair")).relation == relation)
    first, second = scene.objects
    exchanged = replace(scene, objects=(replace(first, name=second.name), replace(second, name=first.name)))
    right, wrong = (align(scene, reading) for reading in read(judge, np.stack([render(scene), render(exchanged)])))
    assert right.all_right
    assert (wrong.objects, wrong.count, wrong.place) == (True, True, False)


@pytest.mark.parametrize("position", list(POSITIONS)[1:])
def test_positions_are_told_apart(judge: EmojiJudge, position: str) -> None:
    x, y = POSITIONS[position]
    reading = read(judge, _drawn(("banana", x * 128, y * 128, 54))[None])
    for asked in list(POSITIONS)[1:]:
        scene = Scene("single", (PlacedObject("banana", 0, 0, 0),), "sky blue", (0, 0, 0), "", position=asked)
        assert align(scene, reading[0]).place is (asked == position)


@pytest.mark.parametrize("name", ["handbag", "drum", "television", "headphone", "wrench", "gloves", "skis", "axe", "bouquet"])
def test_a_drawing_of_several_pieces_is_one(judge: EmojiJudge, name: str) -> None:
    """Regions near each other, or halves that leave the middle free, one of which the judge would take for the whole: it knows better."""
    (reading,) = read(judge, _drawn((name, 64, 64, 104))[None])
    assert [item.name for item in reading.objects] == [name]


def test_one_of_two_has_no_position(judge: EmojiJudge) -> None:
    (reading,) = read(judge, _drawn(("banana", 35, 64, 50), ("banana", 92, 64, 50))[None])
    scene = Scene("single", (PlacedObject("banana", 0, 0, 0),), "sky blue", (0, 0, 0), "", position="on the left")
    assert align(scene, reading) == Alignment(objects=True, colors=None, count=False, background=None, place=False, size=None)


def test_one_too_many_is_counted(judge: EmojiJudge) -> None:
    places = [(36, 36), (92, 36), (36, 92), (92, 92)]
    scene = sample_scene(0, seed=81, kind="count")
    scene = replace(scene, objects=tuple(PlacedObject("pizza", x, y, 46) for x, y in places[:3]))
    four = read(judge, _drawn(*(("pizza", x, y, 46) for x, y in places))[None])[0]
    assert (align(scene, four).objects, align(scene, four).count) == (True, False)
    assert len(four.objects) == 4


def test_an_empty_picture_shows_nothing(judge: EmojiJudge) -> None:
    reading = read(judge, np.full((1, 128, 128, 3), (70, 120, 208), np.uint8))[0]
    assert reading == Reading((), "blue")
    nothing_right = align(sample_scene(0, seed=82, kind="pair"), reading)
    assert (nothing_right.objects, nothing_right.count, nothing_right.place) == (False, False, False)
    assert read(judge, np.empty((0, 128, 128, 3), np.uint8)) == []


def test_what_the_caption_leaves_out_is_not_asked() -> None:
    scene = Scene("single", (PlacedObject("fox", 64, 64, 76),), "red", (0, 0, 0), "a fox")
    reading = Reading((PlacedObject("fox", 30, 30, 44),), "blue")
    assert align(scene, reading) == Alignment(True, None, True, None, None, None)
    assert align(scene, reading).all_right
    asked = replace(scene, caption="a fox on red", position="on the left", size="large")
    assert align(asked, reading) == Alignment(True, None, True, False, False, False)


def test_sizes_are_those_of_the_grammar() -> None:
    small = Scene("single", (PlacedObject("fox", 64, 64, 44),), "red", (0, 0, 0), "a small fox", size="small")
    large = replace(small, size="large")
    for side, is_small, is_large in (
        (44, True, False),
        (56, True, False),
        (60, False, False),
        (86, False, False),
        (92, False, True),
    ):
        reading = Reading((PlacedObject("fox", 64, 64, side),), "red")
        assert (align(small, reading).size, align(large, reading).size) == (is_small, is_large)
    beside = replace(small, position="on the left")
    assert align(beside, Reading((PlacedObject("fox", 35, 64, 47),), "red")).size
    assert not align(beside, Reading((PlacedObject("fox", 35, 64, 52),), "red")).size


def test_one_caption_in_eight_is_silent_about_the_background() -> None:
    assert np.mean([says_background(sample_scene(i, seed=83)) for i in range(4000)]) == pytest.approx(7 / 8, abs=0.02)


@pytest.mark.parametrize(
    ("caption", "background", "said"),
    [
        ("a purple heart", "purple", False),
        ("an orange", "orange", False),
        ("an orange on orange", "orange", True),
        ("a fox on the left, sky blue background", "sky blue", True),
        ("a red background with a red apple below a fox", "red", True),
        ("a red apple in front of a brown background", "brown", True),
    ],
)
def test_a_colour_in_a_name_is_no_background(caption: str, background: str, said: bool) -> None:
    assert says_background(Scene("single", (), background, (0, 0, 0), caption)) is said


@pytest.mark.parametrize(
    "pictures", [np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 128, 128, 3)), np.zeros((128, 128, 3), np.uint8)]
)
def test_other_pictures_are_refused(judge: EmojiJudge, pictures: np.ndarray) -> None:
    with pytest.raises(DataError, match="the reader takes uint8"):
        read(judge, pictures)
