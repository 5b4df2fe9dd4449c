from __future__ import annotations

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core.errors import DataError, UnknownNameError


def test_vocabulary_is_large_enough_and_has_no_doubles() -> None:
    names = openmoji.names()
    assert len(names) >= 300
    assert len(set(names)) == len(names)
    codes = [openmoji.code(name) for name in names]
    assert len(set(codes)) == len(codes)


def test_every_drawing_fills_its_square_and_no_two_are_alike() -> None:
    small = np.stack([openmoji.drawing(name, 32) for name in openmoji.names()]).astype(np.float64)
    ink = small[..., 3] > 0
    # The longer side touches both borders, whichever it is.
    wide = ink.any(1)[:, [0, -1]].all(1)
    tall = ink.any(2)[:, [0, -1]].all(1)
    assert (wide | tall).all()
    on_grey = small[..., :3] * small[..., 3:] / 255 + 128.0 * (1 - small[..., 3:] / 255)
    flat = on_grey.reshape(len(small), -1)
    squared = (flat**2).sum(1)
    distance = (squared[:, None] + squared[None] - 2 * flat @ flat.T) / flat.shape[1]
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 50.0, openmoji.names()[distance.min(0).argmin()]


def test_reduction_keeps_colours_of_transparent_edges() -> None:
    """Straight alpha after a premultiplied reduction: an edge pixel has the ink's colour, not a mix with black or white."""
    heart = openmoji.drawing("yellow heart", 40).astype(int)
    assert heart.shape == (40, 40, 4)
    center = heart[18, 20]
    assert center[3] == 255
    assert center[0] > 200
    assert center[2] < 120


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="red apple"):
        openmoji.drawing("red aple", 32)
    with pytest.raises(DataError, match="at least 4"):
        openmoji.drawing("red apple", 1)


def test_everything_else_goes_by_unicodes_names() -> None:
    everything = openmoji.every_name()
    assert everything[: len(openmoji.names())] == openmoji.names()
    assert len(everything) == len(set(everything)) > 1600
    assert "yawning face" in everything
    assert not any("skin tone" in name for name in everything)
    assert not any(openmoji.code(name).startswith("1F1") for name in everything)
    # A drawing has one name: what the vocabulary renames does not come again.
    codes = [openmoji.code(name) for name in everything]
    assert len(set(codes)) == len(codes)
    assert openmoji.drawing("yawning face", 32)[..., 3].any()
