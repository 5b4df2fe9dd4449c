"""The classical pipeline: perception → state estimation → planning → control. Nothing but the eyes is learnt.

    picture ─▶ CentreNet ─▶ things in the picture ─▶ camera geometry ─▶ places in metres ┐
    sentence ─▶ grammar ─▶ goals, one after the other ───────────────────────────────────┴─▶ motions by waypoints

It looks while the hand is at home and out of the way, moves by what it saw, feels whether the gripper holds something, and looks again
before the next goal or another attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ornstein.assets.tabletop import DIRECTIONS
from ornstein.core.errors import CheckpointError, DataError
from ornstein.networks.centre_net import CentreNet, CentreNetConfig
from ornstein.networks.weight_files import load_strictly
from ornstein.policies.grammar import Goal, goals_of
from ornstein.policies.observations import checked
from ornstein.policies.sight import Camera, Thing, found_things

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation

_HOME = np.array([0.45, 0.0, 0.20])
_GRASP, _HOVER, _CARRY = 0.022, 0.115, 0.155
_MOST_TURN = 1.30
_ATTEMPTS = 3
_SLOW = 0.02
# log p. In 500 validation scenes along five axes the named thing had at least −1.1, one that was not there at most −0.06 in a picture from a moved
# camera and −3.4 elsewhere.
_LEAST_LIKELY = math.log(0.1)


@dataclass(frozen=True)
class TabletopFacts:
    """What this pipeline is told about its table, in metres; a learnt policy finds out by itself.

    block: side. travel: of each finger. bowl: inner radius and height of the rim. drawer: its travel; handle: distance from the table's
    middle line when closed, height, and height of its top. push: how far a push goes. near: between two blocks' sides. cabinet: half its width.
    area: x from, y from, x to, y to.
    """

    block: float = 0.06
    travel: float = 0.05
    bowl: tuple[float, float] = (0.056, 0.034)
    drawer: float = 0.085
    handle: tuple[float, float, float] = (0.094, 0.060, 0.094)
    push: float = 0.085
    near: float = 0.025
    cabinet: float = 0.075
    area: tuple[float, float, float, float] = (0.395, -0.155, 0.665, 0.155)


class Table(NamedTuple):
    """What was seen: things of each kind with their places (x, y) [m]."""

    things: tuple[Thing, ...]
    places: tuple[NDArray[np.float64], ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]

    def of(self, kind: str) -> list[int]:
        """The numbers of all things of a kind."""
        return [k for k, thing in enumerate(self.things) if self.kinds[thing.kind] == kind]

    def most_like(self, kind: str, name: str) -> int | None:
        """The thing of that kind that is most probably called so; None where none may well be."""
        if name not in self.names or not self.of(kind):
            return None
        number = self.names.index(name)
        best = max(self.of(kind), key=lambda k: float(self.things[k].names[number]))
        return best if float(self.things[best].names[number]) > _LEAST_LIKELY else None


class ModularPolicy:
    """Acts by the pipeline above. `trouble` says why it stands still, where it does."""

    def __init__(
        self,
        network: CentreNet,
        contract: EmbodimentContract,
        camera: Camera,
        kinds: tuple[str, ...],
        names: tuple[str, ...],
        *,
        facts: TabletopFacts | None = None,
        fingerprint: str = "untrained",
        provenance: Mapping[str, Any] | None = None,
        checkpoint_path: Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """
        Args:
            kinds, names: what the network's numbers mean: objects first, then mats as "number 3", "colour red", "symbol star".
            fingerprint, provenance, checkpoint_path: of the checkpoint, for reports and for workers that load it themselves.

        Raises:
            DataError: the network was built for another picture than the contract's, or names other numbers of things.
        """
        if len(contract.cameras) != 1 or contract.cameras[0].height != network.config.image_size:
            raise DataError(f"these eyes see one camera of {network.config.image_size} px, the contract has {contract.cameras}")
        if (len(kinds), len(names)) != (network.config.kinds, network.config.names):
            raise DataError(
                f"these eyes know {network.config.kinds} kinds and {network.config.names} names, given {len(kinds)} and {len(names)}"
            )
        self._contract, self._camera, self._kinds, self._names = contract, camera, kinds, names
        self._facts = TabletopFacts() if facts is None else facts
        self.network = network.to(device).eval()
        self.device = torch.device(device)
        self.fingerprint, self.checkpoint_path = fingerprint, checkpoint_path
        self.provenance: Mapping[str, Any] = provenance or {}
        self._fastest = float(contract.action_high[0])
        self._quickest_turn = float(contract.action_high[5])
        self.reset()

    @property
    def contract(self) -> EmbodimentContract:
        """The body that it moves."""
        return self._contract

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> ModularPolicy:
        """Load strictly.

        Raises:
            CheckpointError: no contract, or configuration or weights that do not fit.
        """
        if checkpoint.contract is None:
            raise CheckpointError(f"{checkpoint.path} has no contract.json: a policy cannot act without one")
        try:
            config = checkpoint.config
            sizes = CentreNetConfig(**{**config["network"], "channels": tuple(config["network"]["channels"])})
            network, camera = CentreNet(sizes), Camera.from_json(config["camera"])
            kinds, names = tuple(config["kinds"]), tuple(config["names"])
        except (KeyError, TypeError, DataError) as error:
            raise CheckpointError(f"{checkpoint.path} does not fit a modular policy: {error}") from error
        return cls(
            load_strictly(network, checkpoint),
            checkpoint.contract,
            camera,
            kinds,
            names,
            fingerprint=checkpoint.fingerprint,
            provenance=checkpoint.provenance,
            checkpoint_path=checkpoint.path,
            device=device,
        )

    def reset(self) -> None:
        """Forget the episode so far."""
        self._plan: Iterator[NDArray[np.float32]] | None = None
        self._grip = 0.0
        self.trouble = ""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action, float32 (7,), within the contract's bounds.

        Raises:
            DataError: the observation lacks something or does not fit the contract.
        """
        (self._picture,), self._state, sentence = checked(observation, self._contract)
        if self._plan is None:
            self._target, self._yaw = self._state[:3].astype(np.float64), float(self._state[5])
            self._plan = self._act_out(sentence)
        try:
            return next(self._plan)
        except BaseException:
            self._plan = None  # a generator that failed would only say that it is over
            raise

    def look(self, picture: NDArray[np.uint8]) -> Table:
        """What stands where in a picture, uint8 (S, S, 3), of the contract's camera."""
        with torch.inference_mode():
            said = self.network(torch.from_numpy(picture[None]).to(self.device))
        things = found_things(type(said)(*(part.cpu() for part in said)), 0)
        heights = {"block": self._facts.block / 2, "handle": self._facts.handle[1]}
        places = [self._camera.on_plane(thing.place, heights.get(self._kinds[thing.kind], 0.0)) for thing in things]
        return Table(tuple(things), tuple(places), self._kinds, self._names)

    def _act_out(self, sentence: str) -> Iterator[NDArray[np.float32]]:
        """The whole episode."""
        objects = [name for name in self._names if not name.startswith(("number ", "colour ", "symbol "))]
        symbols, colours = ([n.split(" ", 1)[1] for n in self._names if n.startswith(kind)] for kind in ("symbol ", "colour "))
        try:
            goals = goals_of(sentence, objects, symbols, colours)
        except DataError as error:
            self.trouble, goals = str(error), ()
        grip = 0.0
        for number, goal in enumerate(goals):
            for attempt in range(_ATTEMPTS):
                if number or attempt:
                    yield from self._go(np.array([*self._target[:2], max(self._target[2], _HOME[2])]), self._yaw, self._grip)
                    yield from self._go(_HOME, 0.0, 0.0)
                    yield from self._wait(2, 0.0)
                outcome = yield from self._do(goal, self.look(self._picture))
                if outcome is not None:
                    grip = outcome
                    break
        while True:
            yield from self._wait(1, grip)

    def _do(self, goal: Goal, table: Table) -> Any:
        """One attempt; returns the gripper's command afterwards, or None where it failed."""
        if goal.skill in ("open_drawer", "close_drawer"):
            return (yield from self._drawer(table, opening=goal.skill == "open_drawer"))
        block = table.most_like("block", goal.object)
        reference = table.most_like("block", goal.reference) if goal.reference else None
        mat = table.most_like("mat", " ".join(goal.mat)) if goal.mat else None
        bowls = table.of("bowl")
        lacking = (
            (block is None, f"a block that shows {goal.object!r}"),
            (bool(goal.reference) and reference in (None, block), f"another block that shows {goal.reference!r}"),
            (goal.mat is not None and mat is None, f"a mat with {goal.mat}"),
            (goal.skill == "place_in_bowl" and not bowls, "a bowl"),
        )
        for lacks, what in lacking:
            if lacks:
                self.trouble = f"I do not see {what}"
                yield from self._wait(2, 0.0)
                return None
        assert block is not None
        if goal.skill == "push":
            return (yield from self._push(table.places[block], DIRECTIONS[goal.direction]))
        held = yield from self._grasp(table, block)
        if not held:
            return None
        if goal.skill == "pick":
            yield from self._go(np.array([*self._target[:2], 0.17]), self._yaw, 1.0)
            return 1.0
        if goal.skill == "place_in_bowl":
            return (yield from self._release(table.places[bowls[0]], 0.02))
        if goal.skill == "place_on_mat" and mat is not None:
            return (yield from self._release(table.places[mat], 0.002))
        assert reference is not None
        if goal.skill == "stack":
            turn = _quarter(table.things[reference].heading - table.things[block].heading)
            return (yield from self._release(table.places[reference], self._facts.block + 0.002, turn))
        return (yield from self._release(self._beside(table, block, reference), 0.002))

    def _grasp(self, table: Table, block: int) -> Any:
        """Take that block and lift it; returns whether the gripper holds something."""
        heading, tight = self._heading(table, block)
        on_block = 1 - self._facts.block / 2 / self._facts.travel
        opened = max(on_block - 0.013 / self._facts.travel, 0.0) if tight else 0.0
        place = table.places[block]
        yield from self._go(np.array([*place, _HOVER]), heading, opened)
        yield from self._go(np.array([*place, _GRASP]), heading, opened)
        yield from self._wait(1, opened)
        yield from self._wait(4, 1.0)
        if self._state[6] > on_block + 0.25:
            self.trouble = "the gripper closed on nothing"
            return False
        yield from self._go(np.array([*place, _CARRY]), heading, 1.0)
        return True

    def _release(self, place: NDArray[np.float64], height: float, turn: float = 0.0) -> Any:
        """Let go of what is held with its lower side at that height; returns the gripper's command afterwards."""
        loose = max(1 - (self._facts.block / 2 + 0.009) / self._facts.travel, 0.0)
        heading = self._yaw + turn if abs(self._yaw + turn) <= _MOST_TURN else self._yaw
        carry = max(_CARRY, _GRASP + height + 0.07)
        yield from self._go(np.array([*self._target[:2], carry]), self._yaw, 1.0)
        yield from self._go(np.array([*place, carry]), heading, 1.0)
        yield from self._go(np.array([*place, _GRASP + height]), heading, 1.0)
        yield from self._wait(2, 1.0)
        yield from self._wait(2, loose)
        yield from self._go(np.array([*place, _GRASP + height + 0.06]), heading, loose)
        yield from self._wait(6, 0.0)
        return 0.0

    def _push(self, place: NDArray[np.float64], step: tuple[float, float]) -> Any:
        """With closed fingers, from behind."""
        way = np.array(step)
        behind = place - (self._facts.block / 2 * 1.35 + 0.022) * way
        yield from self._go(np.array([*behind, _HOVER]), 0.0, 1.0)
        yield from self._go(np.array([*behind, _GRASP]), 0.0, 1.0)
        end = place + (self._facts.push - self._facts.block / 2 - 0.012) * way
        yield from self._go(np.array([*end, _GRASP]), 0.0, 1.0, _SLOW)
        yield from self._go(np.array([*(end - 0.04 * way), _GRASP]), 0.0, 1.0)
        yield from self._wait(6, 1.0)
        return 1.0

    def _drawer(self, table: Table, *, opening: bool) -> Any:
        """Take the handle and pull or push."""
        handles = table.of("handle")
        if not handles:
            self.trouble = "I do not see a drawer"
            yield from self._wait(2, 0.0)
            return None
        place = table.places[handles[0]]
        inward = 1.0 if place[1] > 0 else -1.0
        closed, height, _ = self._facts.handle
        left = self._facts.drawer - (closed - abs(place[1])) if opening else closed - abs(place[1])
        yield from self._go(np.array([*place, 0.13]), 0.0, 0.0)
        yield from self._go(np.array([*place, height + 0.01]), 0.0, 0.0)
        yield from self._wait(5, 1.0)
        by = (left + 0.012) * (-inward if opening else inward)
        yield from self._go(self._target + np.array([0.0, by, 0.0]), 0.0, 1.0)
        yield from self._wait(7, 1.0)
        yield from self._wait(2, 0.5)
        return 0.5

    def _heading(self, table: Table, block: int) -> tuple[float, bool]:
        """Which of the block's two headings leaves the fingers most room, and whether even that is tight."""
        heading, place = table.things[block].heading, table.places[block]
        best, room = 0.0, -math.inf
        for turned in (_quarter(heading), _quarter(heading) - math.pi / 2, _quarter(heading) + math.pi / 2):
            if abs(turned) > _MOST_TURN:
                continue
            across = (self._facts.travel + 0.006) * np.array([-math.sin(turned), math.cos(turned)])
            gap = min(self._gap(table, place + side * across, block) for side in (1, -1))
            worth = min(gap, 0.0) - 0.002 * abs(turned)
            if worth > room:
                best, room, tightest = turned, worth, gap
        return best, tightest <= 0.0

    def _gap(self, table: Table, point: NDArray[np.float64], block: int) -> float:
        """From a finger at that point to what stands in its way [m]."""
        gaps = [float(np.hypot(*(point - table.places[k]))) - 0.85 * self._facts.block for k in table.of("block") if k != block]
        gaps += [float(np.hypot(*(point - table.places[k]))) - self._facts.bowl[0] - 0.022 for k in table.of("bowl")]
        return min(gaps, default=1.0)

    def _beside(self, table: Table, block: int, reference: int) -> NDArray[np.float64]:
        """A free place next to the reference, on the side from which the block comes if that is free."""
        base, start = table.places[reference], table.places[block]
        came = math.atan2(*(start - base)[::-1])
        area = np.array(self._facts.area)
        others = [table.places[k] for k in table.of("block") if k not in (block, reference)]
        others += [table.places[k] for k in table.of("bowl")]

        def cost(turn: float) -> float:
            place = base + (self._facts.block + self._facts.near) * np.array([math.cos(came + turn), math.sin(came + turn)])
            gap = min((float(np.hypot(*(place - other))) for other in others), default=1.0)
            for handle in (table.places[k] for k in table.of("handle")):  # where a drawer would push it away again
                aside = max(0.0, abs(float(place[0] - handle[0])) - self._facts.cabinet)
                before = max(0.0, float(handle[1] - place[1]) * math.copysign(1.0, handle[1]) - self._facts.drawer)
                gap = min(gap, math.hypot(aside, before) + 0.05)
            outside = max(0.0, *(area[:2] - place), *(place - area[2:]))
            return abs(turn) + 60 * max(0.11 - gap, 0.0) + 40 * outside

        best = min((float(t) for t in np.linspace(-math.pi, math.pi, 24, endpoint=False)), key=cost)
        return base + (self._facts.block + self._facts.near) * np.array([math.cos(came + best), math.sin(came + best)])

    def _go(
        self, place: NDArray[np.float64], yaw: float, grip: float, fastest: float = math.inf
    ) -> Iterator[NDArray[np.float32]]:
        """Straight to a place, turning on the way."""
        for _ in range(60):
            gap = place - self._target
            turn = yaw - self._yaw
            if np.abs(gap).max() < 1e-4 and abs(turn) < 1e-3:
                return
            yield self._step(gap, turn, grip, min(fastest, self._fastest))

    def _wait(self, steps: int, grip: float) -> Iterator[NDArray[np.float32]]:
        for _ in range(steps):
            yield self._step(np.zeros(3), 0.0, grip, self._fastest)

    def _step(self, gap: NDArray[np.float64], turn: float, grip: float, fastest: float) -> NDArray[np.float32]:
        longest = float(np.abs(gap).max())
        by = gap * min(1.0, fastest / longest) if longest > 0 else gap
        turned = float(np.clip(turn, -self._quickest_turn, self._quickest_turn))
        self._target = self._target + by
        self._yaw += turned
        self._grip = grip
        return np.array([*by, 0.0, 0.0, turned, grip], dtype=np.float32)


def _quarter(angle: float) -> float:
    """A square block looks the same after a quarter turn: the equivalent angle within ±π/4."""
    quarter = math.pi / 2
    return float((angle + quarter / 2) % quarter - quarter / 2)
