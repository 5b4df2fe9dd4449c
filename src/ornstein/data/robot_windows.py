"""Robot data as training windows: a few consecutive frames with what the expert did at each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.data.joined_datasets import shares
from ornstein.data.lerobot_format import TARGET_HEADING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.data.joined_datasets import JoinedDatasets
    from ornstein.data.lerobot import LeRobotDataset


@dataclass(frozen=True)
class Windows:
    """B windows of T frames.

    pictures: uint8 (B, T, H, W, 3). states: float32 (B, T, S). actions: float32 (B, T, A). pointers: float32 (B, T, 2, 2), see
    `LeRobotDataset.pointers`; headings: float32 (B, T, 2).
    tasks: the B instructions.
    """

    pictures: NDArray[np.uint8]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    pointers: NDArray[np.float32]
    headings: NDArray[np.float32]
    tasks: Sequence[str]


class RobotWindows:
    """Windows drawn uniformly over all their possible places in all episodes, or in the data set that weights have chosen; window i is a function
    of (seed, i)."""

    def __init__(
        self,
        data: LeRobotDataset | JoinedDatasets,
        camera: str,
        length: int,
        cache: Path,
        *,
        seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """
        Args:
            length: frames a window. cache: folder for the decoded pictures, named by the data's fingerprint.
            weights: how often each of joined data sets is drawn from, in any unit; by their windows unless given.

        Raises:
            DataError: the data lack pointers, an episode is shorter than a window, or weights do not fit.
        """
        if data.pointers is None:
            raise DataError(
                f"{data.folder} lacks observation.target_pixel or observation.goal_pixel: record it with `ornstein data generate`"
            )
        short = [episode.index for episode in data.episodes if episode.stop - episode.start < length]
        if short:
            raise DataError(f"episode {short[0]} of {data.folder} is shorter than a window of {length} frames")
        self._data, self._length, self._seed = data, length, seed
        self._pointers, self._headings = data.pointers, data.column(TARGET_HEADING)
        starts = [np.arange(episode.start, episode.stop - length + 1) for episode in data.episodes]
        self._starts = np.concatenate(starts)
        self._episode_of = np.concatenate([np.full(len(part), k) for k, part in enumerate(starts)])
        self._edges: NDArray[np.float64] | None = None
        if weights is not None:
            begins = np.array(getattr(data, "starts", [0]))
            #: Of each data set's windows, the first; and the end of the last.
            self._parts = np.append(np.searchsorted(self._starts, begins), len(self._starts))
            self._edges = np.cumsum(shares(np.diff(self._parts).tolist(), weights))[:-1]
        self._pictures = _decoded(data, camera, cache)

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """Every frame's, (N, H, W, 3), on disk."""
        return self._pictures

    def rows(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """The frames' numbers in the data set of the windows of these numbers, (B, T), and their instructions."""
        places = [self._place(np.random.default_rng([self._seed, i, 13])) for i in indices.tolist()]
        tasks = [self._data.episodes[self._episode_of[place]].task for place in places]
        return self._starts[places][:, None] + np.arange(self._length), tasks

    def _place(self, rng: np.random.Generator) -> int:
        if self._edges is None:
            return int(rng.integers(len(self._starts)))
        part = int(np.searchsorted(self._edges, rng.random(), side="right"))
        return int(rng.integers(self._parts[part], self._parts[part + 1]))

    def at(self, indices: NDArray[np.int64]) -> Windows:
        """The windows of these numbers."""
        rows, tasks = self.rows(indices)
        return Windows(
            pictures=np.asarray(self._pictures[rows]),
            states=self._data.states[rows],
            actions=self._data.actions[rows],
            pointers=self._pointers[rows],
            headings=self._headings[rows],
            tasks=tasks,
        )


def _decoded(data: LeRobotDataset | JoinedDatasets, camera: str, cache: Path) -> NDArray[np.uint8]:
    """All pictures as one array on disk: decoding is sequential, training reads at random."""
    path = cache / f"{camera}-{data.fingerprint}.npy"
    # Named by the process: several of one training may decode side by side, and the last to finish replaces equal bytes.
    partial = path.with_suffix(f".partial-{os.getpid()}")
    try:
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            try:
                _write_pictures(partial, data, camera)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot use the picture cache {path}: {reason}; delete it and start again") from error


def _write_pictures(path: Path, data: LeRobotDataset | JoinedDatasets, camera: str) -> None:
    array = None
    for k, picture in enumerate(track(data.frames(camera), len(data), "decoding pictures")):
        if array is None:
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(data), *picture.shape))
        array[k] = picture
    if array is None:
        raise DataError(f"{data.folder} has no pictures of camera {camera!r}")
    array.flush()
