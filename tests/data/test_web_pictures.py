"""Things lie where the plain data say, and nothing is shown that is kept from all data."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core.errors import DataError
from ornstein.data.web_pictures import (
    MOST_ITEMS,
    WebItem,
    WebPicture,
    _homography,
    lay_out,
    random_item,
    render,
    web_colours,
    web_names,
    web_numbers,
)
from ornstein.simulation.tabletop.splits import words


def _clean(*items: WebItem) -> WebPicture:
    return WebPicture(items, "plain", (0.3, 0.5, 0.4), 0)


@pytest.mark.parametrize("kind", ["number", "colour"])
@pytest.mark.parametrize(("turn", "tilt"), [(0.0, 0.0), (0.4, 0.0), (-0.3, 0.5)])
def test_a_card_is_centred_at_its_place(kind: str, turn: float, tilt: float) -> None:
    """Where the picture differs from the empty ground: around its place, and as large as the item says."""
    item = WebItem(kind, "4" if kind == "number" else "blue", 0.3, -0.2, 0.3, turn, tilt, card=True)  # type: ignore[arg-type]
    changed = (render(_clean(item)).astype(int) != render(_clean()).astype(int)).any(-1)
    rows, columns = np.nonzero(changed)
    assert abs(columns.mean() - (1 + 0.3) / 2 * 128) < 1.5 + 3 * tilt
    assert abs(rows.mean() - (1 - 0.2) / 2 * 128) < 1.5 + 3 * tilt
    side = 0.3 * 128
    assert changed.sum() == pytest.approx(side**2 * (1 - tilt), rel=0.12)


def test_a_drawing_is_neither_mirrored_nor_turned() -> None:
    """Facing the camera it is the drawing itself; turned by a quarter, the drawing turned by a quarter to the right."""
    stamp = openmoji.drawing("key", 64).astype(float)
    item = WebItem("drawing", "key", 0.0, 0.0, 0.5)
    ground = render(_clean()).astype(float)
    for turn, quarters in ((0.0, 0), (math.pi / 2, -1)):
        laid = np.rot90(stamp, quarters)
        expected = ground.copy()
        alpha = laid[..., 3:] / 255
        expected[32:96, 32:96] = expected[32:96, 32:96] * (1 - alpha) + laid[..., :3] * alpha
        found = render(_clean(replace(item, turn=turn))).astype(float)
        assert np.abs(found - expected).mean() < 3
        assert np.abs(np.flip(found, 1) - expected).mean() > 9  # the check sees a mirror


def test_a_larger_picture_shows_the_same() -> None:
    picture = lay_out(
        [random_item(np.random.default_rng(k), "drawing", name) for k, name in enumerate(("lion", "car"))],
        np.random.default_rng(3),
    )
    picture = replace(picture, noise=0.0, pattern="plain")
    small, large = render(picture), render(picture, 256)
    shrunk = large.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 4


def test_the_projection_takes_four_points_to_four_points() -> None:
    origin, image = np.array([[0.0, 0], [9, 1], [8, 7], [1, 6]]), np.array([[0.0, 0], [4, 0], [4, 4], [0, 4]])
    a, b, c, d, e, f, g, h = _homography(origin, image)
    for (x, y), (u, v) in zip(origin, image, strict=True):
        scale = g * x + h * y + 1
        assert ((a * x + b * y + c) / scale, (d * x + e * y + f) / scale) == pytest.approx((u, v), abs=1e-9)


def test_things_lie_apart_and_within() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        items = [random_item(rng, "drawing", "lion") for _ in range(1 + seed % MOST_ITEMS)]
        placed = lay_out(items, rng).items
        assert len(placed) == len(items)
        for k, item in enumerate(placed):
            assert max(abs(item.x), abs(item.y)) + item.size <= 1 + 1e-9
            for other in placed[:k]:
                assert math.hypot(item.x - other.x, item.y - other.y) > item.size + other.size
    with pytest.raises(DataError, match="1 to 6 things, got 7"):
        lay_out([random_item(np.random.default_rng(0), "number", "1")] * 7, np.random.default_rng(0))


def test_they_show_robot_data_and_more_but_nothing_that_is_kept_from_all() -> None:
    for split in ("seen", "web_only"):
        shown = words(split)
        assert set(shown.objects) <= set(web_names())
        assert set(shown.symbols) <= set(web_names())
        assert set(shown.numbers) <= set(web_numbers())
        assert set(shown.colours) <= set(web_colours())
    kept = words("held_out")
    for word in (*kept.objects, *kept.symbols, *kept.colours):
        assert not [name for name in web_names() if re.search(rf"\b{re.escape(word)}\b", name)]
    assert not set(kept.numbers) & set(web_numbers())
    assert not set(kept.colours) & set(web_colours())
