"""From chunks of actions to one action a step."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def action_chunks(actions: NDArray[np.floating], stops: Sequence[int] | NDArray[np.int64], length: int) -> NDArray[np.float32]:
    """What is done from each step on: (N, D) → (N, length, D), within episodes.

    After an episode's end the arm stays where it is, and the gripper, the last dimension, as it was: actions are motions.

    Args:
        stops: one past each episode's last step, ascending, the last N. length: actions a chunk.

    Raises:
        DataError: a length below 1, or stops that are no partition of the steps.
    """
    values = np.asarray(actions, dtype=np.float32)
    ends = np.asarray(stops, dtype=np.int64)
    if length < 1 or values.ndim != 2 or not len(ends) or ends[-1] != len(values) or (np.diff(ends, prepend=0) <= 0).any():
        raise DataError(
            f"cannot cut {values.shape} actions of episodes that end at {ends.tolist()[:5]} … into chunks of {length}"
        )
    last = np.repeat(ends, np.diff(ends, prepend=0)) - 1
    wanted = np.arange(len(values))[:, None] + np.arange(length)
    chunks = values[np.minimum(wanted, last[:, None])]
    chunks[..., :-1][wanted > last[:, None]] = 0.0
    return chunks


class ChunkExecution:
    """What is done at each step with the chunks that a policy predicts.

    Open loop: `every` actions of a chunk are executed, then a new one is asked for (Chi et al. 2023, receding horizon). With temporal
    ensembling a new chunk is asked for at every step, and what all chunks so far say about this step is averaged with weights exp(−decay · age
    rank), the oldest first (Zhao et al. 2023, "ACT", §4.2).
    """

    def __init__(self, length: int, *, every: int = 1, ensemble_decay: float | None = None) -> None:
        """
        Args:
            length: actions a chunk. every: how many of them are executed, 1 … length. ensemble_decay: 0 weighs all chunks alike, the larger
                the more the oldest counts; ACT takes 0.01. None: no ensembling. With ensembling, `every` must be 1.

        Raises:
            DataError: a number out of range.
        """
        if not 1 <= every <= length:
            raise DataError(f"of a chunk of {length} actions, 1 to {length} can be executed, got {every}")
        if ensemble_decay is not None and (every != 1 or not math.isfinite(ensemble_decay) or ensemble_decay < 0):
            raise DataError(
                f"ensembling asks for a chunk at every step and a decay of at least 0, got {every} and {ensemble_decay}"
            )
        self._length, self._every, self._decay = length, every, ensemble_decay
        self.reset()

    @property
    def length(self) -> int:
        """Actions a chunk."""
        return self._length

    def reset(self) -> None:
        """Forget all chunks."""
        self._left: deque[NDArray[np.float32]] = deque()
        #: Chunks whose first action was for this step, the step before, …: newest last.
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=self._length)

    @property
    def wants_chunk(self) -> bool:
        """Whether the next action needs a new chunk."""
        return not self._left

    def next(self, chunk: NDArray[np.floating] | None = None) -> NDArray[np.float32]:
        """The action of this step, float32 (D,).

        Args:
            chunk: (length, D), its first action for this step; wanted exactly when `wants_chunk`.

        Raises:
            DataError: a chunk is missing, was not wanted, or has another shape.
        """
        if (chunk is not None) != self.wants_chunk:
            raise DataError("a chunk is missing" if chunk is None else "the last chunk is not used up")
        if chunk is None:
            return self._left.popleft()
        actions = np.asarray(chunk, dtype=np.float32)
        if actions.ndim != 2 or len(actions) != self._length:
            raise DataError(f"a chunk is ({self._length}, D) actions, got {actions.shape}")
        if self._decay is None:
            self._left.extend(actions[: self._every])
            return self._left.popleft()
        self._recent.append(actions)
        # The oldest chunk speaks of this step in its last places, the newest in its first.
        said = np.stack([one[len(self._recent) - 1 - k] for k, one in enumerate(self._recent)])
        weights = np.exp(-self._decay * np.arange(len(said)))
        mean: NDArray[np.float32] = (weights @ said / weights.sum()).astype(np.float32)
        return mean
