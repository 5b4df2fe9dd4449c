"""The colour of drawings, against scenes whose colours are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ornstein.assets import openmoji
from ornstein.data.scenes import PlacedObject, Scene, render, sample_scene
from ornstein.images.colors import looks_like, read_color


@pytest.mark.parametrize("softness", [0.0, 1.2])
def test_colours_of_real_scenes_are_read_right_sharp_or_soft(softness: float) -> None:
    rng = np.random.default_rng(0)
    answers = []
    for i in range(160):
        scene = sample_scene(i, seed=79)
        picture = np.asarray(Image.fromarray(render(scene)).filter(ImageFilter.GaussianBlur(softness)))
        for item in scene.objects:
            if item.name in openmoji.paintable_names():
                x, y = item.x + rng.uniform(-1.5, 1.5), item.y + rng.uniform(-1.5, 1.5)
                found = read_color(picture, item.name, x, y, item.size * rng.uniform(0.96, 1.04))
                answers.append((found == looks_like(item.name, item.color), bool(found)))
    right, painted = np.array(answers).T
    assert right.mean() >= 0.98
    assert 10 <= painted.sum() < 0.5 * len(painted)


@pytest.mark.parametrize("color", list(openmoji.COLORS))
def test_every_colour_is_told_from_every_other(color: str) -> None:
    scene = Scene("single", (PlacedObject("t-shirt", 90, 40, 60, color),), "grey", (158, 163, 170), "")
    assert read_color(render(scene), "t-shirt", 90, 40, 60) == color == looks_like("t-shirt", color)


def test_paint_that_changes_nothing_is_no_colour() -> None:
    assert looks_like("crab", "red") == ""
    assert looks_like("crab", "blue") == "blue"
    scene = Scene("single", (PlacedObject("crab", 64, 64, 76, "red"),), "grey", (158, 163, 170), "")
    assert read_color(render(scene), "crab", 64, 64, 76) == ""


def test_what_comes_in_one_colour_is_not_asked() -> None:
    assert looks_like("pizza", "blue") == ""
    assert read_color(np.zeros((128, 128, 3), np.uint8), "pizza", 64, 64, 76) == ""


def test_a_drawing_at_the_edge_is_read_too() -> None:
    scene = Scene("single", (PlacedObject("key", 12, 120, 50, "green"),), "white", (250, 250, 248), "")
    assert read_color(render(scene), "key", 12, 120, 50) == "green"
