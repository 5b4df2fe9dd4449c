"""Batches prepared ahead, in order, by one thread."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray
    from torch import Tensor

Batch = dict[str, "Tensor"]

_DEPTH = 2


def sample_indices(step: int, batch_size: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
    """Which samples of the endless stream process `rank` of `world` sees: its part of step·B … (step + 1)·B − 1.

    Together the processes see the same samples whatever their number, and a resumed run goes on where it stopped.
    """
    share = batch_size // world
    start = step * batch_size + rank * share
    return np.arange(start, start + share, dtype=np.int64)


def epoch_rows(indices: NDArray[np.int64], count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """Samples of an endless stream → rows of a data set of `count`, each once an epoch, in an order of its own every epoch.

    stream: keeps apart what is drawn from one seed.
    """
    rows = np.empty(len(indices), dtype=np.int64)
    for epoch in np.unique(indices // count):
        chosen = indices // count == epoch
        order = np.random.default_rng([seed, int(epoch), stream]).permutation(count)
        rows[chosen] = order[indices[chosen] % count]
    return rows


def prefetched(
    batch_of: Callable[[NDArray[np.int64]], Batch],
    steps: range,
    batch_size: int,
    *,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    channels_last: bool = False,
    first_only: bool = False,
) -> Generator[Batch, None, None]:
    """The batches of `steps` on the device; two wait or are in preparation while one is used.

    An error in `batch_of` is raised here, at its step.

    first_only: step 0's batch at every step, see `overfitting_one_batch`.

    The thread ends when the iterator is exhausted or closed.
    """

    def prepare(step: int) -> Batch:
        batch = batch_of(sample_indices(0 if first_only else step, batch_size, rank, world))
        return {name: _placed(tensor, device, channels_last) for name, tensor in batch.items()}

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    waiting: deque[Future[Batch]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(prepare, step))
            if len(waiting) > _DEPTH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _placed(tensor: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    image = channels_last and tensor.ndim == 4
    memory_format = torch.channels_last if image else torch.preserve_format
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True, memory_format=memory_format)
