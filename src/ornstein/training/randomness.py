"""Noise as a function of (seed, step, process): what an interrupted and resumed training needs to go on bit for bit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Built = TypeVar("_Built")


def step_seeds(seed: int, step: int, rank: int) -> tuple[int, int]:
    """Two independent 63-bit seeds: of the loss function's generator, and of dropout."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint64)
    return int(state[0] >> np.uint64(1)), int(state[1] >> np.uint64(1))


@contextmanager
def borrowed_global_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator inside the block and hand it back as it was.

    Initialisers and `nn.Dropout` can draw from nowhere else.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def initialise(build: Callable[[], _Built], seed: int) -> _Built:
    """`build()`, with weights drawn from `seed` and the global generator left as it was."""
    with borrowed_global_generator(seed, torch.device("cpu")):
        return build()
