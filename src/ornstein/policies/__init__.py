"""Policies: from what a robot sees and is told to what it does."""

from ornstein.policies.acting import ActingNetwork
from ornstein.policies.looking import PlaceTokens, looking_loss
from ornstein.policies.modular import ModularPolicy, TabletopFacts
from ornstein.policies.rt1 import RT1, RT1Config
from ornstein.policies.rt1_losses import (
    PointedTensors,
    SpokenTensors,
    action_loss,
    decision_loss,
    heading_loss,
    jittered,
    naming_loss,
    pointing_loss,
    reading_loss,
    recognition_loss,
    rt1_loss,
    without_words,
)
from ornstein.policies.rt1_paper import PaperRT1, PaperRT1Config
from ornstein.policies.rt1_policy import RT1Policy
from ornstein.policies.rt2 import RT2Config, RT2Network, TransformersRT2, pointing_texts, robot_texts, speech_loss, with_actions
from ornstein.policies.rt2_policy import RT2Policy
from ornstein.policies.texts import TextTensors, text_tensors
from ornstein.policies.vision_language import Answer, VisionLanguageModel, answer_loss, speaking_network

__all__ = [
    "RT1",
    "ActingNetwork",
    "Answer",
    "ModularPolicy",
    "PaperRT1",
    "PaperRT1Config",
    "PlaceTokens",
    "PointedTensors",
    "RT1Config",
    "RT1Policy",
    "RT2Config",
    "RT2Network",
    "RT2Policy",
    "SpokenTensors",
    "TabletopFacts",
    "TextTensors",
    "TransformersRT2",
    "VisionLanguageModel",
    "action_loss",
    "answer_loss",
    "decision_loss",
    "heading_loss",
    "jittered",
    "looking_loss",
    "naming_loss",
    "pointing_loss",
    "pointing_texts",
    "reading_loss",
    "recognition_loss",
    "robot_texts",
    "rt1_loss",
    "speaking_network",
    "speech_loss",
    "text_tensors",
    "with_actions",
    "without_words",
]
