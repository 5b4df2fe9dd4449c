from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.data import naming, scenes


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    assert scenes.sample_scene(7) == scenes.sample_scene(7)
    assert scenes.sample_scene(7) != scenes.sample_scene(8)
    assert scenes.sample_scene(7) != scenes.sample_scene(7, seed=1)
    picture = scenes.render(scenes.sample_scene(7))
    assert np.array_equal(picture, scenes.render(scenes.sample_scene(7)))
    assert picture.shape == (128, 128, 3)
    assert picture.dtype == np.uint8


def _shown(scene: scenes.Scene) -> set[tuple[object, ...]]:
    """What the picture shows, from the drawings alone: what is on which background and of which colour, how many of one, what is above
    or left of what, which stand in one group."""
    names = [item.name for item in scene.objects]
    shown: set[tuple[object, ...]] = {("single", name, scene.background) for name in names}
    shown |= {("color", item.name, item.color) for item in scene.objects if item.color}
    if len(set(names)) > 2:
        shown |= {("group", min(a, b), max(a, b)) for a in names for b in names if a != b}
    if len(names) > 1 and len(set(names)) == 1:
        shown.add(("count", names[0], len(names)))
    if len(set(names)) == 2:
        upright = abs(scene.objects[0].y - scene.objects[1].y) > abs(scene.objects[0].x - scene.objects[1].x)
        first, second = sorted(scene.objects, key=lambda item: item.y if upright else item.x)
        shown.add(("pair", first.name, "above" if upright else "left", second.name))
    return shown


def test_training_never_shows_a_held_out_combination_and_the_held_out_split_shows_only_those() -> None:
    """Whichever kind of scene it would come from, and whichever way round it is said."""
    train = [_shown(scenes.sample_scene(i)) for i in range(3000)]
    held = [_shown(scenes.sample_scene(i, split="held-out")) for i in range(500)]
    assert not any(scenes.is_held_out(*combination) for shown in train for combination in shown)
    assert all(any(scenes.is_held_out(*combination) for combination in shown) for shown in held)
    for kind in scenes.KIND_SHARES:  # each kind can be told apart from what training saw
        assert _shown(scenes.sample_scene(0, split="held-out", kind=kind)) - set().union(*train)


def test_a_tenth_of_the_combinations_is_held_out() -> None:
    held = [scenes.is_held_out("single", name, color) for name in openmoji.names() for color in scenes.BACKGROUNDS]
    assert 0.08 < np.mean(held) < 0.12


def test_kinds_come_in_their_shares() -> None:
    kinds = Counter(scenes.sample_scene(i).kind for i in range(3000))
    for kind, share in scenes.KIND_SHARES.items():
        assert abs(kinds[kind] / 3000 - share) < 4 * np.sqrt(share * (1 - share) / 3000)


def test_the_shares_of_kinds_can_be_chosen() -> None:
    kinds = Counter(scenes.sample_scene(i, shares={"pair": 0.8, "count": 0.2}).kind for i in range(1000))
    assert abs(kinds["pair"] - 800) < 50
    assert set(kinds) == {"pair", "count"}
    for wrong in ({"pair": 0.8}, {"pair": 1.2, "count": -0.2}, {"pair": float("nan")}):
        with pytest.raises(DataError, match="sum to 1"):
            scenes.sample_scene(0, shares=wrong)
    with pytest.raises(UnknownNameError, match="kind of scene"):
        scenes.sample_scene(0, shares={"pairs": 1.0})  # type: ignore[dict-item]


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_captions_say_what_is_there(split: scenes.Split) -> None:
    words = {2: "two", 3: "three", 4: "four"}
    for i in range(600):
        scene = scenes.sample_scene(i, seed=5, split=split)
        names = [item.name for item in scene.objects]
        caption = scene.caption
        # Every word of the caption is a name, a colour, a number, an article … : colours that it says are the drawings' or the ground's.
        assert all(item.color in caption for item in scene.objects)
        painted = {item.color for item in scene.objects} | set(scene.background.split())
        own = " ".join(names)
        for color in openmoji.COLORS:
            assert color in painted or not re.search(rf"\b{color}\b", caption) or color in own
        assert scene.kind == "count" or names[0] in caption
        if scene.kind == "count":
            assert f"{words[len(names)]} " in caption
            assert naming.plural(names[0]) in caption
        elif scene.kind == "group":
            *others, last = (naming.indefinite(name) for name in names)
            assert f"{', '.join(others)} and {last}" in caption
        elif scene.kind == "pair":
            first, second = caption.index(names[0]), caption.rindex(names[1])
            assert first < caption.index(scenes.RELATIONS[scene.relation], first) < second
        if re.search(r"background|on \w+( \w+)?$", caption) and scene.background in caption:
            assert not any(
                f"{color} background" in caption and color != scene.background and not scene.background.endswith(color)
                for color in scenes.BACKGROUNDS
            )
        assert not re.search(r"\ba [aeio]", caption)
        assert "  " not in caption


def test_relations_hold_in_the_picture() -> None:
    for i in range(400):
        scene = scenes.sample_scene(i, kind="pair")
        first, second = scene.objects
        holds = {
            "above": first.y < second.y,
            "below": first.y > second.y,
            "left": first.x < second.x,
            "right": first.x > second.x,
        }
        assert holds[scene.relation]


def test_objects_of_one_scene_do_not_overlap_and_lie_inside() -> None:
    for i in range(600):
        scene = scenes.sample_scene(i)
        for k, a in enumerate(scene.objects):
            assert min(a.x, a.y, 128 - a.x, 128 - a.y) > a.size / 2 - 4
            for b in scene.objects[k + 1 :]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) > (a.size + b.size) / 2 - 5


def test_background_is_what_the_scene_says() -> None:
    for i in range(100):
        scene = scenes.sample_scene(i, kind="single")
        corner_colors = scenes.render(scene)[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corner_colors == scene.background_rgb).all(1).sum() >= 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red apple", "red apples"),
        ("strawberry", "strawberries"),
        ("fox", "foxes"),
        ("maple leaf", "maple leaves"),
        ("eyes", "eyes"),
        ("bus", "buses"),
        ("fork and knife", "forks and knives"),
        ("tooth", "teeth"),
        ("jellyfish", "jellyfish"),
        ("sushi", "sushi"),
    ],
)
def test_plurals(name: str, expected: str) -> None:
    assert naming.plural(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orange", "an orange"),
        ("unicorn", "a unicorn"),
        ("robot", "a robot"),
        ("scissors", "scissors"),
        ("hourglass", "an hourglass"),
        ("cheese", "cheese"),
    ],
)
def test_articles(name: str, expected: str) -> None:
    assert naming.indefinite(name) == expected


def test_words_of_place_and_size_mean_what_they_say() -> None:
    # (column, row) of the third of the picture that each word names.
    thirds = {
        "": (1, 1),
        "on the left": (0, 1),
        "on the right": (2, 1),
        "at the top": (1, 0),
        "at the bottom": (1, 2),
        "in the top left corner": (0, 0),
        "in the top right corner": (2, 0),
        "in the bottom left corner": (0, 2),
        "in the bottom right corner": (2, 2),
    }
    sizes: dict[str, set[int]] = {"small": set(), "": set(), "large": set()}
    for i in range(1500):
        scene = scenes.sample_scene(i, kind="single", jitter=0.0)
        (item,) = scene.objects
        assert (int(item.x // (128 / 3)), int(item.y // (128 / 3))) == thirds[scene.position]
        assert [word for word in thirds if word and word in scene.caption] == ([scene.position] if scene.position else [])
        for size in ("small", "large"):
            assert (" ".join(f"{size} {item.color} {item.name}".split()) in scene.caption) == (scene.size == size)
        if not scene.position:
            sizes[scene.size].add(round(item.size))
        assert not re.search(r"\ba [aeio]", scene.caption.replace("a one", ""))
    assert max(sizes["small"]) < min(sizes[""])
    assert max(sizes[""]) < min(sizes["large"])


def test_backgrounds_have_the_colours_of_their_names() -> None:
    import colorsys

    hues = {"red": 0, "orange": 28, "yellow": 48, "green": 125, "sky blue": 202, "blue": 217, "purple": 270, "pink": 340}
    for name, rgb in scenes.BACKGROUNDS.items():
        hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in rgb))
        if name in hues:
            away = abs(hue * 360 - hues[name])
            assert min(away, 360 - away) < 12, name
            assert saturation > 0.3, name
        else:
            assert {"white": lightness > 0.9, "black": lightness < 0.2, "grey": 0.5 < lightness < 0.8, "brown": True}[name]


def test_jitter_moves_drawings_and_nothing_else() -> None:
    for index in range(60):
        still, usual = (scenes.sample_scene(index, jitter=jitter) for jitter in (0.0, 1.0))
        assert (still.caption, still.background_rgb, still.kind) == (usual.caption, usual.background_rgb, usual.kind)
        for a, b in zip(still.objects, usual.objects, strict=True):
            assert a.name == b.name
            assert 0 < max(abs(a.x - b.x), abs(a.y - b.y)) <= 3.0
            assert 0.94 <= b.size / a.size <= 1.06
        if still.kind == "single" and not still.position:
            assert (still.objects[0].x, still.objects[0].y) == (64.0, 64.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "held_out"}, UnknownNameError, "held-out"),
        ({"kind": "clutter"}, UnknownNameError, "kind of scene"),
        ({"seed": -1}, DataError, "at least 0"),
        ({"jitter": float("nan")}, DataError, "at least 0"),
    ],
)
def test_what_is_no_scene(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scenes.sample_scene(3, **arguments)  # type: ignore[arg-type]


def test_a_painted_drawing_keeps_its_shape_and_is_of_its_colour() -> None:
    for name, color in (("fox", "blue"), ("car", "green"), ("t-shirt", "pink"), ("key", "red")):
        own, painted = openmoji.drawing(name, 96), openmoji.drawing(name, 96, color)
        assert np.array_equal(own[..., 3], painted[..., 3])
        opaque = painted[painted[..., 3] == 255][:, :3].astype(int)
        fills = opaque[opaque.max(-1) > 120]
        distance = {c: np.abs(np.median(fills, axis=0) - np.array(rgb)).sum() for c, rgb in openmoji.COLORS.items()}
        assert min(distance, key=lambda c: distance[c]) == color
        black = own[own[..., 3] == 255][:, :3].max(-1) < 5
        assert painted[painted[..., 3] == 255][black][:, :3].max() < 12  # lines stay lines


def test_only_what_comes_in_colours_is_painted_and_never_as_its_ground() -> None:
    seen = set()
    for i in range(3000):
        scene = scenes.sample_scene(i, seed=6)
        for item in scene.objects:
            assert not item.color or item.name in openmoji.paintable_names()
            assert item.color != scene.background
            seen.add(item.color)
        if scene.kind == "count":
            assert len({item.color for item in scene.objects}) == 1
    assert seen == {"", *openmoji.COLORS}
    with pytest.raises(UnknownNameError, match="colour of a drawing"):
        openmoji.drawing("fox", 40, "mauve")


def test_a_group_stands_in_the_order_in_which_it_is_named() -> None:
    for i in range(200):
        scene = scenes.sample_scene(i, kind="group", jitter=0.0)
        assert len({item.name for item in scene.objects}) == len(scene.objects) in (3, 4)
        places = [(round(item.y / 32), item.x) for item in scene.objects]
        assert places == sorted(places)
