"""Randomness by key: the noise of a sample depends on (seed, sample index, step) alone.

So a picture is the same alone or within any batch, in any order, on any worker and after a resume.

The numbers come from Philox (Salmon et al. 2011), a generator that is a function of a key and a counter: the key is the seed,
and the counter's upper words are the sample and the step. Two different keys can therefore not share a stream, which hashing
them into a seed does not promise: torch's CPU generator keeps 32 bits of its seed, so that among a hundred thousand draws two
are likely to be the same.
"""

from __future__ import annotations

import math
import operator
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

_WORD = 2**64
_BEFORE_THE_STEPS = 0


@runtime_checkable
class NoiseSource(Protocol):
    """Where a stochastic sampler takes its noise from."""

    def at(self, step: int, shape: Sequence[int]) -> Tensor:
        """Standard normal noise that sampler step `step` (0, 1, …) adds, shape (batch, *shape)."""
        ...


class KeyedNoise:
    """Standard normal noise for a batch whose row i is sample `sample_indices[i]` of the stream `seed`.

    Drawn on the CPU in float32 and moved to `device`, so that every device sees the same numbers.
    """

    def __init__(self, seed: int, sample_indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        """
        Raises:
            DataError: the seed or an index is not within 0 … 2⁶⁴ − 1.
        """
        self.seed = _word("the seed", seed)
        self.sample_indices = [_word("a sample index", index) for index in sample_indices]
        self.device = torch.device(device)

    def initial(self, shape: Sequence[int]) -> Float[Tensor, "batch ..."]:
        """x_T for the batch, float32, shape (batch, *shape)."""
        return self._draw(_BEFORE_THE_STEPS, shape)

    def at(self, step: int, shape: Sequence[int]) -> Float[Tensor, "batch ..."]:
        """The noise that sampler step `step` (0, 1, …) adds, float32, shape (batch, *shape)."""
        if step < 0:
            raise DataError(f"sampler steps count from 0, got {step}")
        return self._draw(step + 1, shape)

    def _draw(self, stream: int, shape: Sequence[int]) -> Tensor:
        rows = np.empty((len(self.sample_indices), *shape), dtype=np.float32)
        local = _local()
        local.key[0] = self.seed
        local.counter[2] = stream
        for row, index in zip(rows.reshape(len(rows), math.prod(shape)), self.sample_indices, strict=True):
            local.counter[3] = index
            local.philox.state = local.fresh
            local.generator.standard_normal(dtype=np.float32, out=row)
        drawn = torch.from_numpy(rows)
        return drawn if self.device.type == "cpu" else drawn.to(self.device)


class _Local(threading.local):
    """A generator for each thread, kept: making one costs more than a hundred numbers. `fresh` is its state at key and counter."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=np.zeros(2, dtype=np.uint64))
        self.generator = np.random.Generator(self.philox)
        self.fresh: Any = self.philox.state
        self.key, self.counter = self.fresh["state"]["key"], self.fresh["state"]["counter"]


@lru_cache(maxsize=1)
def _local() -> _Local:
    return _Local()


def _word(what: str, number: int) -> int:
    try:
        word = operator.index(number)
    except TypeError:
        word = -1
    if not 0 <= word < _WORD:
        raise DataError(f"{what} must be a whole number within 0 … 2^64 - 1, got {number}")
    return word
