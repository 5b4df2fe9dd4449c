"""How an action is said: as tokens, as one answer, as a density, or out of noise."""

# In reading order.
# ruff: noqa: I001, RUF022
from ornstein.actions.bins import UniformBins
from ornstein.actions.quantiles import QuantileBins
from ornstein.actions.fast import FastTokenizer
from ornstein.actions.chunks import ChunkExecution, action_chunks
from ornstein.actions.heads import ActionHead, MixtureHead, RegressionHead
from ornstein.actions.token_heads import BinsHead, FastHead
from ornstein.actions.noise_heads import DiffusionHead, FlowHead
from ornstein.actions.choices import HEADS, HeadName, build_head, describe_head

__all__ = [
    "UniformBins",
    "QuantileBins",
    "FastTokenizer",
    "ChunkExecution",
    "action_chunks",
    "ActionHead",
    "RegressionHead",
    "MixtureHead",
    "BinsHead",
    "FastHead",
    "DiffusionHead",
    "FlowHead",
    "HEADS",
    "HeadName",
    "build_head",
    "describe_head",
]
