"""Exponential moving average of the weights: less noise than the last iterate, and what is previewed and exported.

    θ̄_{n+1} = d_n θ̄_n + (1 − d_n) θ_{n+1},      d_n = min(d, (1 + n) / (10 + n)),  n = 0, 1, …

The warm-up of d forgets the random initialisation quickly.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class ExponentialMovingAverage:
    """A frozen copy of a model, in evaluation mode, whose parameters trail the model's; buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._averages: list[Tensor] = [*self.model.parameters()]
        self._buffers = list(self.model.buffers())

    def decay_at(self, update: int) -> float:
        """d_n for the update counted from 0."""
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, model: nn.Module, update: int) -> None:
        """Fold in the model's parameters as they are after update number `update`, counted from 0."""
        # One fused call for all tensors: a Python loop over them costs more than the arithmetic.
        current: list[Tensor] = [*model.parameters()]
        torch._foreach_lerp_(self._averages, current, 1 - self.decay_at(update))
        for mine, theirs in zip(self._buffers, model.buffers(), strict=True):
            mine.copy_(theirs)
