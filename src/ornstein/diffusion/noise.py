"""Randomness by key: the noise of a sample depends on (seed, sample index, step) alone.

So a picture is the same alone or within any batch, in any order, on any worker and after a resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

_INITIAL = 0


class KeyedNoise:
    """Standard normal noise for a batch whose row i is sample `sample_indices[i]` of the stream `seed`.

    Drawn on the CPU and moved, so that every device sees the same numbers.
    """

    def __init__(self, seed: int, sample_indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        if seed < 0 or any(index < 0 for index in sample_indices):
            raise DataError("seed and sample indices must be ≥ 0")
        self.seed = seed
        self.sample_indices = list(sample_indices)
        self.device = torch.device(device)

    def initial(self, shape: Sequence[int]) -> Tensor:
        """x_T for the batch, float32, shape (batch, *shape)."""
        return self._draw(_INITIAL, shape)

    def at(self, step: int, shape: Sequence[int]) -> Tensor:
        """The noise that sampler step `step` (0, 1, …) adds, float32, shape (batch, *shape)."""
        if step < 0:
            raise DataError(f"sampler steps count from 0, got {step}")
        return self._draw(step + 1, shape)

    def _draw(self, key: int, shape: Sequence[int]) -> Tensor:
        rows = []
        for index in self.sample_indices:
            words = np.random.SeedSequence([self.seed, index, key]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
            rows.append(torch.randn(tuple(shape), generator=generator))
        if not rows:
            return torch.zeros((0, *shape), device=self.device)
        return torch.stack(rows).to(self.device)
