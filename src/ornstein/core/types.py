"""The few types that data, policies, simulation, evaluation and serving exchange. They never import each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ornstein.core.contract import EmbodimentContract

# (7,) float32: Δx Δy Δz [m], Δroll Δpitch Δyaw [rad], gripper [0 open … 1 closed]; the contract bounds each.
Action = NDArray[np.float32]


class Observation(TypedDict):
    """What a robot perceives at one instant, in gymnasium's words.

    pixels: camera name → uint8 (height, width, 3) in the contract's colour order.
    agent_pos: float32 (S,), the contract's state channels in their order and units.
    instruction: what is asked, in plain language.
    """

    pixels: dict[str, NDArray[np.uint8]]
    agent_pos: NDArray[np.float32]
    instruction: str


@runtime_checkable
class Policy(Protocol):
    """Something that acts. It may remember: `reset` before each episode."""

    @property
    def contract(self) -> EmbodimentContract: ...

    def reset(self) -> None:
        """Forget the episode so far. A shallow copy, once reset, shares nothing that changes: so many robots act on the same weights."""
        ...

    def act(self, observation: Observation) -> Action:
        """The next action, within the contract's bounds."""
        ...


@runtime_checkable
class Environment(Protocol):
    """Something to act in, with gymnasium's calls. `info["is_success"]` is judged from physics."""

    @property
    def contract(self) -> EmbodimentContract: ...

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the same seed gives the same one, bit for bit."""
        ...

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """(observation, reward, terminated, truncated, info) after one control period."""
        ...
