"""One connection's policy and its robot's shield."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.safety import Shield

if TYPE_CHECKING:
    from collections.abc import Callable

    from ornstein.core.types import Observation, Policy
    from ornstein.safety import ShieldLimits
    from ornstein.serving.recorder import Recorded

_PLACE = ("x", "y", "z")


class Session:
    """A policy that remembers this connection's episode alone, on weights that all share; what it says goes through the robot's shield."""

    def __init__(self, policy: Policy, shield: Shield | None, recorded: Recorded | None = None) -> None:
        self._policy, self._shield, self._recorded = copy.copy(policy), shield, recorded
        self._policy.reset()
        names = [channel.name for channel in policy.contract.state]
        self._place = [names.index(name) for name in _PLACE] if set(_PLACE) <= set(names) else None

    def reset(self) -> None:
        """A new episode. The shield goes on: the robot did not change. Errors as `Recorded.end`."""
        self._policy.reset()
        self.end()

    def end(self, *, success: bool = False) -> None:
        """The episode is over: what was recorded of it is on disk when this returns. Errors as `Recorded.end`."""
        if self._recorded is not None:
            self._recorded.end(success=success)

    def infer(self, observation: Observation) -> dict[str, Any]:
        """{"actions": float32 (1, A)}, with why the shield interfered and what the policy told itself, where there is something to tell.

        Raises:
            Whatever the policy raises; the robot's shield is braking then, and says so at the next action.
        """
        try:
            action = self._policy.act(observation)
        except Exception:
            if self._shield is not None:
                self._shield.guard(None, tool=self._tool(observation), late=True)
            raise
        answer: dict[str, Any] = {}
        if self._shield is not None:
            guarded = self._shield.guard(action, tool=self._tool(observation))
            action, answer["shield"] = guarded.action, list(guarded.reasons)
        if self._recorded is not None:
            self._recorded.note(observation, np.asarray(action, np.float32), shielded=bool(answer.get("shield")))
        plan = getattr(self._policy, "plan", "")
        return {"actions": np.asarray(action, np.float32)[None], **answer, **({"plan": plan} if plan else {})}

    def _tool(self, observation: Observation) -> Any:
        return None if self._place is None else observation["agent_pos"][self._place]


class Shields:
    """Of each robot one, kept over reconnections: a robot is who connects under a name, or from a machine."""

    def __init__(self, limits: ShieldLimits | None, kept_for: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            limits: None for no shields. kept_for: how long a robot that went is remembered [s]: longer, and it has come to rest by itself.
        """
        self._limits, self._kept_for, self._clock = limits, kept_for, clock
        self._lock = threading.Lock()
        self._free: dict[str, list[tuple[float, Shield]]] = {}

    def take(self, robot: str) -> Shield | None:
        """The one that this robot had, unless it is in use or forgotten; else a new one."""
        if self._limits is None:
            return None
        with self._lock:
            now = self._clock()
            kept = [(when, shield) for when, shield in self._free.pop(robot, []) if now - when <= self._kept_for]
            if not kept:
                return Shield(self._limits)
            *rest, (_, latest) = kept
            if rest:
                self._free[robot] = rest
            return latest

    def give_back(self, robot: str, shield: Shield | None) -> None:
        """When a connection ends."""
        if shield is not None:
            with self._lock:
                self._free.setdefault(robot, []).append((self._clock(), shield))
