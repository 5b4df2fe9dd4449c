"""Scenes by seed: what is on the table, where, what is asked for, in which words, in which look.

Layout, names, wording and look come from four streams of one seed: the same seed in another look, from another split or in other words is the
same arrangement, so that policies can be compared in pairs along one axis.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from ornstein.assets.tabletop import DIRECTIONS
from ornstein.core.errors import DataError, unknown_name
from ornstein.simulation.tabletop.instructions import Phrasing, instruct
from ornstein.simulation.tabletop.look import sample_look
from ornstein.simulation.tabletop.meanings import Meaning, meant
from ornstein.simulation.tabletop.model import BOWL_INNER, DRAWER_TRAVEL, MAT_HALF, MAX_BLOCKS
from ornstein.simulation.tabletop.scene import (
    AREA_HIGH,
    AREA_LOW,
    BLOCK_REACH,
    BLOCK_SIZES,
    BOWL_REACH,
    SKILLS,
    Block,
    Bowl,
    Cabinet,
    Direction,
    Mat,
    MatKind,
    Scene,
    Skill,
    Task,
    distance_to,
    least_distance,
)
from ornstein.simulation.tabletop.splits import SPLITS, Split, held_out_pairs, words
from ornstein.simulation.tabletop.success import NEAR_GAP, PUSH_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_YAW = 0.5
_CHAINS, _LAYOUTS, _LAYOUTS_IN_ALL, _DARTS = 20_000, 150, 60_000, 60
_STRAY_FIXTURE = 0.15
#: How many blocks fit beside what else stands there: (bowl, mats, cabinet).
_ROOM = {
    (False, False, False): 5,
    (True, False, False): 4,
    (False, True, False): 3,
    (False, False, True): 3,
    (True, True, False): 2,
    (True, False, True): 2,
    (False, True, True): 2,
}
_ROOM_OF_MATS = {(False, False): 3, (True, False): 2, (False, True): 2}
_MAT_KINDS: tuple[MatKind, ...] = ("number", "colour", "symbol")
_CABINET_X = (0.42, 0.47)
#: A push needs so much free way, and a closed gripper so much room behind the block.
_PUSH_WAY, _PUSH_ROOM, _PUSH_START = PUSH_DISTANCE + 0.035, 0.078, 0.075


@dataclass(frozen=True)
class Variation:
    """What scenes vary in; the defaults are what training sees.

    skills: what is asked for is one of these. tasks: how many things are asked for in turn, from and to. blocks: how many there are, from
    and to, as far as there is room and the tasks need them. split: whose objects, numbers, colours and symbols. pairs: tasks with a
    skill and an object that robot data combine ("seen"), or never do ("held_out"). phrasing: which wordings. meaning: what tells which thing is
    meant, see `meanings.meant`. lights, table, camera, sizes: vary the look, and how large the blocks are.
    """

    skills: tuple[Skill, ...] = SKILLS
    tasks: tuple[int, int] = (1, 1)
    blocks: tuple[int, int] = (1, MAX_BLOCKS)
    split: Split = "seen"
    pairs: Literal["seen", "held_out"] = "seen"
    phrasing: Phrasing = "seen"
    meaning: Meaning = "name"
    lights: bool = False
    table: bool = False
    camera: bool = False
    sizes: bool = False

    def __post_init__(self) -> None:
        if not self.skills or set(self.skills) - set(SKILLS):
            raise DataError(f"skills are some of {', '.join(SKILLS)}; got {self.skills}")
        if self.split not in SPLITS:
            raise unknown_name("split", self.split, SPLITS)
        for name, (low, high), most in (("tasks", self.tasks, 5), ("blocks", self.blocks, MAX_BLOCKS)):
            if not 1 <= low <= high <= most:
                raise DataError(f"{name} go from 1 to {most}, got {(low, high)}")
        with_pairs = {skill for skill, _ in held_out_pairs()}
        if self.pairs == "held_out" and (self.split != "seen" or set(self.skills) - with_pairs or self.tasks != (1, 1)):
            raise DataError("held-out pairs are of seen objects and of single tasks that move a block")
        if self.meaning not in get_args(Meaning):
            raise unknown_name("meaning", self.meaning, get_args(Meaning))
        if self.meaning != "name" and (self.split, self.pairs) != ("seen", "seen"):
            raise DataError(f"the meaning {self.meaning!r} chooses objects by itself: leave split and pairs as they are")


class _Plan(NamedTuple):
    """What a scene has, before anything has a place or a name."""

    tasks: tuple[Task, ...]
    blocks: int
    mats: int
    bowl: bool
    cabinet: float | None
    side: Literal["left", "right"]


def sample_scene(seed: int, variation: Variation = Variation()) -> Scene:
    """The scene of that seed.

    Raises:
        DataError: a negative seed, or nothing that the variation asks for finds room.
    """
    if seed < 0:
        raise DataError(f"a scene needs a seed from 0 on, got {seed}")
    layout, naming, wording, looking = (np.random.default_rng([seed, stream]) for stream in (7, 8, 9, 10))
    scene = _laid_out(layout, variation)
    blocks, mats = _named(scene, naming, variation)
    blocks, mats, spoken = meant(dataclasses.replace(scene, blocks=blocks, mats=mats), naming, variation.meaning)
    look = sample_look(looking, lights=variation.lights, table=variation.table, camera=variation.camera)
    size = float(looking.uniform(*BLOCK_SIZES)) if variation.sizes else scene.block_size
    sentence = instruct(scene.tasks, blocks, mats, wording, variation.phrasing, spoken)
    return dataclasses.replace(scene, blocks=blocks, mats=mats, instruction=sentence, look=look, block_size=size)


def _laid_out(rng: np.random.Generator, variation: Variation) -> Scene:
    """A scene without names. What is asked for is drawn first and kept while places are tried, so that no skill is rarer for being bulkier."""
    left = _LAYOUTS_IN_ALL
    for _ in range(_CHAINS):
        skills = _skills(rng, variation)
        for _ in range(min(_LAYOUTS, left) if skills else 0):
            left -= 1
            plan = _plan(rng, skills or [], variation)
            scene = None if plan is None else _placed(plan, rng)
            if scene is not None:
                return scene
    raise DataError(f"no scene with {variation.tasks} tasks of {variation.skills} and {variation.blocks} blocks finds room")


def _plan(rng: np.random.Generator, skills: Sequence[Skill], variation: Variation) -> _Plan | None:
    stray = rng.random(3) < _STRAY_FIXTURE
    wanted = ("place_in_bowl" in skills, "place_on_mat" in skills, bool({"open_drawer", "close_drawer"} & set(skills)))
    alone = not any(wanted)
    bowl, with_mats, cabinet = (want or (alone and bool(s)) for want, s in zip(wanted, stray, strict=True))
    if alone and bowl + with_mats + cabinet > 1:
        return None
    movers = sum(skill not in ("open_drawer", "close_drawer") for skill in skills)
    needed = movers + any(skill in ("move_near", "stack") for skill in skills)
    room = _ROOM.get((bowl, with_mats, cabinet), 1)
    low, high = max(needed, variation.blocks[0]), min(room, variation.blocks[1])
    if needed > min(room, variation.blocks[1]):
        return None
    count = int(rng.integers(min(low, high), high + 1))
    mats = int(rng.integers(1 + (not cabinet and not bowl), _ROOM_OF_MATS.get((bowl, cabinet), 1) + 1)) if with_mats else 0
    tasks = _tasks(skills, movers, mats, rng)
    first = next((task.skill for task in tasks if task.skill in ("open_drawer", "close_drawer")), None)
    opening = None
    if cabinet:
        is_open = first == "close_drawer" if first is not None else bool(rng.random() < 0.5)
        opening = float(DRAWER_TRAVEL * (rng.uniform(0.7, 1.0) if is_open else rng.uniform(0.0, 0.1)))
        opening = 0.0 if first == "open_drawer" and opening < 0.003 else opening
    side: Literal["left", "right"] = "right" if rng.random() < 0.5 else "left"
    return _Plan(tasks, count, mats, bowl, opening, side)


def _skills(rng: np.random.Generator, variation: Variation) -> list[Skill] | None:
    """One skill, or a chain in which no task needs what another undid: the drawer opens and closes in turns, all else but a mat is asked
    for once, and what would be in the way afterwards comes last: a block in the air, a tower.
    """
    count = int(rng.integers(variation.tasks[0], variation.tasks[1] + 1))
    drawn = [variation.skills[int(k)] for k in rng.integers(len(variation.skills), size=count)]
    once: tuple[Skill, ...] = ("place_in_bowl", "push", "move_near")
    if any(drawn.count(skill) > 1 for skill in once) or {"pick", "stack"} & set(drawn[:-1]):
        return None
    drawer = [skill for skill in drawn if skill in ("open_drawer", "close_drawer")]
    return None if any(a == b for a, b in zip(drawer, drawer[1:], strict=False)) else drawn


def _tasks(skills: Sequence[Skill], movers: int, mats: int, rng: np.random.Generator) -> tuple[Task, ...]:
    """Each moves a block of its own; the block after these is what others go near or onto."""
    tasks, block, mat = [], 0, 0
    for skill in skills:
        match skill:
            case "open_drawer" | "close_drawer":
                tasks.append(Task(skill))
                continue
            case "push":
                direction: Direction = get_args(Direction)[int(rng.integers(len(DIRECTIONS)))]
                tasks.append(Task(skill, block, direction=direction))
            case "move_near" | "stack":
                tasks.append(Task(skill, block, movers))
            case "place_on_mat":
                tasks.append(Task(skill, block, mat=mat % max(mats, 1)))
                mat += 1
            case _:
                tasks.append(Task(skill, block))
        block += 1
    return tuple(tasks)


def _placed(plan: _Plan, rng: np.random.Generator) -> Scene | None:
    """Everything at a place of its own, one after the other from the largest; None where something finds no room or a task is moot."""
    if sum(task.skill == "place_on_mat" for task in plan.tasks) > plan.mats:
        return None
    cabinet = None if plan.cabinet is None else Cabinet(float(rng.uniform(*_CABINET_X)), plan.side, plan.cabinet)
    taken: list[tuple[float, float, float]] = []

    def place(reach: float) -> tuple[float, float] | None:
        for x, y in rng.uniform(AREA_LOW, AREA_HIGH, (_DARTS, 2)):
            clear = all(math.hypot(x - a, y - b) >= least_distance(reach, r) for a, b, r in taken)
            if clear and (cabinet is None or distance_to(x, y, cabinet.corridor()) >= reach):
                taken.append((float(x), float(y), reach))
                return float(x), float(y)
        return None

    reaches = [BOWL_REACH] * plan.bowl + [MAT_HALF * math.sqrt(2)] * plan.mats + [BLOCK_REACH] * plan.blocks
    for reach in reaches:
        if place(reach) is None:
            return None
    places = [(x, y) for x, y, _ in taken]
    bowl = Bowl(*places.pop(0)) if plan.bowl else None
    mats = tuple(Mat("number", str(k), x, y) for k, (x, y) in enumerate(places[: plan.mats]))
    yaws = rng.uniform(-_MAX_YAW, _MAX_YAW, plan.blocks)
    blocks = tuple(Block(f"{k}", x, y, float(yaw)) for k, ((x, y), yaw) in enumerate(zip(places[plan.mats :], yaws, strict=True)))
    scene = Scene(blocks, plan.tasks, "", mats, bowl, cabinet)
    return scene if all(_is_worth_doing(scene, task) for task in plan.tasks) else None


def _is_worth_doing(scene: Scene, task: Task) -> bool:
    """Not done already, and possible without pushing other things about."""
    if task.block is None:
        return True
    block = scene.blocks[task.block]
    others = [other for k, other in enumerate(scene.blocks) if k != task.block]
    if task.skill == "move_near" and task.reference is not None:
        reference = scene.blocks[task.reference]
        return math.hypot(block.x - reference.x, block.y - reference.y) >= scene.block_size + NEAR_GAP + 0.04
    if task.skill == "push" and task.direction is not None:
        dx, dy = DIRECTIONS[task.direction]
        end = (block.x + _PUSH_WAY * dx, block.y + _PUSH_WAY * dy)
        behind = (block.x - _PUSH_START * dx, block.y - _PUSH_START * dy)
        inside = all(
            AREA_LOW[k] - 0.02 <= end[k] <= AREA_HIGH[k] + 0.02 and AREA_LOW[k] - 0.06 <= behind[k] <= AREA_HIGH[k] + 0.03
            for k in (0, 1)
        )
        way = [(block.x + t * dx, block.y + t * dy) for t in np.linspace(-_PUSH_START, _PUSH_WAY, 8)]
        free = all(math.hypot(x - other.x, y - other.y) >= _PUSH_ROOM for x, y in way for other in others)
        if scene.bowl is not None:
            free &= all(math.hypot(x - scene.bowl.x, y - scene.bowl.y) >= BOWL_INNER + 0.05 for x, y in way)
        if scene.cabinet is not None:
            free &= all(distance_to(x, y, scene.cabinet.corridor()) >= 0.05 for x, y in way)
        return inside and free
    return True


def _named(scene: Scene, rng: np.random.Generator, variation: Variation) -> tuple[tuple[Block, ...], tuple[Mat, ...]]:
    """Which drawing each block shows and what each mat does: all different."""
    chosen = words(variation.split)
    kinds: list[tuple[MatKind, str]] = [(kind, value) for kind in _MAT_KINDS for value in chosen.of_mats()[kind]]
    weights = np.array([1 / len(chosen.of_mats()[kind]) for kind, _ in kinds])
    drawn = rng.choice(len(kinds), len(scene.mats), replace=False, p=weights / weights.sum())
    mats = tuple(
        dataclasses.replace(mat, kind=kinds[int(k)][0], value=kinds[int(k)][1]) for mat, k in zip(scene.mats, drawn, strict=True)
    )
    while True:
        names = [str(name) for name in rng.choice(chosen.objects, len(scene.blocks), replace=False)]
        pairs = {(task.skill, names[task.block]) for task in scene.tasks if task.block is not None}
        fitting = pairs <= held_out_pairs() if variation.pairs == "held_out" else not pairs & held_out_pairs()
        if fitting:
            return tuple(dataclasses.replace(block, name=name) for block, name in zip(scene.blocks, names, strict=True)), mats
