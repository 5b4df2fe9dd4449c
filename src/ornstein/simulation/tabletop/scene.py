"""One arrangement of the tabletop as plain data: the same scene can be given to several policies, and a small JSON reproduces it exactly.

Places are metres of the robot's base frame (x away from it, y to the right as the front camera shows it), angles radians.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ornstein.assets import openmoji
from ornstein.assets.tabletop import DIRECTIONS
from ornstein.core.errors import DataError, unknown_name
from ornstein.simulation.tabletop.look import Look
from ornstein.simulation.tabletop.model import (
    BOWL_INNER,
    CABINET_HALF,
    DRAWER_TRAVEL,
    HANDLE_REACH,
    MAT_HALF,
    MAX_BLOCKS,
    MAX_MATS,
)

Skill = Literal["pick", "move_near", "push", "place_in_bowl", "place_on_mat", "stack", "open_drawer", "close_drawer"]
Direction = Literal["left", "right", "towards", "away"]
MatKind = Literal["number", "colour", "symbol"]
SKILLS: tuple[Skill, ...] = get_args(Skill)

# Where the centre of anything but the cabinet may lie.
AREA_LOW, AREA_HIGH = (0.395, -0.155), (0.665, 0.155)
#: Least distance of two blocks' centres: an open finger fits between.
BLOCK_CLEARANCE = 0.095
#: Half a block's diagonal and a finger's thickness: what keeps a block clear of anything else's edge.
BLOCK_REACH = 0.05
BOWL_REACH = BOWL_INNER + 0.018
CABINET_Y = 0.172
_HAND_ROOM = 0.025
BLOCK_SIZES = (0.050, 0.064)
_MOST_TASKS = 5
_NEEDS: dict[Skill, tuple[str, ...]] = {
    "pick": ("block",),
    "move_near": ("block", "reference"),
    "push": ("block", "direction"),
    "place_in_bowl": ("block",),
    "place_on_mat": ("block", "mat"),
    "stack": ("block", "reference"),
    "open_drawer": (),
    "close_drawer": (),
}


@dataclass(frozen=True)
class Block:
    """A cube with one drawing on all faces: its centre on the table and its yaw."""

    name: str
    x: float
    y: float
    yaw: float = 0.0


@dataclass(frozen=True)
class Mat:
    """A square sheet that shows a digit, is of one colour, or shows a symbol: `value` says which."""

    kind: MatKind
    value: str
    x: float
    y: float


@dataclass(frozen=True)
class Bowl:
    """Stands fast on the table."""

    x: float
    y: float


@dataclass(frozen=True)
class Cabinet:
    """With one drawer, at the picture's left or right border; it opens towards the middle. opening: how far it is open [m]."""

    x: float
    side: Literal["left", "right"] = "right"
    opening: float = 0.0

    @property
    def y(self) -> float:
        return CABINET_Y if self.side == "right" else -CABINET_Y

    def corridor(self) -> tuple[float, float, float, float]:
        """x from and to, y from and to: what cabinet, open drawer and a hand at its handle take up."""
        reach = HANDLE_REACH + DRAWER_TRAVEL + _HAND_ROOM
        inner, outer = CABINET_Y - reach, CABINET_Y + CABINET_HALF[1]
        y = (inner, outer) if self.side == "right" else (-outer, -inner)
        return self.x - CABINET_HALF[0], self.x + CABINET_HALF[0], *y


@dataclass(frozen=True)
class Task:
    """One skill and what it is about: numbers of blocks and mats of the scene, a direction.

    block: what is moved. reference: what it goes near or onto.
    """

    skill: Skill
    block: int | None = None
    reference: int | None = None
    mat: int | None = None
    direction: Direction | None = None


@dataclass(frozen=True)
class Scene:
    """What lies on the table, what is asked for, in which words, and how it all looks.

    tasks: one, or a chain of up to five, to be done in this order.
    """

    blocks: tuple[Block, ...]
    tasks: tuple[Task, ...]
    instruction: str
    mats: tuple[Mat, ...] = ()
    bowl: Bowl | None = None
    cabinet: Cabinet | None = None
    block_size: float = 0.06
    look: Look = field(default_factory=Look)

    def to_json(self) -> dict[str, Any]:
        """Plain data for results and data sets."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        """The inverse of `to_json`.

        Raises:
            DataError: keys are missing or unknown, a value has the wrong type, or the scene is impossible (see `check`).
            UnknownNameError: nobody draws such an object.
        """
        try:
            scene = cls(
                **{
                    **data,
                    "blocks": tuple(Block(**block) for block in data["blocks"]),
                    "tasks": tuple(Task(**task) for task in data["tasks"]),
                    "mats": tuple(Mat(**mat) for mat in data.get("mats", ())),
                    "bowl": None if data.get("bowl") is None else Bowl(**data["bowl"]),
                    "cabinet": None if data.get("cabinet") is None else Cabinet(**data["cabinet"]),
                    "look": Look.from_json(data["look"]) if "look" in data else Look(),
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"this is not a tabletop scene: {error}") from error
        scene.check()
        return scene

    def check(self) -> None:
        """Refuse a scene that cannot be built or asks for what is not there.

        Raises:
            DataError: a value of another type, too many things, two blocks with one name, things inside one another or out of reach,
                a task about what the scene lacks or that is done already. UnknownNameError: nobody draws such an object.
        """
        _check_types(self)
        self._check_things()
        self._check_places()
        if not 1 <= len(self.tasks) <= _MOST_TASKS:
            raise DataError(f"a scene asks for one to {_MOST_TASKS} things in turn, got {len(self.tasks)}")
        for task in self.tasks:
            self._check_task(task)

    def _check_things(self) -> None:
        names = [block.name for block in self.blocks]
        if len(names) > MAX_BLOCKS or len(set(names)) != len(names):
            raise DataError(f"a scene has up to {MAX_BLOCKS} blocks with different names, got {names}")
        for name in names:
            openmoji.code(name)
        faces = [(mat.kind, mat.value) for mat in self.mats]
        if len(faces) > MAX_MATS or len(set(faces)) != len(faces):
            raise DataError(f"a scene has up to {MAX_MATS} different mats, got {faces}")
        for mat in self.mats:
            _check_mat(mat)
        if not BLOCK_SIZES[0] <= self.block_size <= BLOCK_SIZES[1]:
            raise DataError(f"blocks are {BLOCK_SIZES[0]} to {BLOCK_SIZES[1]} m wide, got {self.block_size}")
        if self.cabinet is not None:
            if self.cabinet.side not in ("left", "right"):
                raise DataError(f"a cabinet stands on the left or the right, got {self.cabinet.side!r}")
            if not 0.0 <= self.cabinet.opening <= DRAWER_TRAVEL:
                raise DataError(f"a drawer is open by 0 to {DRAWER_TRAVEL} m, got {self.cabinet.opening}")
        self.look.check()

    def _check_places(self) -> None:
        places = self.footprints()
        for what, x, y, _ in places:
            if not (AREA_LOW[0] <= x <= AREA_HIGH[0] and AREA_LOW[1] <= y <= AREA_HIGH[1]):
                raise DataError(f"{what} at ({x:.3f}, {y:.3f}) m lies outside {AREA_LOW} … {AREA_HIGH}")
        if self.cabinet is not None and not AREA_LOW[0] <= self.cabinet.x <= AREA_HIGH[0]:
            raise DataError(f"the cabinet at x = {self.cabinet.x:.3f} m lies outside {AREA_LOW[0]} … {AREA_HIGH[0]}")
        for k, (what, x, y, reach) in enumerate(places):
            for other, other_x, other_y, other_reach in places[k + 1 :]:
                if math.hypot(x - other_x, y - other_y) < least_distance(reach, other_reach) - 1e-9:
                    raise DataError(
                        f"{what} and {other} are inside one another or too close: {least_distance(reach, other_reach):.3f} m apart at least"
                    )
            if self.cabinet is not None and distance_to(x, y, self.cabinet.corridor()) < reach - 1e-9:
                raise DataError(f"{what} stands in the way of the drawer: {reach:.3f} m from where it moves at least")

    def footprints(self) -> list[tuple[str, float, float, float]]:
        """Everything but the cabinet: what it is, x, y, and the radius that it takes up."""
        return [
            *((f"block {block.name!r}", block.x, block.y, BLOCK_REACH) for block in self.blocks),
            *((f"mat {mat.value!r}", mat.x, mat.y, MAT_HALF * math.sqrt(2)) for mat in self.mats),
            *((("the bowl", self.bowl.x, self.bowl.y, BOWL_REACH),) if self.bowl is not None else ()),
        ]

    def _check_task(self, task: Task) -> None:
        if task.skill not in SKILLS:
            raise unknown_name("skill", str(task.skill), SKILLS)
        given = {name for name in ("block", "reference", "mat", "direction") if getattr(task, name) is not None}
        if given != set(_NEEDS[task.skill]):
            raise DataError(
                f"the skill {task.skill} is about {', '.join(_NEEDS[task.skill]) or 'nothing else'}; got {sorted(given)}"
            )
        for name, things in (("block", self.blocks), ("reference", self.blocks), ("mat", self.mats)):
            number = getattr(task, name)
            if number is not None and not 0 <= number < len(things):
                raise DataError(f"the task {task.skill} is about {name} {number}, and the scene has {len(things)}")
        if task.reference is not None and task.reference == task.block:
            raise DataError(f"the task {task.skill} needs two different blocks")
        if task.direction is not None and task.direction not in DIRECTIONS:
            raise unknown_name("direction", str(task.direction), list(DIRECTIONS))
        if task.skill == "place_in_bowl" and self.bowl is None:
            raise DataError("the task place_in_bowl needs a bowl, and the scene has none")
        if task.skill in ("open_drawer", "close_drawer") and self.cabinet is None:
            raise DataError(f"the task {task.skill} needs a cabinet, and the scene has none")


def least_distance(a: float, b: float) -> float:
    """Between the centres of things that take up these radii; blocks may stand a little closer."""
    return BLOCK_CLEARANCE if a == b == BLOCK_REACH else a + b


def distance_to(x: float, y: float, box: tuple[float, float, float, float]) -> float:
    """From a point to an axis-aligned rectangle; 0 within."""
    return math.hypot(max(box[0] - x, 0.0, x - box[1]), max(box[2] - y, 0.0, y - box[3]))


def _check_mat(mat: Mat) -> None:
    match mat.kind:
        case "number":
            if mat.value not in tuple("0123456789"):
                raise DataError(f"a mat shows one digit, got {mat.value!r}")
        case "colour":
            if mat.value not in openmoji.COLORS:
                raise unknown_name("colour of a mat", mat.value, list(openmoji.COLORS))
        case "symbol":
            openmoji.code(mat.value)
        case _:
            raise DataError(f"a mat is of a kind of {get_args(MatKind)}, got {mat.kind!r}")


_NUMBERS = {
    Block: ("x", "y", "yaw"),
    Mat: ("x", "y"),
    Bowl: ("x", "y"),
    Cabinet: ("x", "opening"),
}
_TEXTS = {Block: ("name",), Mat: ("kind", "value"), Cabinet: ("side",), Task: ("skill",)}


def _check_types(scene: Scene) -> None:
    """Scenes are read from files: a text or a truth value for a number would be compared, rounded or built in silence."""
    if not isinstance(scene.instruction, str):
        raise DataError(f"a scene's instruction is a sentence, got {scene.instruction!r}")
    _require_numbers(scene, ("block_size",))
    fixtures = [thing for thing in (scene.bowl, scene.cabinet) if thing is not None]
    for thing in (*scene.blocks, *scene.mats, *fixtures, *scene.tasks):
        _require_numbers(thing, _NUMBERS.get(type(thing), ()))
        for name in _TEXTS.get(type(thing), ()):
            if not isinstance(getattr(thing, name), str):
                raise DataError(f"{name} of {thing} must be a text")
    for task in scene.tasks:
        for name in ("block", "reference", "mat"):
            if getattr(task, name) is not None and type(getattr(task, name)) is not int:
                raise DataError(f"{name} of {task} must be a whole number")


def _require_numbers(thing: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(thing, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"{name} of {type(thing).__name__.lower()} must be a finite number, got {value!r}")
