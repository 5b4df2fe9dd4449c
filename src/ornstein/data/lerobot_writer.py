"""Writing a LeRobotDataset v3, episode by episode; the folder appears once it is whole."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data import lerobot_format as v3

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract

EPISODES_PER_FILE = 1000
# Nearly lossless, and no colour subsampling: a drawing on a block is fourteen pixels wide (docs/lab-notes.md has the figures).
CODEC, PIXEL_FORMAT, QUALITY, KEYFRAME_EVERY = "libx264", "yuv444p", "14", 2


class LeRobotWriter:
    """Use as a context: `add` episodes; leaving it finishes the data set, or removes everything if an error is under way."""

    def __init__(self, out: Path, contract: EmbodimentContract, provenance: Mapping[str, Any]) -> None:
        """
        Args:
            out: the new folder. contract: cameras, state and action of what will be added.

        Raises:
            DataError: the folder exists, or cannot be created.
        """
        self.out, self.contract, self.provenance = Path(out), contract, dict(provenance)
        if self.out.exists():
            raise DataError(f"{self.out} exists already: choose another folder, or delete it first")
        self._folder = self.out.parent / f".{self.out.name}.tmp-{os.getpid()}"
        self._episodes: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._frames = 0
        self._file = -1
        self._rows: list[dict[str, Any]] = []
        self._videos: dict[str, _Video] = {}
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            (self._folder / "meta").mkdir(parents=True)
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise self._failed(failure) from failure
        finally:
            for video in self._videos.values():
                video.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(
        self,
        frames: Mapping[str, NDArray[np.uint8]],
        states: NDArray[np.float32],
        actions: NDArray[np.float32],
        target_pixels: NDArray[np.float32],
        task: str,
        seed: int,
    ) -> None:
        """Append one episode of T steps.

        Args:
            frames: camera → uint8 (T, H, W, 3). states: (T, S). actions: (T, A). target_pixels: (T, 2) in [−1, 1].
            task: the instruction. seed: of its scene.

        Raises:
            DataError: shapes that do not fit the contract, a number that is not finite, an empty episode, or a full disk.
        """
        number = len(self._episodes)
        self._check(number, frames, states, actions, target_pixels)
        try:
            if number % EPISODES_PER_FILE == 0:
                self._next_file()
            self._add(number, frames, states, actions, target_pixels, task, seed)
        except OSError as error:
            raise self._failed(error) from error

    def _add(
        self,
        number: int,
        frames: Mapping[str, NDArray[np.uint8]],
        states: NDArray[np.float32],
        actions: NDArray[np.float32],
        target_pixels: NDArray[np.float32],
        task: str,
        seed: int,
    ) -> None:
        length = len(actions)
        place = {"chunk_index": self._file // v3.FILES_PER_CHUNK, "file_index": self._file % v3.FILES_PER_CHUNK}
        columns: dict[str, NDArray[Any]] = {
            v3.STATE: states.astype(np.float32),
            v3.ACTION: actions.astype(np.float32),
            v3.TARGET_PIXEL: target_pixels.astype(np.float32),
            "timestamp": (np.arange(length) / self.contract.control_hz).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "index": np.arange(self._frames, self._frames + length),
            "task_index": np.full(length, self._tasks.setdefault(task, len(self._tasks))),
        }
        row: dict[str, Any] = {"episode_index": number, "tasks": [task], "length": length, "ornstein/seed": seed}
        row |= {f"data/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        for camera, pictures in frames.items():
            key = v3.image_key(camera)
            first = self._videos[camera].add(pictures)
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row[f"videos/{key}/from_timestamp"] = first / self.contract.control_hz
            row[f"videos/{key}/to_timestamp"] = (first + length) / self.contract.control_hz
            row |= {f"stats/{key}/{name}": value for name, value in v3.statistics(pictures, image=True).items()}
        for name, values in columns.items():
            row |= {f"stats/{name}/{part}": value for part, value in v3.statistics(values, image=False).items()}
        self._rows.append(columns)
        self._episodes.append(row)
        self._frames += length

    def _check(
        self,
        number: int,
        frames: Mapping[str, NDArray[np.uint8]],
        states: NDArray[np.float32],
        actions: NDArray[np.float32],
        target_pixels: NDArray[np.float32],
    ) -> None:
        length = len(actions)
        if length == 0:
            raise DataError(f"episode {number} is empty")
        wanted = {"action": (actions, (length, len(self.contract.action))), "state": (states, (length, len(self.contract.state)))}
        wanted["target_pixel"] = (target_pixels, (length, 2))
        for name, (values, shape) in wanted.items():
            if values.shape != shape:
                raise DataError(f"episode {number}: {name} must be {shape}, got {values.shape}")
            if not np.isfinite(values).all():
                raise DataError(f"episode {number}: {name} holds a number that is not finite at frame {_first_bad(values)}")
        if set(frames) != {camera.name for camera in self.contract.cameras}:
            raise DataError(
                f"episode {number} has cameras {sorted(frames)}, the contract {[c.name for c in self.contract.cameras]}"
            )
        for camera in self.contract.cameras:
            pictures = frames[camera.name]
            if pictures.shape != (length, camera.height, camera.width, 3) or pictures.dtype != np.uint8:
                raise DataError(
                    f"episode {number}: camera {camera.name!r} must give uint8 {(length, camera.height, camera.width, 3)},"
                    f" got {pictures.dtype} {pictures.shape}"
                )

    def _next_file(self) -> None:
        self._close_file()
        self._file += 1
        for camera in self.contract.cameras:
            path = self._folder / v3.VIDEO_PATH.format(
                video_key=v3.image_key(camera.name),
                chunk_index=self._file // v3.FILES_PER_CHUNK,
                file_index=self._file % v3.FILES_PER_CHUNK,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            self._videos[camera.name] = _Video(path, camera.height, camera.width, self.contract.control_hz)

    def _close_file(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for video in self._videos.values():
            video.close()
        if not self._rows:
            return
        arrays = {}
        for name in self._rows[0]:
            values = np.concatenate([row[name] for row in self._rows])
            arrays[name] = (
                pa.array(values) if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1])
            )
        path = self._folder / v3.DATA_PATH.format(
            chunk_index=self._file // v3.FILES_PER_CHUNK, file_index=self._file % v3.FILES_PER_CHUNK
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(arrays), path)
        self._rows = []

    def _finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._episodes:
            raise DataError("a data set needs at least one episode")
        self._close_file()
        episodes = self._folder / v3.EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        tasks = pa.table({"task_index": pa.array(list(self._tasks.values())), "task": pa.array(list(self._tasks))})
        # pandas, with which the format is read elsewhere, finds the index column by this note.
        index = {"index_columns": ["task"], "columns": [], "column_indexes": [], "pandas_version": "2.0.0"}
        pq.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(index)}), self._folder / v3.TASKS)
        video_info = {
            "video.codec": "h264",
            "video.pix_fmt": PIXEL_FORMAT,
            "video.fps": int(self.contract.control_hz),
            "video.channels": 3,
            "is_depth_map": False,
            "has_audio": False,
        }
        described = v3.features(self.contract, video_info)
        info = {
            "codebase_version": v3.VERSION,
            "robot_type": self.contract.robot,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": v3.FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self.contract.control_hz),
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": v3.DATA_PATH,
            "video_path": v3.VIDEO_PATH,
            "features": described,
        }
        parts = ("min", "max", "mean", "std", "count")
        stats = {
            key: v3.merge({part: row[f"stats/{key}/{part}"] for part in parts} for row in self._episodes) for key in described
        }
        for name, content in (
            (v3.STATS, stats),
            (v3.CONTRACT, self.contract.to_json()),
            (v3.PROVENANCE, self.provenance),
            (v3.INFO, info),
        ):
            (self._folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")
        self._folder.rename(self.out)

    def _failed(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write the data set {self.out}: {(error.strerror or str(error)).lower()}; nothing of it was kept"
        )


class _Video:
    """One MP4 file that episodes are appended to."""

    def __init__(self, path: Path, height: int, width: int, rate: float) -> None:
        import av

        self._av = av
        self._container = av.open(str(path), "w")
        self._rate = Fraction(rate).limit_denominator(1000)
        stream: Any = self._container.add_stream(CODEC, rate=self._rate)
        self._stream = stream
        stream.height, stream.width, stream.pix_fmt = height, width, PIXEL_FORMAT
        stream.options = {"crf": QUALITY, "g": str(KEYFRAME_EVERY), "preset": "fast", "threads": "1"}
        self._count = 0
        self._open = True

    def add(self, pictures: NDArray[np.uint8]) -> int:
        """Append frames; returns the number of the first one in this file."""
        first = self._count
        for picture in pictures:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = self._count
            frame.time_base = 1 / self._rate
            self._count += 1
            self._container.mux(self._stream.encode(frame))
        return first

    def close(self) -> None:
        if self._open:
            self._open = False
            self._container.mux(self._stream.encode(None))
            self._container.close()


def _first_bad(values: NDArray[np.float32]) -> int:
    return int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
