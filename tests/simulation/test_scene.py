from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.simulation import HELD_OUT_PHRASINGS, SEEN_OBJECTS, TRAIN_PHRASINGS, PlacedBlock, Scene, sample_scene
from ornstein.simulation.scene import CLEARANCE, PLACEMENT_HIGH, PLACEMENT_LOW


def test_objects_are_drawn_and_wordings_are_kept_apart() -> None:
    assert len(SEEN_OBJECTS) >= 24
    assert set(SEEN_OBJECTS) <= set(openmoji.names())
    assert not set(TRAIN_PHRASINGS) & set(HELD_OUT_PHRASINGS)
    assert all("{name}" in phrase for phrase in TRAIN_PHRASINGS + HELD_OUT_PHRASINGS)


def test_scenes_are_possible_and_a_function_of_their_seed() -> None:
    for seed in range(300):
        scene = sample_scene(seed)
        scene.check()
        assert scene == sample_scene(seed)
        assert 3 <= len(scene.blocks) <= 5
        assert scene.blocks[scene.target].name in scene.instruction


def test_targets_and_counts_are_uniform() -> None:
    scenes = [sample_scene(seed) for seed in range(3000)]
    counts = np.bincount([len(s.blocks) for s in scenes])[3:6]
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)
    for n in (3, 4, 5):
        targets = np.bincount([s.target for s in scenes if len(s.blocks) == n], minlength=n)
        assert np.abs(targets - targets.mean()).max() < 4 * np.sqrt(targets.mean())


def test_json_round_trip() -> None:
    scene = sample_scene(5)
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, blocks=()), "one to 5 blocks"),
        (lambda s: replace(s, target=9), "target"),
        (lambda s: replace(s, blocks=(s.blocks[0], s.blocks[0])), "different names"),
        (
            lambda s: replace(
                s, target=0, blocks=(PlacedBlock("key", 0.5, 0.0, 0.0), PlacedBlock("star", 0.5, CLEARANCE / 2, 0.0))
            ),
            "closer than",
        ),
        (
            lambda s: replace(s, target=0, blocks=(PlacedBlock("key", PLACEMENT_HIGH[0] + 0.1, PLACEMENT_LOW[1], 0.0),)),
            "lies outside",
        ),
    ],
)
def test_impossible_scenes_are_refused(change: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        change(sample_scene(0)).check()  # type: ignore[operator]


def test_foreign_json_is_refused() -> None:
    with pytest.raises(DataError, match="not a tabletop scene"):
        Scene.from_json({"blocks": [{"name": "key"}]})


@pytest.mark.parametrize(
    "damage",
    [
        {"target": 1.7},
        {"target": True},
        {"target": "1"},
        {"instruction": None},
        {"extra": 1},
        {"blocks": [{"name": "key", "x": "0.5", "y": 0.0, "yaw": 0.0}]},
        {"blocks": [{"name": "key", "x": 0.5, "y": 0.0, "yaw": 0.0, "z": 0.0}]},
        {"blocks": [{"name": 5, "x": 0.5, "y": 0.0, "yaw": 0.0}]},
        {"blocks": [{"name": "key", "x": 0.5, "y": 0.0, "yaw": float("nan")}], "target": 0},
        {"blocks": [{"name": "key", "x": float("nan"), "y": 0.0, "yaw": 0.0}], "target": 0},
    ],
)
def test_damaged_json_is_refused_and_never_rounded(damage: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Scene.from_json({**sample_scene(0).to_json(), **damage})


def test_an_object_that_nobody_draws_is_refused_with_the_nearest_names() -> None:
    scene = sample_scene(0)
    with pytest.raises(UnknownNameError, match="red apple"):
        replace(scene, blocks=(replace(scene.blocks[0], name="red aple"), *scene.blocks[1:])).check()


def test_few_objects_make_small_scenes_and_too_few_are_refused() -> None:
    sizes = {len(sample_scene(seed, objects=("key", "star", "bomb", "crab")).blocks) for seed in range(40)}
    assert sizes == {3, 4}
    for settings in ({"objects": ("key", "star")}, {"phrasings": ()}):
        with pytest.raises(DataError, match="3 different objects"):
            sample_scene(0, **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="seed -1"):
        sample_scene(-1)


def test_scenes_stay_what_they_were() -> None:
    """Committed data and published figures name scenes by seed: a change here is a change of all of them."""
    scene = sample_scene(1_000_000)
    assert (scene.instruction, scene.target, len(scene.blocks)) == ("pick up the tiger face", 4, 5)
    assert scene.blocks[0].x == pytest.approx(0.5105937531257123, abs=1e-12)
