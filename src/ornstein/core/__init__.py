"""The types that everything shares. numpy only: importing this never imports torch."""

# In reading order: errors, what is exchanged, how it is described, how it is kept.
# ruff: noqa: I001, RUF022
from ornstein.core.errors import (
    CheckpointError,
    ContractError,
    DataError,
    MissingDependencyError,
    OrnsteinError,
    RenderingError,
    TrainingError,
    UnknownNameError,
    unknown_name,
)
from ornstein.core.types import Action, Environment, Observation, Policy
from ornstein.core.contract import Camera, Channel, EmbodimentContract
from ornstein.core.statistics import NormalizationStatistics
from ornstein.core.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

__all__ = [
    "OrnsteinError",
    "CheckpointError",
    "ContractError",
    "DataError",
    "UnknownNameError",
    "MissingDependencyError",
    "TrainingError",
    "RenderingError",
    "unknown_name",
    "Observation",
    "Action",
    "Policy",
    "Environment",
    "EmbodimentContract",
    "Camera",
    "Channel",
    "NormalizationStatistics",
    "Checkpoint",
    "read_checkpoint",
    "write_checkpoint",
]
