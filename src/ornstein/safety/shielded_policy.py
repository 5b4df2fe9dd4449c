"""A policy behind a shield."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ornstein.core.errors import DataError
from ornstein.safety.shield import Guarded, Shield

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation, Policy
    from ornstein.safety.limits import ShieldLimits

_PLACE = ("x", "y", "z")


class ShieldedPolicy:
    """What the policy says goes through `shield`. The shield is the robot's and not the episode's: `reset` leaves it as it is."""

    def __init__(self, policy: Policy, limits: ShieldLimits) -> None:
        """
        Raises:
            DataError: as many limits as the policy's action has dimensions are needed; boxes need a state that says where the tool is (x, y, z).
        """
        dimensions = len(policy.contract.action)
        if len(limits.low) != dimensions:
            raise DataError(f"the limits are of {len(limits.low)} dimensions, the policy's action has {dimensions}")
        self.policy, self.shield = policy, Shield(limits)
        names = [channel.name for channel in policy.contract.state]
        self._place = [names.index(name) for name in _PLACE] if set(_PLACE) <= set(names) else None
        if self._place is None and (limits.workspace is not None or limits.keep_out):
            raise DataError(
                f"boxes limit a tool whose place the state does not tell: it has {', '.join(names)}, and x, y and z are needed"
            )
        #: What went out last, and why it was not what the policy said.
        self.last: Guarded | None = None

    @property
    def contract(self) -> EmbodimentContract:
        """The policy's."""
        return self.policy.contract

    def reset(self) -> None:
        """Of the policy."""
        self.policy.reset()

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action, within the limits; whatever the policy raises is the caller's to handle."""
        tool = None if self._place is None else observation["agent_pos"][self._place]
        self.last = self.shield.guard(self.policy.act(observation), tool=tool)
        return self.last.action
