"""How an action is said: as tokens."""

from ornstein.actions.bins import UniformBins

__all__ = ["UniformBins"]
