"""Policies: from what a robot sees and is told to what it does."""

from ornstein.policies.modular import ModularPolicy, TabletopFacts
from ornstein.policies.rt1 import RT1, RT1Config
from ornstein.policies.rt1_losses import (
    PointedTensors,
    SpokenTensors,
    action_loss,
    decision_loss,
    heading_loss,
    naming_loss,
    pointing_loss,
    reading_loss,
    recognition_loss,
    rt1_loss,
    without_words,
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
    "SpokenTensors",
    "TabletopFacts",
    "action_loss",
    "decision_loss",
    "heading_loss",
    "naming_loss",
    "pointing_loss",
    "reading_loss",
    "recognition_loss",
    "rt1_loss",
    "without_words",
]
