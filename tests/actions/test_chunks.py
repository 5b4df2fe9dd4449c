from __future__ import annotations

import numpy as np
import pytest

from ornstein.actions import ChunkExecution, action_chunks
from ornstein.core.errors import DataError


def _chunk(first: float) -> np.ndarray:
    """(3, 1): first, first + 1, first + 2."""
    return first + np.arange(3.0)[:, None]


def test_part_of_a_chunk_is_executed_before_the_next_is_asked_for() -> None:
    run = ChunkExecution(3, every=2)
    found = []
    for step in range(5):
        found.append(float(run.next(_chunk(10.0 * step) if run.wants_chunk else None)[0]))
    assert found == [0, 1, 20, 21, 40]
    run.reset()
    assert run.wants_chunk


def test_ensembling_averages_what_all_chunks_say_about_this_step() -> None:
    """By hand: at the third step the first chunk's last action, the second's middle one and the third's first, the oldest heaviest."""
    run = ChunkExecution(3, ensemble_decay=0.5)
    first, second, third = (run.next(_chunk(10.0 * k))[0] for k in range(3))
    weights = np.exp(-0.5 * np.arange(3))
    assert first == 0
    assert second == pytest.approx((weights[:2] @ [1, 10]) / weights[:2].sum())
    assert third == pytest.approx((weights @ [2, 11, 20]) / weights.sum())
    fourth = run.next(_chunk(30.0))[0]
    assert fourth == pytest.approx((weights @ [12, 21, 30]) / weights.sum())
    run.reset()
    assert run.next(_chunk(5.0))[0] == 5


def test_chunks_that_agree_are_followed() -> None:
    run = ChunkExecution(3, ensemble_decay=0.01)
    assert [float(run.next(_chunk(float(k)))[0]) for k in range(6)] == pytest.approx(list(range(6)))


def test_mistakes_are_named() -> None:
    for every, decay, message in ((0, None, "1 to 3"), (4, None, "1 to 3"), (2, 0.1, "every step"), (1, -1.0, "at least 0")):
        with pytest.raises(DataError, match=message):
            ChunkExecution(3, every=every, ensemble_decay=decay)
    run = ChunkExecution(3, every=2)
    with pytest.raises(DataError, match="missing"):
        run.next()
    with pytest.raises(DataError, match=r"\(3, D\)"):
        run.next(np.zeros((2, 1)))
    run.next(_chunk(0))
    with pytest.raises(DataError, match="not used up"):
        run.next(_chunk(0))


def test_chunks_of_a_data_set_end_with_their_episode() -> None:
    """Two episodes of three and two steps: after the end the arm stays, the gripper as it was."""
    actions = np.array([[1, 0], [2, 0], [3, 1], [4, 0], [5, 0.5]], np.float32)
    chunks = action_chunks(actions, [3, 5], 3)
    assert chunks[0].tolist() == [[1, 0], [2, 0], [3, 1]]
    assert chunks[1].tolist() == [[2, 0], [3, 1], [0, 1]]
    assert chunks[2].tolist() == [[3, 1], [0, 1], [0, 1]]
    assert chunks[4].tolist() == [[5, 0.5], [0, 0.5], [0, 0.5]]
    assert np.array_equal(action_chunks(actions, [3, 5], 1)[:, 0], actions)
    for stops, length in (([3, 4], 2), ([5, 5], 2), ([], 1), ([3, 5], 0)):
        with pytest.raises(DataError, match="into chunks"):
            action_chunks(actions, stops, length)
