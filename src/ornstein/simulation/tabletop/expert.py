"""Scripted experts for all eight skills, from privileged state.

They have no memory: what they do follows from where tool, blocks and drawer are and what the fingers touch, as a policy that sees the picture
could tell too. A miss, a slip or a push is therefore answered like any other state: let go, rise, try again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.assets.tabletop import DIRECTIONS
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop.environment import MAX_ROTATION, MAX_TRANSLATION
from ornstein.simulation.tabletop.model import BOWL_HEIGHT, BOWL_INNER, DRAWER_TRAVEL, HANDLE_TOP
from ornstein.simulation.tabletop.placing import free_place
from ornstein.simulation.tabletop.success import LIFT_HEIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.environment import TabletopEnv
    from ornstein.simulation.tabletop.scene import Task

_GRASP = 0.022
_ALIGNED, _ON_TARGET, _YAW_ALIGNED = 0.012, 0.006, 0.12
_DESCENT_CONE = 0.35
_OPEN, _CLOSED = 0.0, 1.0
_OPENED = 0.08
_HANDLE_Z, _PUSH_Z = 0.070, 0.022
_MOST_TURN = 1.30
_PUSH_SPEED, _PUSH_ROOM = 0.009, 0.011


@dataclass(frozen=True)
class Style:
    """How one person would do it.

    hover: height above the grasp at which the tool comes along [m]. speed: share of the fastest. bend: by how much the way curves [rad].
    grip: where along the block's side it is taken [m].
    """

    hover: float = 0.085
    speed: float = 1.0
    bend: float = 0.0
    grip: float = 0.0


def sample_style(rng: np.random.Generator) -> Style:
    """A manner drawn at random."""
    return Style(
        hover=float(rng.uniform(0.07, 0.12)),
        speed=float(rng.uniform(0.65, 1.0)),
        bend=float(rng.uniform(-0.35, 0.35)),
        grip=float(rng.uniform(-0.006, 0.006)),
    )


class Expert:
    """Actions for the current task of an environment's scene."""

    def __init__(self, style: Style | None = None) -> None:
        self.style = Style() if style is None else style

    def act(self, env: TabletopEnv) -> NDArray[np.float32]:
        """The next action, within bounds, float32 (7,).

        Raises:
            DataError: `reset` was not called.
        """
        if env.scene is None:
            raise DataError("call reset before asking the expert")
        hand = _Hand(env, self.style)
        task = env.progress.task
        match task.skill:
            case "open_drawer" | "close_drawer":
                wanted = _drawer(hand, opening=task.skill == "open_drawer")
            case "push":
                wanted = _push(hand, task)
            case "pick":
                wanted = _grasp(hand, _block(task)) or hand.to(hand.tool[:2], max(hand.tool[2], LIFT_HEIGHT + 0.06), _CLOSED)
            case _:
                wanted = _place(hand, _block(task), _goal(hand, task))
        return wanted.bounded(self.style)


def _block(task: Task) -> int:
    assert task.block is not None  # a scene's check says so
    return task.block


class _Move(NamedTuple):
    """A wish: where to, relative to where the tool is, how far to turn, and the gripper's command."""

    by: NDArray[np.float64]
    turn: float
    gripper: float

    def bounded(self, style: Style) -> NDArray[np.float32]:
        """Within bounds: the horizontal part is shortened as a whole, so that the path over the table keeps its line."""
        move = np.array(self.by)
        fastest = MAX_TRANSLATION * style.speed
        away = math.hypot(move[0], move[1])
        if away > 0.06:
            c, s = math.cos(style.bend), math.sin(style.bend)
            move[:2] = c * move[0] - s * move[1], s * move[0] + c * move[1]
        longest = float(np.abs(move[:2]).max())
        if longest > fastest:
            move[:2] *= fastest / longest
        move[2] = np.clip(move[2], -fastest, fastest)
        return np.array([*move, 0.0, 0.0, np.clip(self.turn, -MAX_ROTATION, MAX_ROTATION), self.gripper], dtype=np.float32)


class _Goal(NamedTuple):
    """Where a block is to be let go: its centre's x, y; its lower side's height."""

    x: float
    y: float
    z: float


class _Hand:
    """The state as the skills below speak of it."""

    def __init__(self, env: TabletopEnv, style: Style) -> None:
        assert env.scene is not None
        self.env, self.style, self.scene, self.world = env, style, env.scene, env.world
        self.now = env.world.moment()
        self.tool = env.target_position
        self.yaw = float(np.arctan2(env.target_rotation[1, 0], env.target_rotation[0, 0]))
        self.size = env.scene.block_size
        travel = env.world.arm.gripper.travel
        #: How far the gripper is closed on a block, just off it, and a little wider.
        self.on_block = 1 - self.size / 2 / travel
        self.off_block, self.near_block = (max(self.on_block - room / travel, 0.0) for room in (0.009, 0.012))

    def to(self, place: NDArray[np.float64], z: float, gripper: float, turn: float = 0.0) -> _Move:
        return _Move(np.array([place[0] - self.tool[0], place[1] - self.tool[1], z - self.tool[2]]), turn, gripper)

    def rise(self, gripper: float) -> _Move:
        return _Move(np.array([0.0, 0.0, MAX_TRANSLATION]), 0.0, gripper)

    def holds(self, block: int) -> bool:
        touching = self.now.fingers[block] == {"left", "right"}
        return touching and self.on_block - 0.15 < self.now.closing < self.on_block + 0.15

    def tips(self, place: NDArray[np.float64], heading: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the open fingers are around a place."""
        across = (self.world.arm.gripper.travel + 0.006) * np.array([-math.sin(heading), math.cos(heading)])
        return place + across, place - across

    def gap(self, point: NDArray[np.float64], block: int) -> float:
        """From a finger at that point to whatever stands in its way, the block itself apart [m]; below zero inside of it."""
        gaps = [
            float(np.hypot(*(point - self.now.positions[k][:2]))) - 0.85 * self.size
            for k in range(len(self.scene.blocks))
            if k != block
        ]
        bowl = self.scene.bowl
        if bowl is not None:
            gaps.append(math.hypot(point[0] - bowl.x, point[1] - bowl.y) - BOWL_INNER - 0.022)
        return min(gaps, default=1.0)

    def carry_height(self, block: int) -> float:
        """At which a held block clears all others."""
        others = [float(self.now.positions[k][2]) + self.size / 2 for k in range(len(self.scene.blocks)) if k != block]
        return _GRASP + max([*others, HANDLE_TOP if self.scene.cabinet is not None else BOWL_HEIGHT]) + 0.03


def _grasp(hand: _Hand, block: int) -> _Move | None:
    """Towards holding that block; None where it is held."""
    if hand.holds(block):
        return None
    position = hand.now.positions[block]
    heading = _grasp_heading(hand, block)
    turn = heading - hand.yaw
    # The fingers close along the tool's y axis: along the other one the block may be taken off its middle.
    place = position[:2] + hand.style.grip * np.array([math.cos(heading), math.sin(heading)])
    grasp_z = _GRASP + max(float(position[2]) - hand.size / 2, 0.0)
    # Where something stands close by, the fingers open no further than they must.
    opened = _OPEN if min(hand.gap(tip, block) for tip in hand.tips(position[:2], heading)) > 0.0 else hand.near_block
    distance = float(np.hypot(*(place - hand.tool[:2])))
    at_grasp = distance < _ALIGNED and abs(hand.tool[2] - grasp_z) < 0.012
    closing = hand.now.closing
    if at_grasp and closing < hand.on_block + 0.2:
        if closing > opened + _OPENED or distance < _ON_TARGET:
            return hand.to(hand.tool[:2], hand.tool[2], _CLOSED)
        return hand.to(place, grasp_z, opened, turn)
    if closing > opened + _OPENED:  # closed beside the block: let go before moving
        return hand.rise(opened)
    if distance > _ALIGNED + _DESCENT_CONE * max(hand.tool[2] - grasp_z, 0.0) or abs(turn) > 2 * _YAW_ALIGNED:
        hover = max(grasp_z + hand.style.hover, hand.size + 0.03)
        if hand.tool[2] < hover - 0.03 and distance > 2 * _ALIGNED:  # rise before crossing over other blocks
            return hand.rise(opened)
        return hand.to(place, hover, opened, turn)
    return hand.to(place, grasp_z, opened, turn)


def _grasp_heading(hand: _Hand, block: int) -> float:
    """Of the block's two, the one nearer to home unless something stands in the fingers' way."""
    yaw, position = hand.world.block_yaw(block), hand.now.positions[block][:2]
    best, least = 0.0, math.inf
    for heading in (_quarter_turn(yaw), _quarter_turn(yaw) - math.pi / 2, _quarter_turn(yaw) + math.pi / 2):
        if abs(heading) > _MOST_TURN:
            continue
        tightest = min(hand.gap(tip, block) for tip in hand.tips(position, heading))
        cost = abs(heading) + 500 * max(-tightest, 0.0)
        if cost < least:
            best, least = heading, cost
    return best


def _place(hand: _Hand, block: int, goal: _Goal) -> _Move:
    """Take the block there and let go."""
    position = hand.now.positions[block]
    offset = np.array([goal.x, goal.y]) - position[:2]
    distance = float(np.hypot(*offset))
    low = float(position[2]) - hand.size / 2
    if distance < 0.02 and low < goal.z + 0.006 and not hand.holds(block):
        if hand.now.fingers[block]:
            return hand.to(hand.tool[:2], hand.tool[2], hand.off_block)
        return hand.rise(hand.off_block if hand.tool[2] < _GRASP + goal.z + 0.04 else _OPEN)
    grasp = _grasp(hand, block)
    if grasp is not None:
        return grasp
    carry = hand.carry_height(block)
    # Where the tool is when the block's lower side is at the goal's height.
    release = float(hand.tool[2]) - low + goal.z
    if distance > 0.012 + _DESCENT_CONE * 0.3 * max(low - goal.z, 0.0):
        if hand.tool[2] < carry - 0.01 and distance > 0.03:
            return hand.to(hand.tool[:2], carry, _CLOSED)
        return _Move(np.array([*offset, max(carry - hand.tool[2], 0.0) if distance > 0.03 else 0.0]), 0.0, _CLOSED)
    if low > goal.z + 0.003:
        return _Move(np.array([*offset, release - hand.tool[2]]), 0.0, _CLOSED)
    return hand.to(hand.tool[:2], hand.tool[2], hand.off_block)


def _goal(hand: _Hand, task: Task) -> _Goal:
    scene = hand.scene
    if task.skill == "place_in_bowl" and scene.bowl is not None:
        return _Goal(scene.bowl.x, scene.bowl.y, BOWL_HEIGHT * 0.6)
    if task.skill == "place_on_mat" and task.mat is not None:
        return _Goal(scene.mats[task.mat].x, scene.mats[task.mat].y, 0.001)
    assert task.reference is not None
    x, y = hand.now.positions[task.reference][:2]
    if task.skill == "stack":
        return _Goal(float(x), float(y), hand.size + 0.001)
    x, y = free_place(scene, hand.now, _block(task), task.reference)
    return _Goal(x, y, 0.001)


def _push(hand: _Hand, task: Task) -> _Move:
    """Behind the block with closed fingers, down, and along until the task is done."""
    position = hand.now.positions[_block(task)][:2]
    assert task.direction is not None
    step = np.array(DIRECTIONS[task.direction])
    side = np.array([-step[1], step[0]])
    tool = hand.tool[:2] - position
    behind, aside = -float(tool @ step), float(tool @ side)
    if hand.tool[2] < _PUSH_Z + 0.012 and hand.size / 2 < behind < 0.09 and abs(aside) < 0.02:
        # Rubber fingers stick to the block: it goes where they go. How far it went nobody can see, so it goes on at one speed.
        way = min(_PUSH_SPEED + max(behind - _PUSH_ROOM - hand.size / 2, 0.0), MAX_TRANSLATION)
        return _Move(np.array([*(way * step), _PUSH_Z - hand.tool[2]]), -hand.yaw, _CLOSED)
    ready = position - (hand.size / 2 + _PUSH_ROOM + 0.02) * step
    off = float(np.hypot(*(ready - hand.tool[:2])))
    clear = hand.size + 0.035
    if off > 0.05 and hand.tool[2] < clear - 0.01:  # rise before crossing over blocks
        return hand.rise(_CLOSED)
    # A funnel: the nearer to the place, the lower.
    return hand.to(
        ready, _PUSH_Z + min(max(off - 0.012, 0.0) * 2.5, max(hand.style.hover + 0.02, clear) - _PUSH_Z), _CLOSED, -hand.yaw
    )


def _drawer(hand: _Hand, *, opening: bool) -> _Move:
    """Take the handle and pull or push."""
    assert hand.scene.cabinet is not None
    outward = -1.0 if hand.scene.cabinet.side == "right" else 1.0
    handle = hand.world.handle_position()
    left = DRAWER_TRAVEL - hand.now.drawer if opening else hand.now.drawer
    if left < 0.002:
        return hand.to(hand.tool[:2], hand.tool[2], _CLOSED)
    offset = handle[:2] - hand.tool[:2]
    distance = float(np.hypot(*offset))
    thin = 0.55
    if distance < 0.03 and abs(hand.tool[2] - _HANDLE_Z) < 0.012:
        if hand.now.closing > thin:
            pull = np.array([0.0, (outward if opening else -outward) * min(left + 0.006, MAX_TRANSLATION), 0.0])
            return _Move(pull, 0.0, _CLOSED)
        return hand.to(handle[:2], _HANDLE_Z, _CLOSED if distance < 0.012 else _OPEN, -hand.yaw)
    if hand.now.closing > _OPENED:
        return hand.rise(_OPEN)
    hover = 0.13
    if distance > 0.01 or abs(hand.yaw) > _YAW_ALIGNED:
        if hand.tool[2] < hover - 0.02:
            return hand.rise(_OPEN)
        return hand.to(handle[:2], hover, _OPEN, -hand.yaw)
    return hand.to(handle[:2], _HANDLE_Z, _OPEN, -hand.yaw)


def _quarter_turn(angle: float) -> float:
    """A square block looks the same after a quarter turn: the equivalent angle within ±π/4."""
    quarter = math.pi / 2
    return float((angle + quarter / 2) % quarter - quarter / 2)
