"""Scenes as data: round trips, refusals, and what seeds and variations make."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.assets.tabletop import language
from ornstein.core.errors import DataError, OrnsteinError
from ornstein.simulation.tabletop import (
    SKILLS,
    Block,
    Bowl,
    Cabinet,
    Look,
    Mat,
    Scene,
    Task,
    Variation,
    held_out_pairs,
    leaks,
    sample_scene,
    words,
)
from ornstein.simulation.tabletop.instructions import is_unseen
from ornstein.simulation.tabletop.success import History, is_done, is_spoiled
from ornstein.simulation.tabletop.world import TabletopWorld

FINE = Scene(
    (Block("panda", 0.62, -0.10, 0.2), Block("banana", 0.50, -0.12)),
    (Task("place_on_mat", 0, mat=0), Task("close_drawer")),
    "put the panda on number 3, then close the drawer",
    mats=(Mat("number", "3", 0.61, 0.06),),
    cabinet=Cabinet(0.43, "right", 0.05),
    look=Look(brightness=0.8, table="wood", camera_shift=(0.01, 0.0, -0.02)),
)


def _with(**changes: Any) -> Scene:
    return dataclasses.replace(FINE, **changes)


def test_a_small_json_reproduces_it_exactly() -> None:
    text = json.dumps(FINE.to_json())
    assert len(text) < 1500
    assert Scene.from_json(json.loads(text)) == FINE
    for seed in range(30):
        scene = sample_scene(seed, Variation(tasks=(1, 2), lights=True, table=True, camera=True, sizes=True))
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": (Block("panda", 0.5, 0.0), Block("banana", 0.55, 0.0))}, "inside one another"),
        ({"blocks": (Block("panda", 0.5, 0.0), Block("panda", 0.6, 0.0))}, "different names"),
        ({"blocks": (Block("panda", 0.9, 0.0),)}, "outside"),
        ({"blocks": (Block("pandda", 0.62, -0.1),)}, "panda"),
        ({"blocks": (Block("panda", 0.43, 0.02),)}, "way of the drawer"),
        ({"blocks": (Block("panda", float("nan"), 0.0),)}, "finite number"),
        ({"blocks": (Block("panda", True, 0.0),)}, "finite number"),
        ({"bowl": Bowl(0.62, 0.0)}, "too close"),
        ({"mats": (Mat("number", "12", 0.61, 0.06),)}, "one digit"),
        ({"mats": (Mat("colour", "mauve", 0.61, 0.06),)}, "colour of a mat"),
        ({"mats": (Mat("shape", "3", 0.61, 0.06),)}, "of a kind of"),
        ({"mats": ()}, "mat 0, and the scene has 0"),
        ({"tasks": ()}, "one to 5 things"),
        ({"tasks": (Task("pick", 2),)}, "block 2, and the scene has 2"),
        ({"tasks": (Task("pick", 0, 1),)}, "is about block"),
        ({"tasks": (Task("stack", 1, 1),)}, "two different blocks"),
        ({"tasks": (Task("push", 0, direction="up"),)}, "direction"),
        ({"tasks": (Task("fly", 0),)}, "skill"),
        ({"tasks": (Task("place_in_bowl", 0),)}, "needs a bowl"),
        ({"cabinet": None}, "needs a cabinet"),
        ({"cabinet": Cabinet(0.43, "right", 0.2)}, "open by 0 to"),
        ({"cabinet": Cabinet(0.43, "top")}, "left or the right"),
        ({"block_size": 0.2}, "0.05 to"),
        ({"look": Look(brightness=9)}, "brightness"),
        ({"look": Look(table="lava")}, "pattern"),
        ({"instruction": 3}, "sentence"),
    ],
)
def test_impossible_scenes_are_refused(wrong: dict[str, Any], message: str) -> None:
    FINE.check()
    with pytest.raises(OrnsteinError, match=message):
        _with(**wrong).check()


@pytest.mark.parametrize("change", [{"extra": 1}, {"blocks": None}, {"blocks": [{"name": "panda"}]}, {"look": {"haze": 1}}])
def test_what_is_no_scene_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not a tabletop scene"):
        Scene.from_json(FINE.to_json() | change)


@pytest.mark.parametrize("skill", SKILLS)
def test_sampled_scenes_are_possible_not_done_already_and_leak_nothing(skill: str) -> None:
    world, counts = TabletopWorld(), set()
    for seed in range(40):
        scene = sample_scene(seed, Variation((skill,), sizes=seed % 2 == 0))  # type: ignore[arg-type]
        scene.check()
        assert leaks(scene) == []
        assert [task.skill for task in scene.tasks] == [skill]
        counts.add(len(scene.blocks))
        world.build(scene)
        start = world.moment()
        history = History(start, np.zeros(len(scene.blocks)))
        assert not is_done(scene, scene.tasks[0], start, history)
        assert not is_spoiled(scene, scene.tasks[0], start, history)
    assert len(counts) >= 3


def test_chains_of_up_to_five() -> None:
    for count in (2, 3, 4, 5):
        for seed in range(8):
            scene = sample_scene(seed, Variation(tasks=(count, count)))
            scene.check()
            assert len(scene.tasks) == count
            movers = [task.block for task in scene.tasks if task.block is not None]
            assert len(set(movers)) == len(movers)


def test_one_axis_at_a_time() -> None:
    """The same seed in another look, from another split or in other words is the same arrangement."""
    for seed in range(20):
        plain = sample_scene(seed)
        seen = sample_scene(seed, Variation(lights=True, table=True, camera=True))
        assert dataclasses.replace(seen, look=Look()) == plain
        assert seen.look != Look()
        other = sample_scene(seed, Variation(split="web_only"))
        assert [(b.x, b.y, b.yaw) for b in other.blocks] == [(b.x, b.y, b.yaw) for b in plain.blocks]
        assert other.tasks == plain.tasks
        assert not {b.name for b in other.blocks} & {b.name for b in plain.blocks}
        reworded = sample_scene(seed, Variation(phrasing="unseen"))
        assert reworded.blocks == plain.blocks
        assert is_unseen(reworded.instruction)
        assert not is_unseen(plain.instruction)


def test_splits_are_apart_and_drawn() -> None:
    for kind in ("objects", "numbers", "colours", "symbols"):
        lists = [getattr(words(split), kind) for split in ("seen", "web_only", "held_out")]
        everything = [name for names in lists for name in names]
        assert len(set(everything)) == len(everything)
        assert all(lists)
    assert {name for split in ("seen", "web_only", "held_out") for name in words(split).objects} <= set(openmoji.names())  # type: ignore[arg-type]
    assert all(skill in SKILLS and name in words("seen").objects for skill, name in held_out_pairs())


def test_leaks_are_named() -> None:
    skill, name = sorted(held_out_pairs())[0]
    scene = _with(
        blocks=(Block(name, 0.62, -0.10), Block("T-Rex", 0.50, -0.12)),
        tasks=(Task(skill, 0) if skill == "pick" else Task("move_near", 0, 1),),  # type: ignore[arg-type]
        mats=(Mat("number", "7", 0.61, 0.06),),
        instruction=language()["skills"]["pick"]["unseen"][0].format(object=name),
    )
    found = "; ".join(leaks(scene))
    assert "'T-Rex'" in found
    assert "number '7'" in found
    assert "wording" in found
    held_out = sample_scene(3, Variation(("stack",), pairs="held_out"))
    assert "stack of" in "; ".join(leaks(held_out))


def test_variations_that_cannot_be_are_refused() -> None:
    for wrong, message in (
        ({"skills": ()}, "skills are some of"),
        ({"skills": ("fly",)}, "skills are some of"),
        ({"split": "test"}, "split"),
        ({"tasks": (2, 1)}, "tasks go from"),
        ({"blocks": (0, 9)}, "blocks go from"),
        ({"pairs": "held_out", "skills": ("pick", "open_drawer")}, "held-out pairs"),
        ({"pairs": "held_out", "skills": ("pick",), "tasks": (1, 2)}, "held-out pairs"),
    ):
        with pytest.raises(OrnsteinError, match=message):
            Variation(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="seed from 0"):
        sample_scene(-1)
    with pytest.raises(DataError, match="finds room"):
        sample_scene(0, Variation(("stack",), blocks=(1, 1)))
