"""Reading a LeRobotDataset v3: strict where a mistake would train a wrong policy.

Opening checks what the files say about themselves (counts, places, columns, row counts). Numbers and pictures are checked
when they are read: an episode at a time, or a column at a time. Nothing else is kept in memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ornstein.core.contract import EmbodimentContract
from ornstein.core.errors import ContractError, DataError
from ornstein.data import lerobot_format as v3
from ornstein.data.lerobot_episode import RobotEpisode, not_finite
from ornstein.data.lerobot_staging import is_staging_folder, staging_folder
from ornstein.data.lerobot_video import VideoReader, from_png

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeRow:
    """Where an episode lies: its frames are rows start … stop − 1 of the data set.

    task: its sentence (the first, where another program gave it several). seed: of its scene; −1 where nobody said.
    data: its file. videos: feature → (file, number of its first frame in that file).
    """

    index: int
    start: int
    stop: int
    task: str
    seed: int
    data: str
    videos: dict[str, tuple[str, int]]

    def __len__(self) -> int:
        return self.stop - self.start


class LeRobotDataset:
    """A data set on disk. For one thread at a time.

    Attributes:
        folder, info (meta/info.json), features, fps, episodes.
        tasks: the sentences, by task_index. contract: None where another program wrote the data.
    """

    def __init__(self, folder: Path, *, check_files: bool = True) -> None:
        """
        Args:
            check_files: look for every file first; else what is missing or cut short shows when an episode is read.

        Raises:
            DataError: it is not a whole LeRobotDataset v3.0; says which file, episode or feature.
        """
        self.folder = Path(folder)
        self._refuse_unfinished()
        self.info: dict[str, Any] = v3.read_info(self._json(v3.INFO), self.folder)
        self.features = v3.read_features(self.info, self.folder)
        self.fps: int = self.info["fps"]
        self.cameras = v3.cameras(self.features)
        self.contract = self._contract()
        self.tasks = self._tasks()
        self.episodes = self._episodes()
        self._first_row: dict[str, int] = {}
        self._frames_in: dict[str, int] = {}
        self._videos: dict[str, VideoReader] = {}
        self._parquet: tuple[str, pq.ParquetFile, NDArray[np.int64]] | None = None
        for episode in self.episodes:
            self._first_row.setdefault(episode.data, episode.start)
            for path in (episode.data, *(path for path, _ in episode.videos.values())):
                self._frames_in[path] = self._frames_in.get(path, 0) + len(episode)
        if check_files:
            self._check_files()

    def __len__(self) -> int:
        """Frames."""
        return int(self.info["total_frames"])

    def __iter__(self) -> Iterator[RobotEpisode]:
        """The episodes in their order: the fastest way through all of it."""
        return (self.episode(index) for index in range(len(self.episodes)))

    def episode(self, index: int, *, cameras: Sequence[str] | None = None) -> RobotEpisode:
        """One episode.

        Args:
            cameras: decode only these; all unless given.

        Raises:
            DataError: there is none of that number or no such camera, or its rows or pictures are damaged.
        """
        if not 0 <= index < len(self.episodes):
            raise DataError(f"{self.folder} has episodes 0 … {len(self.episodes) - 1}, got {index}")
        row = self.episodes[index]
        columns = self._columns(index, [key for key in self.features if key not in v3.INDEX_FEATURES] + ["index"])
        if not np.array_equal(columns.pop("index"), np.arange(row.start, row.stop)):
            raise DataError(f"{self.folder / row.data}: the rows of episode {index} are not frames {row.start} … {row.stop - 1}")
        names = self.cameras if cameras is None else cameras
        frames = {name: self.pictures(index, name, 0, len(row)) for name in names}
        return RobotEpisode(row.task, frames, columns)

    def numbers(self, index: int, names: Sequence[str], *, table: pa.Table | None = None) -> dict[str, NDArray[Any]]:
        """Columns of numbers of an episode by name, (T, n) or (T,); out of `table`, what `rows` gave, where they were read already.

        Raises:
            DataError: no such episode or column, or it is damaged or not finite.
        """
        if not 0 <= index < len(self.episodes):
            raise DataError(f"{self.folder} has episodes 0 … {len(self.episodes) - 1}, got {index}")
        missing = [name for name in names if name not in self.features or not self.features[name].is_numeric]
        if missing:
            known = sorted(key for key, feature in self.features.items() if feature.is_numeric)
            raise DataError(f"{self.folder} has no column of numbers {missing[0]!r}; it has {known}")
        return self._columns(index, list(names), table)

    def pictures(self, index: int, camera: str, start: int, count: int, *, table: pa.Table | None = None) -> NDArray[np.uint8]:
        """Frames start … start + count − 1 of an episode, uint8 (count, H, W, 3), RGB: no others are kept.

        Args:
            table: what `rows` gave for the episode, where pictures lie in tables and the camera's column was read already.

        Raises:
            DataError: no such episode, camera or frame, or the video is damaged.
        """
        if not 0 <= index < len(self.episodes):
            raise DataError(f"{self.folder} has episodes 0 … {len(self.episodes) - 1}, got {index}")
        row = self.episodes[index]
        if start < 0 or count < 1 or start + count > len(row):
            raise DataError(f"episode {index} of {self.folder} has frames 0 … {len(row) - 1}, got {start} … {start + count - 1}")
        key = self._camera(camera)
        if key in row.videos:
            return self._video(row, key).read(row.videos[key][1] + start, count)
        stored = (self.rows(index, [key]) if table is None else table)[key].slice(start, count)
        try:
            decoded = [from_png(picture["bytes"] or b"") for picture in stored.to_pylist()]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.folder / row.data}: {key!r} in episode {index}: {error}") from error
        shape = self.features[key].shape
        wrong = next((picture.shape for picture in decoded if picture.shape != shape), None)
        if wrong is not None:
            raise DataError(f"{self.folder / row.data}: {key!r} in episode {index} is of shape {wrong}, {v3.INFO} says {shape}")
        return np.stack(decoded)

    def counters(self, index: int) -> dict[str, NDArray[Any]]:
        """timestamp [s], frame_index, episode_index, index and task_index of an episode's frames, (T,) each."""
        return self._columns(index, list(v3.INDEX_FEATURES))

    def frames(self, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Every picture of a camera in the data set's order, uint8 (H, W, 3), RGB.

        Raises:
            DataError: no such camera, or a video is damaged or holds another number of frames than the episodes say.
        """
        for index, row in enumerate(self.episodes):
            yield from self.pictures(index, camera, 0, len(row))

    def column(self, name: str) -> NDArray[Any]:
        """A feature of all frames: (N, n), or (N,) where it has shape (1,).

        Raises:
            DataError: no such column of numbers, or it is damaged or not finite.
        """
        if name not in self.features or not self.features[name].is_numeric:
            known = sorted(key for key, feature in self.features.items() if feature.is_numeric)
            raise DataError(f"{self.folder} has no column of numbers {name!r}; it has {known}")
        parts = []
        for path in self._first_row:
            try:
                table = pq.read_table(self.folder / path, columns=[name])
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(path, error) from error
            parts.append(self._values(table[name], name, path))
        return np.concatenate(parts)

    @cached_property
    def states(self) -> NDArray[np.float32]:
        """(N, S), in the contract's units."""
        return self.column(v3.STATE).reshape(len(self), -1)

    @cached_property
    def actions(self) -> NDArray[np.float32]:
        """(N, A), in the contract's units."""
        return self.column(v3.ACTION).reshape(len(self), -1)

    @cached_property
    def pointers(self) -> NDArray[np.float32] | None:
        """(N, 2, 2): what is moved and where to, (column, row) in the front picture, [−1, 1]; None where nobody said."""
        if {v3.TARGET_PIXEL, v3.GOAL_PIXEL} - self.features.keys():
            return None
        return np.stack([self.column(v3.TARGET_PIXEL), self.column(v3.GOAL_PIXEL)], axis=1)

    @property
    def statistics(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """meta/stats.json: feature → "mean", "std", "min", "max", "count", quantiles "q01" …."""
        data = self._json(v3.STATISTICS)
        try:
            return {key: {part: np.array(value, np.float64) for part, value in parts.items()} for key, parts in data.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{self.folder / v3.STATISTICS} is damaged: {error}") from error

    @property
    def provenance(self) -> dict[str, Any]:
        """How the data came about; empty where another program wrote them."""
        return dict(self._json(v3.PROVENANCE)) if (self.folder / v3.PROVENANCE).is_file() else {}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the names and contents of all files but the manifest and the provenance."""
        digest = hashlib.sha256()
        for path in sorted(path for part in ("meta", "data", "videos") for path in (self.folder / part).rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in (v3.MANIFEST, v3.PROVENANCE):
                with path.open("rb") as file:
                    digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()[:16]

    def _refuse_unfinished(self) -> None:
        staging = self.folder if is_staging_folder(self.folder) else staging_folder(self.folder)
        if not (self.folder / v3.INFO).exists() and is_staging_folder(staging):
            raise DataError(f"{staging} is an unfinished recording: run what was writing it again to go on")
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {self.folder}")

    def _json(self, name: str) -> Any:
        path = self.folder / name
        if not path.is_file():
            raise DataError(f"{self.folder} is not a whole LeRobotDataset v3: it lacks {name}")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}") from error

    def _contract(self) -> EmbodimentContract | None:
        if not (self.folder / v3.CONTRACT).is_file():
            return None
        try:
            contract = EmbodimentContract.from_json(self._json(v3.CONTRACT))
        except ContractError as error:
            raise DataError(f"{self.folder / v3.CONTRACT} does not read: {error}") from error
        shapes: dict[str, tuple[int, ...]] = {
            v3.CAMERA_PREFIX + camera.name: (camera.height, camera.width, 3) for camera in contract.cameras
        }
        shapes |= {v3.STATE: (len(contract.state),), v3.ACTION: (len(contract.action),)}
        for key, shape in shapes.items():
            if shape != (0,) and (key not in self.features or self.features[key].shape != shape):
                found = self.features[key].shape if key in self.features else "missing"
                raise DataError(f"{self.folder}: {key} is {found} in {v3.INFO} and {shape} in {v3.CONTRACT}")
        if contract.control_hz != self.fps:
            raise DataError(f"{self.folder}: {self.fps} frames a second in {v3.INFO}, {contract.control_hz} in {v3.CONTRACT}")
        return contract

    def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        if not (self.folder / name).is_file():
            raise DataError(f"{self.folder} is not a whole LeRobotDataset v3: it lacks {name}")
        try:
            return pq.ParquetFile(self.folder / name).read(columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: Exception) -> DataError:
        return DataError(f"{self.folder / name} is damaged or cut short: {' '.join(str(error).split())}")

    def _tasks(self) -> tuple[str, ...]:
        table = self._table(v3.TASKS)
        # Without a name for its index, pandas calls the column so.
        name = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
        if name is None or "task_index" not in table.column_names:
            raise DataError(f"{self.folder / v3.TASKS} has the columns {table.column_names}, expected task_index and task")
        tasks = dict(zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True))
        if sorted(tasks) != list(range(self.info["total_tasks"])):
            raise DataError(f"{self.folder / v3.TASKS} numbers its {table.num_rows} tasks {sorted(tasks)[:5]} …, {v3.INFO} says"
                            f" 0 … {self.info['total_tasks'] - 1}")  # fmt: skip
        return tuple(tasks[k] for k in range(len(tasks)))

    def _episodes(self) -> tuple[EpisodeRow, ...]:
        names = sorted(path.relative_to(self.folder).as_posix() for path in (self.folder / "meta/episodes").rglob("*.parquet"))
        if not names:
            raise DataError(f"{self.folder} is not a whole LeRobotDataset v3: it lacks meta/episodes")
        rows: list[dict[str, Any]] = []
        for name in names:
            try:
                columns = [c for c in pq.read_schema(self.folder / name).names if not c.startswith("stats/")]
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(name, error) from error
            rows += self._table(name, columns).to_pylist()
        try:
            episodes = [self._episode_row(row) for row in sorted(rows, key=lambda row: row["episode_index"])]
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{self.folder}: an episode in meta/episodes lacks {error}; the data set is damaged") from error
        expected = 0
        for k, (episode, row) in enumerate(zip(episodes, sorted(rows, key=lambda row: row["episode_index"]), strict=True)):
            if episode.index != k or episode.start != expected or len(episode) != row["length"] or len(episode) < 1:
                raise DataError(
                    f"{self.folder}: episode {k} is listed as number {episode.index}, frames {episode.start} … {episode.stop - 1},"
                    f" length {row['length']}; expected number {k} from frame {expected}, at least one frame long"
                )
            expected = episode.stop
        found, said = (len(episodes), expected), (self.info["total_episodes"], self.info["total_frames"])
        if found != said:
            raise DataError(
                f"{self.folder} lists {found[0]} episodes and {found[1]} frames, {v3.INFO} says {said[0]} and {said[1]}"
            )
        return tuple(episodes)

    def _episode_row(self, row: dict[str, Any]) -> EpisodeRow:
        videos = {}
        for key in v3.videos(self.features).values():
            chunk, file, start = (row[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index", "from_timestamp"))
            videos[key] = (v3.file_path(self.info["video_path"], chunk, file, key), round(start * self.fps))
        data = v3.file_path(self.info["data_path"], row["data/chunk_index"], row["data/file_index"])
        start, stop = row["dataset_from_index"], row["dataset_to_index"]
        return EpisodeRow(row["episode_index"], start, stop, row["tasks"][0], row.get(v3.SEED, -1), data, videos)

    def _check_files(self) -> None:
        """Are all files there, and do the data files hold as many rows and the columns that they should?"""
        for path, frames in self._frames_in.items():
            if not (self.folder / path).is_file():
                raise DataError(f"{self.folder} is not a whole LeRobotDataset v3: it lacks {path}")
            if path not in self._first_row:
                continue
            try:
                footer = pq.ParquetFile(self.folder / path)
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(path, error) from error
            missing = {key for key, kind in self.features.items() if kind.dtype != "video"} - set(footer.schema_arrow.names)
            if missing or footer.metadata.num_rows != frames:
                what = f"lacks the columns {sorted(missing)}" if missing else f"has {footer.metadata.num_rows} rows"
                raise DataError(f"{self.folder / path} {what}; its episodes have {frames} frames of {sorted(self.features)}")

    def _columns(self, index: int, names: list[str], table: pa.Table | None = None) -> dict[str, NDArray[Any]]:
        """Columns of an episode; those that are not numbers are left out."""
        names = [name for name in names if self.features[name].is_numeric]
        if table is None:
            table = self.rows(index, names)
        return {name: self._values(table[name], name, f"episode {index}") for name in names}

    def rows(self, index: int, names: list[str]) -> pa.Table:
        """Columns of an episode as they are stored, from the row groups that hold it.

        Raises:
            DataError: the file is damaged.
        """
        row = self.episodes[index]
        try:
            if self._parquet is None or self._parquet[0] != row.data:
                file = pq.ParquetFile(self.folder / row.data, memory_map=True)
                rows = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
                self._parquet = row.data, file, np.cumsum(rows)
            _, file, ends = self._parquet
            first = row.start - self._first_row[row.data]
            low, high = np.searchsorted(ends, (first, first + len(row) - 1), side="right")
            table = file.read_row_groups(list(range(low, high + 1)), columns=names, use_threads=False)
            return table.slice(first - (ends[low - 1] if low else 0), len(row))
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(row.data, error) from error

    def _values(self, column: pa.ChunkedArray, key: str, where: str) -> NDArray[Any]:
        try:
            values = v3.from_column(column, self.features[key])
        except ValueError as error:
            raise DataError(f"{self.folder}: {key!r} in {where}: {error}") from error
        bad = not_finite(values)
        if bad is not None:
            raise DataError(f"{self.folder}: {key!r} in {where}: {bad}")
        return values

    def _camera(self, name: str) -> str:
        if name not in self.cameras:
            raise DataError(f"{self.folder} has no camera {name!r}; it has {sorted(self.cameras)}")
        return self.cameras[name]

    def _video(self, row: EpisodeRow, key: str) -> VideoReader:
        """The open video of an episode; one a camera stays open, where the last reading ended."""
        path = self.folder / row.videos[key][0]
        if key not in self._videos or self._videos[key].path != path:
            if key in self._videos:
                self._videos.pop(key).close()
            video = VideoReader(path, self.fps)
            expected, shape = self._frames_in[row.videos[key][0]], self.features[key].shape
            if video.frames and video.frames != expected:
                raise DataError(f"{path} holds {video.frames} frames, its episodes have {expected}")
            if (video.height, video.width) != shape[:2]:
                raise DataError(f"{path} has pictures of {video.height} × {video.width} pixels, {v3.INFO} says {shape}")
            self._videos[key] = video
        return self._videos[key]
