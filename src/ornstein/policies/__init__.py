"""Policies: from what a robot sees and is told to what it does."""

from ornstein.policies.modular import ModularPolicy, TabletopFacts
from ornstein.policies.rt1 import (
    RT1,
    PointedTensors,
    RT1Config,
    action_loss,
    decision_loss,
    heading_loss,
    pointing_loss,
    rt1_loss,
)
from ornstein.policies.rt1_paper import PaperRT1, PaperRT1Config
from ornstein.policies.rt1_policy import RT1Policy

__all__ = [
    "RT1",
    "ModularPolicy",
    "PaperRT1",
    "PaperRT1Config",
    "PointedTensors",
    "RT1Config",
    "RT1Policy",
    "TabletopFacts",
    "action_loss",
    "decision_loss",
    "heading_loss",
    "pointing_loss",
    "rt1_loss",
]
