"""Robot data straight from disk: moments drawn at random from one or several data sets, a little of the past and of the future around each.

Only what a batch needs is read and decoded, and no more than the numbers of a million frames are kept, so memory does not grow with the data. Sample i of a seed is the same whoever asks, in whatever batch:
the data set is drawn by weight, the frame uniformly among all of its own.

    pictures, states    the last H frames up to now; before the episode's first frame that one is repeated
    actions             the next C from now on; after the episode's last that one is repeated

and masks say which are real.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ornstein.core.checks import require_at_least
from ornstein.core.errors import DataError
from ornstein.data.joined_datasets import require_one_body, shares
from ornstein.data.lerobot_format import ACTION, STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.data.lerobot_reader import LeRobotDataset


@dataclass(frozen=True)
class StreamBatch:
    """B moments.

    pictures: by camera uint8 (B, H, height, width, 3). states: float32 (B, H, S). seen: bool (B, H), whether that past is real.
    actions: float32 (B, C, A). planned: bool (B, C), whether that future is real. tasks: the B instructions. sources, episodes, frames:
    (B,) data set, episode and frame within it.
    """

    pictures: dict[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    seen: NDArray[np.bool_]
    actions: NDArray[np.float32]
    planned: NDArray[np.bool_]
    tasks: list[str]
    sources: NDArray[np.int64]
    episodes: NDArray[np.int64]
    frames: NDArray[np.int64]


#: Data set and episode.
_Episode = tuple[int, int]
# Of how many frames the numbers stay in memory: 56 MB where state and action have seven each.
_KEPT_FRAMES = 1_000_000


class _Place(NamedTuple):
    source: int
    episode: int
    frame: int


class RobotStream:
    """Moments of data sets. For one thread at a time."""

    def __init__(
        self,
        data: Sequence[LeRobotDataset],
        *,
        cameras: Sequence[str],
        history: int = 1,
        chunk: int = 1,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            cameras: which are decoded. history: H, frames up to now. chunk: C, actions from now on. weights: how often each data set is
                drawn from, in any unit; by its number of frames unless given.

        Raises:
            DataError: no data, a camera that one lacks, pictures or states of unlike sizes, a number out of range. ContractError: two data
                sets are of different bodies.
        """
        require_at_least(1, history=history, chunk=chunk)
        if not data:
            raise DataError("a stream needs at least one data set")
        self._data, self._cameras = tuple(data), tuple(cameras)
        self._history, self._chunk, self._seed = history, chunk, seed
        self._edges = np.cumsum(shares([len(one) for one in self._data], weights))[:-1]
        self._starts = [np.array([episode.start for episode in one.episodes]) for one in self._data]
        self._check()
        self._kept: dict[_Episode, dict[str, NDArray[np.float32]]] = {}
        self._kept_frames = 0

    def at(self, indices: Sequence[int] | NDArray[np.int64]) -> StreamBatch:
        """The moments of these numbers.

        Raises:
            DataError: a file that they lie in is damaged.
        """
        places = [self._place(int(index)) for index in indices]
        if not places:
            raise DataError("there must be at least one moment to read")
        past = [np.clip(np.arange(p.frame - self._history + 1, p.frame + 1), 0, None) for p in places]
        lengths = [len(self._data[p.source].episodes[p.episode]) for p in places]
        future = [np.arange(p.frame, p.frame + self._chunk) for p in places]
        numbers, pictures = self._read(places, past)
        return StreamBatch(
            pictures=pictures,
            states=np.stack([numbers[p.source, p.episode][STATE][rows] for p, rows in zip(places, past, strict=True)]),
            seen=np.stack([np.arange(p.frame - self._history + 1, p.frame + 1) >= 0 for p in places]),
            actions=np.stack(
                [
                    numbers[p.source, p.episode][ACTION][np.minimum(rows, length - 1)]
                    for p, rows, length in zip(places, future, lengths, strict=True)
                ]
            ),
            planned=np.stack([rows < length for rows, length in zip(future, lengths, strict=True)]),
            tasks=[self._data[p.source].episodes[p.episode].task for p in places],
            sources=np.array([p.source for p in places]),
            episodes=np.array([p.episode for p in places]),
            frames=np.array([p.frame for p in places]),
        )

    def _place(self, index: int) -> _Place:
        rng = np.random.default_rng([self._seed, index, 23])
        source = int(np.searchsorted(self._edges, rng.random(), side="right"))
        row = int(rng.integers(len(self._data[source])))
        episode = int(np.searchsorted(self._starts[source], row, side="right")) - 1
        return _Place(source, episode, row - int(self._starts[source][episode]))

    def _read(
        self, places: Sequence[_Place], past: Sequence[NDArray[np.int64]]
    ) -> tuple[dict[_Episode, dict[str, NDArray[np.float32]]], dict[str, NDArray[np.uint8]]]:
        """States and actions of the episodes that the places lie in, and the places' pictures by camera.

        Episode by episode as they lie on disk, which saves seeking; a table is read once and let go before the next. Numbers are small and kept for
        the next batch, up to a limit; pictures never.
        """
        numbers: dict[_Episode, dict[str, NDArray[np.float32]]] = {}
        found: dict[str, list[Any]] = {camera: [None] * len(places) for camera in self._cameras}
        # Sorted by episode, then by frame.
        for key, group in groupby(sorted(range(len(places)), key=lambda k: places[k]), key=lambda k: places[k][:2]):
            data, episode = self._data[key[0]], key[1]
            stored = [name for name in map(data.cameras.get, self._cameras) if name and name not in data.episodes[episode].videos]
            unknown = [] if key in self._kept else [STATE, ACTION]
            table = data.rows(episode, [*unknown, *stored]) if unknown or stored else None
            numbers[key] = data.numbers(episode, unknown, table=table) if unknown else self._kept[key]
            for k in group:
                first, count = int(past[k][0]), int(past[k][-1] - past[k][0]) + 1
                for camera in self._cameras:
                    found[camera][k] = data.pictures(episode, camera, first, count, table=table)[past[k] - first]
        self._keep(numbers)
        return numbers, {camera: np.stack(pictures) for camera, pictures in found.items()}

    def _keep(self, numbers: dict[_Episode, dict[str, NDArray[np.float32]]]) -> None:
        """Those used last stay longest."""
        for key, columns in numbers.items():
            if self._kept.pop(key, None) is None:
                self._kept_frames += len(self._data[key[0]].episodes[key[1]])
            self._kept[key] = columns
        while self._kept_frames > _KEPT_FRAMES:
            source, episode = next(iter(self._kept))
            del self._kept[source, episode]
            self._kept_frames -= len(self._data[source].episodes[episode])

    def _check(self) -> None:
        require_one_body(self._data)
        first = self._data[0]
        for one in self._data:
            missing = [camera for camera in self._cameras if camera not in one.cameras]
            if missing:
                raise DataError(f"{one.folder} has no camera {missing[0]!r}; it has {sorted(one.cameras)}")
            keys = [STATE, ACTION, *(first.cameras[camera] for camera in self._cameras)]
            for key in keys:
                mine, theirs = one.features.get(key), first.features.get(key)
                if mine is None or theirs is None or mine.shape != theirs.shape:
                    raise DataError(
                        f"{key} is {None if mine is None else mine.shape} in {one.folder} and"
                        f" {None if theirs is None else theirs.shape} in {first.folder}: they cannot be mixed"
                    )
