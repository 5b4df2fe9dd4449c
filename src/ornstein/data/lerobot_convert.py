"""Older and damaged data sets made whole: LeRobotDataset v2.0 and v2.1 become v3.0, and any of them loses its bad episodes on request.

Rows pass as they are stored, whatever their type; videos are copied packet by packet. Every number is read and every picture decoded on
the way: what does not read, is not finite or disagrees about its length stops the conversion or, with `skip_bad`, is left out and counted.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.data import lerobot_format as v3
from ornstein.data.lerobot_episode import Layout, not_finite
from ornstein.data.lerobot_reader import LeRobotDataset
from ornstein.data.lerobot_staging import stage_files, write_failed
from ornstein.data.lerobot_statistics import PixelCounts
from ornstein.data.lerobot_video import VideoEncoding, VideoReader, cut, encode, from_png
from ornstein.data.lerobot_writer import DatasetJoin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_EPISODES, _TASKS = "meta/episodes.jsonl", "meta/tasks.jsonl"


@dataclass(frozen=True)
class Converted:
    """What came of it. left_out: episodes of the source, and why."""

    folder: Path
    episodes: int
    frames: int
    left_out: tuple[tuple[int, str], ...]


class _Episode(Protocol):
    """An episode of a source: its length and sentence, its stored rows, and where its pictures are."""

    @property
    def length(self) -> int: ...
    @property
    def instruction(self) -> str: ...
    @property
    def alone(self) -> bool:
        """Whether its videos hold nothing else."""
        ...

    def rows(self) -> pa.Table: ...
    def video(self, key: str) -> tuple[Path, int]:
        """The file, and the number of the first frame in it."""
        ...


@dataclass(frozen=True)
class _Source:
    """layout: of the new files. keys: of the episodes in their order. provenance: what is known about the data."""

    layout: Layout
    keys: tuple[int, ...]
    episodes: tuple[_Episode, ...]
    provenance: dict[str, Any]


def convert_dataset(source: Path, out: Path, *, skip_bad: bool = False) -> Converted:
    """Write the data set in `source` as a LeRobotDataset v3.0 into `out`, with statistics computed anew.

    If it is interrupted, the same call goes on where it stopped. An embodiment contract is kept where there is one.

    Args:
        skip_bad: leave out episodes that are damaged.

    Raises:
        DataError: `source` is no LeRobotDataset v2.0, v2.1 or v3.0, `out` exists or cannot be written, or an episode is damaged: says
            which, in which file, and what is wrong.
    """
    source, out = Path(source), Path(out)
    opened = _open(source)
    encoded = _cameras_to_encode(opened)
    features = {
        key: replace(feature, info=_info(feature, opened.layout.fps)) if key in encoded else feature
        for key, feature in opened.layout.features.items()
    }
    layout = replace(opened.layout, features=features)
    said = (source / v3.INFO).read_bytes()
    job = {"source": str(source.absolute()), "info": hashlib.sha256(said).hexdigest(), "skip_bad": skip_bad}
    left_out: list[tuple[int, str]] = []
    with DatasetJoin(out, layout, job=job) as join:
        staged = join.staged()
        pairs = list(zip(opened.keys, opened.episodes, strict=True))
        for number, (key, episode) in enumerate(track(pairs, len(pairs), "converting episodes")):
            if key in staged:
                continue
            try:
                _stage(join.folder, key, episode, layout, encoded)
            except DataError as error:
                if not skip_bad:
                    raise DataError(f"episode {number} of {source}: {error}; --skip-bad leaves such episodes out") from error
                write_failed(join.folder, key, episode.length, str(error))
        kept = {episode.key: episode for episode in join.staged_episodes()}
        left_out = [(n, kept[key].reason) for n, key in enumerate(opened.keys) if not kept[key].kept]
        origin = {"converted_from": source.name, "left_out": [list(pair) for pair in left_out]}
        join.finish([key for key in opened.keys if kept[key].kept], provenance={**opened.provenance, **origin})
    made = LeRobotDataset(out)
    return Converted(out, len(made.episodes), len(made), tuple(left_out))


def _open(source: Path) -> _Source:
    if not source.is_dir():
        raise DataError(f"there is no folder {source}")
    path = source / v3.INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
    except FileNotFoundError:
        raise DataError(f"{source} is no LeRobotDataset: it lacks {v3.INFO}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if version == v3.VERSION:
        return _open_v3(source)
    if version in ("v2.0", "v2.1"):
        return _open_v2(source, info)
    raise DataError(f"{source} is a LeRobotDataset {version!r}; v2.0, v2.1 and v3.0 are what is read here")


# --- v2: a file an episode -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FileEpisode:
    length: int
    instruction: str
    data: Path
    videos: Mapping[str, Path]
    problem: str = ""
    alone: bool = True

    def rows(self) -> pa.Table:
        if self.problem:
            raise DataError(self.problem)
        try:
            return pq.ParquetFile(self.data).read()
        except FileNotFoundError:
            raise DataError(f"{self.data} is missing") from None
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.data} is damaged or cut short: {' '.join(str(error).split())}") from error

    def video(self, key: str) -> tuple[Path, int]:
        return self.videos[key], 0


def _open_v2(source: Path, info: dict[str, Any]) -> _Source:
    features = v3.read_features(info, source)
    fps, chunk = info.get("fps"), info.get("chunks_size", v3.FILES_PER_CHUNK)
    if not isinstance(fps, int) or fps < 1 or not isinstance(chunk, int) or chunk < 1:
        raise DataError(f"{source / v3.INFO}: fps is {fps!r} and chunks_size {chunk!r}; whole numbers from 1 on are needed")
    tasks = {line.get("task_index"): str(line.get("task", "")) for line in _lines(source / _TASKS)}
    rows = _lines(source / _EPISODES)
    if all(isinstance(row.get("episode_index"), int) for row in rows):
        rows.sort(key=lambda row: int(row["episode_index"]))
    if [row.get("episode_index") for row in rows] != list(range(len(rows))) or len(rows) != info.get("total_episodes", len(rows)):
        raise DataError(
            f"{source / _EPISODES} lists {len(rows)} episodes, not numbers 0 … {info.get('total_episodes', len(rows)) - 1} of {v3.INFO}"
        )
    episodes = tuple(_v2_episode(source, info, row, chunk, v3.videos(features), set(tasks.values())) for row in rows)
    layout = Layout(features, _schema(episodes, features), fps, info.get("robot_type"), seeded=False)
    return _Source(layout, tuple(range(len(episodes))), episodes, {})


def _v2_episode(
    source: Path, info: dict[str, Any], row: dict[str, Any], chunk: int, cameras: Mapping[str, str], tasks: set[str]
) -> _FileEpisode:
    k = int(row["episode_index"])
    said, length = row.get("tasks"), row.get("length")
    problem = ""
    if not isinstance(said, list) or len(said) != 1 or not set(map(str, said)) <= tasks:
        problem, said = f"{_EPISODES} gives it the sentences {said!r}; one of {_TASKS} is needed", [""]
    if not isinstance(length, int) or length < 1:
        problem, length = f"{_EPISODES} gives it a length of {length!r}", 1

    def place(template: Any, key: str = "") -> Path:
        try:
            name = str(template).format(episode_chunk=k // chunk, episode_index=k, video_key=key)
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"the path template {template!r} of {v3.INFO} cannot be filled in: {error}") from error
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"the path template {template!r} of {v3.INFO} leads out of the data set's folder")
        return source / name

    videos = {key: place(info.get("video_path"), key) for key in cameras.values()}
    return _FileEpisode(length, str(said[0]), place(info.get("data_path")), videos, problem)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: this is no whole LeRobotDataset v2") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return rows


# --- v3: episodes within larger files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PartEpisode:
    length: int
    instruction: str
    data: LeRobotDataset
    index: int
    alone: bool = False

    def rows(self) -> pa.Table:
        return self.data.rows(self.index, [key for key, kind in self.data.features.items() if kind.dtype != "video"])

    def video(self, key: str) -> tuple[Path, int]:
        path, first = self.data.episodes[self.index].videos[key]
        return self.data.folder / path, first


def _open_v3(source: Path) -> _Source:
    data = LeRobotDataset(source, check_files=False)
    episodes = tuple(_PartEpisode(len(row), row.task, data, row.index) for row in data.episodes)
    seeds = tuple(-1 if row.seed is None else row.seed for row in data.episodes)
    seeded = min(seeds, default=-1) >= 0 and len(set(seeds)) == len(seeds)
    robot = data.info.get("robot_type")
    layout = Layout(data.features, _schema(episodes, data.features), data.fps, robot, data.contract, seeded=seeded)
    return _Source(layout, seeds if seeded else tuple(range(len(episodes))), episodes, data.provenance)


# --- both -----------------------------------------------------------------------------------------------------------------


def _schema(episodes: tuple[_Episode, ...], features: Mapping[str, v3.Feature]) -> pa.Schema:
    """Of the first episode that reads: types pass as they are, with what the `datasets` library says about them."""
    problem: DataError | None = None
    for episode in episodes:
        try:
            stored = episode.rows().schema
            described = {b"huggingface": stored.metadata[b"huggingface"]} if b"huggingface" in (stored.metadata or {}) else None
            return pa.schema([stored.field(key) for key, kind in features.items() if kind.dtype != "video"], described)
        except (DataError, KeyError) as error:
            problem = error if isinstance(error, DataError) else DataError(f"the data lack the column {error}")
    raise DataError(f"no episode reads; the first: {problem}") if problem else DataError("there are no episodes")


def _cameras_to_encode(opened: _Source) -> frozenset[str]:
    """Videos whose packets cannot be copied, by the first episode that says."""
    encoded = set()
    for key in v3.videos(opened.layout.features).values():
        for episode in opened.episodes:
            try:
                path, first = episode.video(key)
                if cut(path, first, episode.length, opened.layout.fps) is None:
                    encoded.add(key)
                break
            except DataError:
                continue
    return frozenset(encoded)


def _info(feature: v3.Feature, fps: int) -> dict[str, Any]:
    return VideoEncoding().info(feature.shape[0], feature.shape[1], fps)


def _stage(folder: Path, key: int, episode: _Episode, layout: Layout, encoded: frozenset[str]) -> None:
    """Check one episode and put it beside the others."""
    table = episode.rows()
    if table.num_rows != episode.length:
        raise DataError(f"it has {table.num_rows} rows and should have {episode.length}")
    _check_rows(table, layout)
    stored = [key for key in layout.schema.names if key not in v3.INDEX_FEATURES]
    try:
        table = pa.Table.from_arrays(
            [table[name].cast(layout.schema.field(name).type) for name in stored],
            schema=pa.schema([layout.schema.field(name) for name in stored]),
        )
    except pa.ArrowException as error:
        raise DataError(f"its columns are not those of other episodes: {error}") from error
    videos: dict[str, bytes] = {}
    pixels = {}
    for camera, name in v3.cameras(layout.features).items():
        if layout.features[name].dtype == "image":
            pixels[camera] = PixelCounts.of(_stills(table, name, layout.features[name].shape))
            continue
        path, first = episode.video(name)
        pictures = _decoded(path, first, episode, layout.features[name].shape, layout.fps)
        pixels[camera] = PixelCounts.of(pictures)
        packets = None if name in encoded else cut(path, first, episode.length, layout.fps)
        if packets is None and name not in encoded:
            raise DataError(f"{path}: its packets are stored otherwise than those of other episodes")
        videos[camera] = encode(pictures, layout.fps, VideoEncoding()) if packets is None else packets
    stage_files(folder, key, episode.instruction, table, videos, pixels)


def _check_rows(table: pa.Table, layout: Layout) -> None:
    for key, feature in layout.numbers.items():
        try:
            values = v3.from_column(table[key], feature)
        except (KeyError, ValueError) as error:
            raise DataError(f"{key!r}: {error}") from error
        bad = not_finite(values)
        if bad is not None:
            raise DataError(f"{key!r}: {bad}")
        if key == "frame_index" and not np.array_equal(values, np.arange(len(values))):
            raise DataError("its frames are not numbered 0, 1, 2, …")
        if key == "timestamp" and (np.abs(values - np.arange(len(values)) / layout.fps) > 0.5 / layout.fps).any():
            raise DataError(f"its timestamps are not those of {layout.fps} frames a second")


def _decoded(path: Path, first: int, episode: _Episode, shape: tuple[int, ...], fps: int) -> NDArray[np.uint8]:
    video = VideoReader(path, fps)
    try:
        if (video.height, video.width) != shape[:2]:
            raise DataError(f"{path} has pictures of {video.height} × {video.width} pixels, {v3.INFO} says {shape}")
        if episode.alone and video.frames > episode.length:
            raise DataError(f"{path} holds {video.frames} frames, its episode has {episode.length}")
        return video.read(first, episode.length)
    finally:
        video.close()


def _stills(table: pa.Table, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        pictures = [from_png(one["bytes"] or b"") for one in table[name].to_pylist()]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{name!r}: {error}") from error
    wrong = next((picture.shape for picture in pictures if picture.shape != shape), None)
    if wrong is not None:
        raise DataError(f"{name!r} holds a picture of shape {wrong}, {v3.INFO} says {shape}")
    return np.stack(pictures)
