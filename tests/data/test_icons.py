from __future__ import annotations

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.data.icons import icon_names, icons
from ornstein.data.scenes import BACKGROUNDS

NAMES = icon_names(62)


def test_an_icon_is_a_function_of_its_number() -> None:
    together, kinds = icons(range(12), names=NAMES, seed=3)
    for order in ([7], [11, 0, 7]):
        alone, said = icons(order, names=NAMES, seed=3)
        assert np.array_equal(alone, together[order])
        assert said == [kinds[k] for k in order]
    assert not np.array_equal(icons(range(12), names=NAMES, seed=4)[0], together)


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_what_it_shows_is_what_it_says(resolution: int) -> None:
    """The corners have the ground's colour to its jitter; the drawing is Pillow's own compositing, within a level."""
    pictures, kinds = icons(range(60), names=NAMES, resolution=resolution)
    assert pictures.shape == (60, resolution, resolution, 3)
    for picture, kind in zip(pictures, kinds, strict=True):
        assert np.abs(picture[0, 0].astype(int) - BACKGROUNDS[kind.background]).max() <= 5
    from PIL import Image

    picture, ground = pictures[0], tuple(int(v) for v in pictures[0][0, 0])
    found = False
    for side in range(round(0.75 * resolution), round(0.875 * resolution) + 1):
        stamp = Image.fromarray(openmoji.drawing(kinds[0].name, side))
        for top in range(resolution - side + 1):
            for left in range(resolution - side + 1):
                canvas = Image.new("RGB", (resolution, resolution), ground)
                canvas.paste(stamp, (left, top), stamp)
                found |= bool(np.abs(np.asarray(canvas).astype(int) - picture).max() <= 1)
    assert found


def test_all_kinds_are_as_frequent() -> None:
    _, kinds = icons(range(6000), names=NAMES[:5], resolution=16)
    counts = np.array(
        [sum(k.name == name and k.background == colour for k in kinds) for name in NAMES[:5] for colour in BACKGROUNDS]
    )
    assert counts.sum() == 6000
    assert ((counts - 100) ** 2 / 100).sum() < 59 + 4 * (2 * 59) ** 0.5  # chi-square with 59 degrees of freedom


def test_names_are_spread_over_the_vocabulary() -> None:
    apart = -(-len(openmoji.names()) // len(NAMES))
    assert all(set(members) & set(NAMES) for members in openmoji.groups().values() if len(members) >= apart)
    assert len(set(NAMES)) == 62
    assert icon_names(len(openmoji.names())) == openmoji.names()


def test_mistakes_are_named() -> None:
    for call, error, message in (
        (lambda: icon_names(0), DataError, "between 1 and"),
        (lambda: icon_names(10_000), DataError, "between 1 and"),
        (lambda: icons([0], names=[]), DataError, "0 names"),
        (lambda: icons([-1], names=NAMES), DataError, "at least 0"),
        (lambda: icons([0], names=NAMES, seed=-1), DataError, "seed -1"),
        (lambda: icons([0], names=NAMES, resolution=8), DataError, "resolution 8"),
        (lambda: icons([0], names=["no such thing"]), UnknownNameError, "no such thing"),
    ):
        with pytest.raises(error, match=message):
            call()
