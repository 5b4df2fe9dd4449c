from __future__ import annotations

from typing import Any

import numpy as np

from ornstein.core import Action, EmbodimentContract, Environment, Observation, Policy


class Still:
    """A policy that never moves."""

    def __init__(self, contract: EmbodimentContract) -> None:
        self.contract = contract

    def reset(self) -> None:
        pass

    def act(self, observation: Observation) -> Action:
        return np.zeros(len(self.contract.action), np.float32)


class Nothing:
    """An environment in which nothing happens."""

    def __init__(self, contract: EmbodimentContract) -> None:
        self.contract = contract

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        return {"pixels": {}, "agent_pos": np.zeros(0, np.float32), "instruction": ""}, {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        return self.reset()[0], 0.0, False, False, {}


def test_policies_and_environments_need_no_base_class() -> None:
    contract = EmbodimentContract("none", (), (), (), "", "", "", 1.0, 1)
    policy, environment = Still(contract), Nothing(contract)
    assert isinstance(policy, Policy)
    assert isinstance(environment, Environment)
    assert not isinstance(policy, Environment)
    assert not isinstance(environment, Policy)
