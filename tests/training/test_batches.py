from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ornstein.training.batches import Batch, epoch_rows, prefetched, sample_indices

CPU = torch.device("cpu")


@given(st.integers(0, 10**9), st.integers(1, 64), st.sampled_from([1, 2, 3, 8]))
def test_the_processes_share_the_batch_of_one(step: int, share: int, world: int) -> None:
    alone = sample_indices(step, share * world)
    together = [sample_indices(step, share * world, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate(together), alone)
    np.testing.assert_array_equal(alone, np.arange(step * share * world, (step + 1) * share * world))


def _numbers(indices: np.ndarray) -> Batch:
    return {"index": torch.from_numpy(indices)}


def test_every_row_comes_once_an_epoch_in_another_order_however_the_stream_is_cut() -> None:
    stream = epoch_rows(np.arange(21), 7, seed=0, stream=4)
    epochs = stream.reshape(3, 7)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(7), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    pieces = [epoch_rows(np.arange(start, min(start + 5, 21)), 7, seed=0, stream=4) for start in range(0, 21, 5)]
    assert np.array_equal(np.concatenate(pieces), stream)
    assert not np.array_equal(epoch_rows(np.arange(21), 7, seed=0, stream=5), stream)


def test_batches_come_in_order_and_end() -> None:
    seen = [batch["index"].tolist() for batch in prefetched(_numbers, range(3, 7), 2, device=CPU)]
    assert seen == [[6, 7], [8, 9], [10, 11], [12, 13]]
    assert list(prefetched(_numbers, range(0), 2, device=CPU)) == []
    assert len(list(prefetched(_numbers, range(1), 2, device=CPU))) == 1


def test_an_error_surfaces_at_its_step() -> None:
    def failing(indices: np.ndarray) -> Batch:
        if indices[0] >= 8:
            raise ValueError("no such sample")
        return _numbers(indices)

    batches = prefetched(failing, range(10), 2, device=CPU)
    assert [next(batches)["index"][0].item() for _ in range(4)] == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="no such sample"):
        next(batches)


def test_few_are_prepared_ahead_in_one_other_thread_that_ends() -> None:
    prepared: list[str] = []

    def recording(indices: np.ndarray) -> Batch:
        prepared.append(threading.current_thread().name)
        return _numbers(indices)

    batches = prefetched(recording, range(100), 1, device=CPU)
    next(batches)
    time.sleep(0.05)
    assert len(prepared) <= 3
    assert len(set(prepared)) == 1
    assert prepared[0] != threading.main_thread().name
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_channels_last_is_for_pictures_alone() -> None:
    def pictures(indices: np.ndarray) -> Batch:
        return {"x": torch.zeros(2, 3, 4, 4), "y": torch.zeros(2, 3)}

    batch = next(prefetched(pictures, range(1), 2, device=CPU, channels_last=True))
    assert batch["x"].is_contiguous(memory_format=torch.channels_last)
    assert batch["y"].is_contiguous()
    assert next(prefetched(pictures, range(1), 2, device=CPU))["x"].is_contiguous()
