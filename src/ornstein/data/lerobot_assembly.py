"""Joining episodes into the files of a LeRobotDataset v3, one at a time: memory does not grow with the data set."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ornstein.core.errors import DataError
from ornstein.core.statistics import NormalizationStatistics
from ornstein.data import lerobot_format as v3
from ornstein.data.lerobot_statistics import Moments, PixelCounts, quantiles
from ornstein.data.lerobot_video import VideoJoin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.data.lerobot_episode import Layout
    from ornstein.data.lerobot_staging import StagedEpisode

_EPISODES_PER_ROW_GROUP = 100
_MB = 1024**2


@dataclass
class _Place:
    """Which file comes next: a new one begins where the limit would be passed."""

    limit_mb: int
    chunk: int = 0
    file: int = 0
    filled: int = 0

    def take(self, size: int, *, new_file: bool = False) -> tuple[int, int]:
        """(chunk, file) for so many more bytes."""
        if self.filled and (new_file or self.filled + size >= self.limit_mb * _MB):
            self.file, self.filled = self.file + 1, 0
            if self.file == v3.FILES_PER_CHUNK:
                self.chunk, self.file = self.chunk + 1, 0
        self.filled += size
        return self.chunk, self.file


class _Parquet:
    """A table that spreads over files."""

    def __init__(self, folder: Path, template: str, schema: pa.Schema) -> None:
        self._folder, self._template, self._schema = folder, template, schema
        self._open: tuple[tuple[int, int], pq.ParquetWriter] | None = None

    def write(self, place: tuple[int, int], table: pa.Table) -> None:
        if self._open is None or self._open[0] != place:
            self.close()
            path = self._folder / v3.file_path(self._template, *place)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open = place, pq.ParquetWriter(path, self._schema, compression="snappy", use_dictionary=True)
        self._open[1].write_table(table)  # one row group, so that an episode can be read alone

    def close(self) -> None:
        if self._open is not None:
            writer, self._open = self._open[1], None
            writer.close()


class Assembly:
    """The data set as it grows: `append` episodes, then `finish`; `close` in any case."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout, self._features = folder, layout, layout.features
        (folder / "meta").mkdir(parents=True)
        self._data = _Parquet(folder, v3.DATA_PATH, layout.schema)
        self._rows = _Parquet(folder, v3.EPISODES_PATH, v3.episodes_schema(self._features))
        self._places = {"data": _Place(layout.data_file_mb), "rows": _Place(layout.data_file_mb)}
        self._videos: dict[str, tuple[tuple[int, int], VideoJoin]] = {}
        self._waiting: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._moments: dict[str, Moments] = {}
        self._pixels: dict[str, PixelCounts] = {}
        self._episodes = self._frames = 0

    def append(self, episode: StagedEpisode) -> None:
        """Add an episode at the end.

        Raises:
            DataError: its files do not read or disagree about its length. OSError: writing failed.
        """
        table = self._table(episode)
        place = self._places["data"].take(episode.data.stat().st_size)
        self._data.write(place, table)
        row: dict[str, Any] = {
            "episode_index": self._episodes,
            "tasks": [episode.instruction],
            "length": episode.length,
            "data/chunk_index": place[0],
            "data/file_index": place[1],
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + episode.length,
            v3.SEED: episode.key if self._layout.seeded else -1,
        }
        for camera, key in v3.videos(self._features).items():
            row |= self._append_video(episode, camera, key)
        for camera, key in v3.cameras(self._features).items():
            row |= self._count_pixels(episode, camera, key)
        for name, feature in self._layout.numbers.items():
            values = v3.from_column(table[name], feature)
            moments = Moments.of(values)
            row |= {f"stats/{name}/{part}": value for part, value in moments.to_json(quantiles(values)).items()}
            self._moments[name] = self._moments[name].merge(moments) if name in self._moments else moments
        self._waiting.append(row)
        if len(self._waiting) == _EPISODES_PER_ROW_GROUP:
            self._write_rows()
        self._episodes += 1
        self._frames += episode.length

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write what describes the whole."""
        self._write_rows()
        self.close()
        pq.write_table(v3.tasks_table(list(self._tasks)), self._folder / v3.TASKS)
        statistics: dict[str, Any] = {}
        for key, feature in self._features.items():
            if feature.is_picture:
                statistics[key] = self._pixels[key].to_json()
            elif feature.is_numeric:
                statistics[key] = self._moments[key].to_json(quantiles(self._whole_column(key)))
        self._write_json(v3.STATISTICS, statistics)
        if self._layout.contract is not None:
            contract = replace(self._layout.contract, statistics=self._normalization())
            self._write_json(v3.CONTRACT, contract.to_json())
        self._write_json(v3.PROVENANCE, {"written_by": f"ornstein {version('ornstein')}", **provenance})
        self._write_json(v3.INFO, self._info())

    def close(self) -> None:
        """Close all files."""
        self._data.close()
        self._rows.close()
        while self._videos:
            self._videos.popitem()[1][1].close()

    def _table(self, episode: StagedEpisode) -> pa.Table:
        """Its rows with counters, in the schema of the data files."""
        length = episode.length
        frame_index = np.arange(length)
        counters = {
            "timestamp": (frame_index / self._layout.fps).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.full(length, self._episodes),
            "index": self._frames + frame_index,
            "task_index": np.full(length, self._tasks.setdefault(episode.instruction, len(self._tasks))),
        }
        try:
            table = pq.read_table(episode.data)
            arrays = [
                pa.array(counters[item.name], item.type) if item.name in counters else table[item.name].cast(item.type)
                for item in self._layout.schema
            ]
            for key, feature in self._layout.numbers.items():
                if key not in counters:
                    v3.from_column(table[key], feature)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{episode.data} does not read ({error}): delete its folder and record it again") from error
        if table.num_rows != length:
            raise DataError(f"{episode.data} has another number of rows than its {length} frames: delete its folder")
        return pa.Table.from_arrays(arrays, schema=self._layout.schema)

    def _append_video(self, episode: StagedEpisode, camera: str, key: str) -> dict[str, Any]:
        path = episode.video(camera)
        where = self._places.setdefault(key, _Place(self._layout.video_file_mb))
        # Other writers change settings between episodes; a file has one header.
        another = key in self._videos and not self._videos[key][1].fits(path)
        place = where.take(path.stat().st_size, new_file=another)
        if key not in self._videos or self._videos[key][0] != place:
            if key in self._videos:
                self._videos.pop(key)[1].close()
            target = self._folder / v3.file_path(v3.VIDEO_PATH, *place, video_key=key)
            self._videos[key] = place, VideoJoin(target, self._layout.fps)
        video = self._videos[key][1]
        first, count = video.frames, video.append(path)
        if count != episode.length:
            raise DataError(f"{path} holds {count} pictures of {episode.length} frames: delete its folder and record it again")
        return {
            f"videos/{key}/chunk_index": place[0],
            f"videos/{key}/file_index": place[1],
            f"videos/{key}/from_timestamp": first / self._layout.fps,
            f"videos/{key}/to_timestamp": video.frames / self._layout.fps,
        }

    def _count_pixels(self, episode: StagedEpisode, camera: str, key: str) -> dict[str, Any]:
        if episode.pixels is None or camera not in episode.pixels:
            raise DataError(f"{episode.folder} lacks the statistics of camera {camera!r}: delete it and record it again")
        pixels = episode.pixels[camera]
        self._pixels[key] = self._pixels[key].merge(pixels) if key in self._pixels else pixels
        return {f"stats/{key}/{part}": value for part, value in pixels.to_json().items()}

    def _write_rows(self) -> None:
        if not self._waiting:
            return
        schema = v3.episodes_schema(self._features)
        rows = [{"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, **row} for row in self._waiting]
        place = self._places["rows"].take(pa.Table.from_pylist(rows, schema).nbytes)
        rows = [{**row, "meta/episodes/chunk_index": place[0], "meta/episodes/file_index": place[1]} for row in rows]
        self._rows.write(place, pa.Table.from_pylist(rows, schema))
        self._waiting = []

    def _whole_column(self, key: str) -> NDArray[Any]:
        # Quantiles do not merge: one column at a time is read back.
        files = sorted((self._folder / "data").rglob("*.parquet"))
        return np.concatenate([v3.from_column(pq.read_table(path, columns=[key])[key], self._features[key]) for path in files])

    def _normalization(self) -> NormalizationStatistics:
        parts = {key: self._moments[key] for key in (v3.STATE, v3.ACTION) if key in self._moments}
        tables = {"mean": "mean", "std": "std", "minimum": "minimum", "maximum": "maximum"}
        return NormalizationStatistics(
            count=self._frames,
            **{
                table: {key: tuple(getattr(part, name).tolist()) for key, part in parts.items()} for table, name in tables.items()
            },
        )

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": v3.VERSION,
            "fps": self._layout.fps,
            "features": {key: feature.to_json() for key, feature in self._features.items()},
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": v3.FILES_PER_CHUNK,
            "data_files_size_in_mb": self._layout.data_file_mb,
            "video_files_size_in_mb": self._layout.video_file_mb,
            "data_path": v3.DATA_PATH,
            "video_path": v3.VIDEO_PATH if v3.videos(self._features) else None,
            "robot_type": self._layout.robot,
            "splits": {"train": f"0:{self._episodes}"},
        }

    def _write_json(self, name: str, data: Any) -> None:
        (self._folder / name).write_text(json.dumps(data, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
