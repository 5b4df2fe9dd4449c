"""Views of the tabletop and what is where in them: by camera geometry, by colour, and by number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.data.tabletop_views import KINDS, TabletopViews, Views, thing_names
from ornstein.policies.sight import Camera
from ornstein.simulation.tabletop import Variation, sample_scene
from ornstein.simulation.tabletop.world import TabletopWorld, project


@pytest.fixture(scope="module")
def views() -> Iterator[TabletopViews]:
    views = TabletopViews(64)
    yield views
    views.close()


def test_view_i_is_a_function_of_its_number(views: TabletopViews) -> None:
    first, other = views.at([3, 4]), views.at([4])
    for a, b in zip(vars(first).values(), vars(other).values(), strict=True):
        np.testing.assert_array_equal(a[1], b[0])
    assert not np.array_equal(first.pictures[0], first.pictures[1])
    with pytest.raises(DataError, match="at least one view"):
        views.at([])


def test_places_are_where_the_camera_sees_them(views: TabletopViews) -> None:
    """Back from the picture to the table within a tenth of a millimetre: two derivations of the same geometry."""
    camera = Camera.from_json(views.camera())
    world = TabletopWorld()
    for seed in range(5):
        world.build(sample_scene(seed))
        for point in world.moment().positions:
            seen = project(world, "front", point)
            np.testing.assert_allclose(camera.on_plane(seen.astype(np.float64), float(point[2])), point[:2], atol=1e-4)


def test_things_are_named_and_inside(views: TabletopViews) -> None:
    seen: Views = views.at(range(40))
    names = thing_names()
    assert len(set(names)) == len(names) == 62
    assert set(seen.kind[seen.present].tolist()) == set(range(len(KINDS)))
    assert float(np.abs(seen.place[seen.present]).max()) < 1.02
    objects = seen.name[seen.present & (seen.kind == 0)]
    assert objects.max() < 48
    assert seen.name[seen.present & (seen.kind == 1)].min() >= 48
    # A mat of one colour is of that colour where it is said to be.
    for k, m in zip(*np.nonzero(seen.present & (seen.kind == 1)), strict=True):
        if names[seen.name[k, m]].startswith("colour "):
            column, row = ((seen.place[k, m] + 1) / 2 * 64).astype(int)
            color = seen.pictures[k, row, column].astype(float)
            assert color.max() - color.min() > 60


def test_variations_change_the_look_and_not_the_places() -> None:
    plain, varied = TabletopViews(48, seed=3), TabletopViews(48, seed=3, variation=Variation(lights=True, table=True))
    a, b = plain.at(range(4)), varied.at(range(4))
    np.testing.assert_array_equal(a.place, b.place)
    assert all(not np.array_equal(x, y) for x, y in zip(a.pictures, b.pictures, strict=True))
    plain.close()
    varied.close()


def test_a_damaged_calibration_is_refused() -> None:
    for wrong in ({}, {"position": [0, 0], "axes": np.eye(3).tolist(), "field_of_view": 0.3}, {"position": "far"}):
        with pytest.raises(DataError, match="camera"):
            Camera.from_json(wrong)
