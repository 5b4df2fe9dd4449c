"""One connection's policy and its robot's shield."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.safety import Shield

if TYPE_CHECKING:
    from ornstein.core.types import Observation, Policy
    from ornstein.data.lerobot_episode import RobotEpisode
    from ornstein.safety import ShieldLimits
    from ornstein.serving.recorder import Recorded

_PLACE = ("x", "y", "z")
_MOST_ROBOTS = 1024
#: A reason of the shield that changes no action.
_SEEN_ALONE = frozenset({"lost"})


class Session:
    """A policy that remembers this connection's episode alone, on weights that all share; what it says goes through the robot's shield."""

    def __init__(self, policy: Policy, shield: Shield | None, recorded: Recorded | None = None) -> None:
        self._policy, self._shield, self._recorded = copy.copy(policy), shield, recorded
        self._policy.reset()
        names = [channel.name for channel in policy.contract.state]
        self._place = [names.index(name) for name in _PLACE] if set(_PLACE) <= set(names) else None
        # What the robot holds already where an action says where to be, as a gripper's does.
        self._held = [names.index(channel.name) if channel.name in names else None for channel in policy.contract.action]

    def reset(self) -> None:
        """A new episode. The shield goes on: the robot did not change."""
        self._policy.reset()

    def ended(self, *, success: bool = False) -> list[RobotEpisode]:
        """The episode is over: what there is of it to be kept, and of those before it that nobody took yet."""
        return [] if self._recorded is None else self._recorded.ended(success=success)

    def taken(self) -> list[RobotEpisode]:
        """Episodes that came to an end by themselves, by another sentence for instance."""
        return [] if self._recorded is None else self._recorded.taken()

    def infer(self, observation: Observation) -> dict[str, Any]:
        """{"actions": float32 (1, A)}, with what the shield had to say and what the policy told itself, where there is something to tell.

        Raises:
            Whatever the policy raises. Nothing goes out then, and for the shield nothing went: a robot that gets no action holds still.
        """
        try:
            action = self._policy.act(observation)
        except StopIteration as error:  # which no future of asyncio can hold
            raise RuntimeError("the policy came to an end") from error
        answer: dict[str, Any] = {}
        if self._shield is not None:
            state = observation["agent_pos"]
            held = [np.nan if k is None else float(state[k]) for k in self._held]
            tool = None if self._place is None else state[self._place]
            guarded = self._shield.guard(action, tool=tool, held=held)
            action, answer["shield"] = guarded.action, list(guarded.reasons)
        sent = np.asarray(action, np.float32)
        if self._recorded is not None:
            self._recorded.note(observation, sent, shielded=bool(set(answer.get("shield", ())) - _SEEN_ALONE))
        plan = getattr(self._policy, "plan", "")
        return {"actions": sent[None], **answer, **({"plan": plan} if plan else {})}


class Shields:
    """Of each robot one, for as long as the server runs.

    A robot that gives its name has its own again whenever it connects, also while an old connection of it lives on. One without a name is known by the
    address that it comes from, until two come from there at once: then nobody can tell them apart, and each connection gets a new shield.
    """

    def __init__(self, limits: ShieldLimits | None) -> None:
        """
        Args:
            limits: None for no shields.
        """
        self._limits = limits
        self._kept: OrderedDict[str, Shield] = OrderedDict()
        self._open: Counter[str] = Counter()
        self._mixed: set[str] = set()

    def take(self, name: str | None, address: str) -> Shield | None:
        """When a robot connects."""
        if self._limits is None:
            return None
        if name is None:
            self._open[address] += 1
            if self._open[address] > 1 or address in self._mixed:
                self._mixed.add(address)
                self._kept.pop(f"address {address}", None)
                return Shield(self._limits)
        robot = f"address {address}" if name is None else f"name {name}"
        shield = self._kept.setdefault(robot, Shield(self._limits))
        self._kept.move_to_end(robot)
        while len(self._kept) > _MOST_ROBOTS:
            self._kept.popitem(last=False)
        return shield

    def leave(self, name: str | None, address: str) -> None:
        """When its connection ends."""
        if name is None and self._open[address]:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]
