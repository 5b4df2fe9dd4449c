"""Reading a LeRobotDataset v3: strict where a mistake would train a wrong policy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.contract import EmbodimentContract
from ornstein.core.errors import ContractError, DataError
from ornstein.data import lerobot_format as v3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeRow:
    """Where an episode lies: its frames are rows start … stop − 1 of the data set."""

    index: int
    start: int
    stop: int
    task: str
    seed: int


class LeRobotDataset:
    """A data set on disk: numbers in memory, pictures decoded when asked for."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            DataError: it is not a whole LeRobotDataset v3.0; says which file, episode or feature.
        """
        self.folder = Path(folder)
        self.info = self._json(v3.INFO)
        if self.info.get("codebase_version") != v3.VERSION:
            raise DataError(
                f"{self.folder} is a LeRobotDataset {self.info.get('codebase_version')!r}, this reader takes {v3.VERSION}"
            )
        self.contract = self._contract()
        rows = self._table_rows()
        self.episodes = self._episode_rows(rows)
        self._placement = rows
        data = self._data()
        self.states, self.actions = data[v3.STATE], data[v3.ACTION]
        self.target_pixels = data.get(v3.TARGET_PIXEL)
        self._check()

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all files but the provenance."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name != Path(v3.PROVENANCE).name:
                digest.update(str(path.relative_to(self.folder)).encode())
                digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    @property
    def provenance(self) -> dict[str, Any]:
        """How the data came about; empty where another program wrote them."""
        return self._json(v3.PROVENANCE) if (self.folder / v3.PROVENANCE).exists() else {}

    def frames(self, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Every picture of a camera in the data set's order, uint8 (H, W, 3).

        Raises:
            DataError: no such camera, or a video is damaged or holds another number of frames than the episodes say.
        """
        import av

        key = v3.image_key(camera)
        if key not in self.info["features"]:
            raise DataError(f"{self.folder} has no camera {camera!r}; its features are {sorted(self.info['features'])}")
        for path, expected in self._video_files(key).items():
            count = 0
            try:
                with av.open(str(path)) as container:
                    for frame in container.decode(video=0):
                        count += 1
                        yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
            except (av.FFmpegError, OSError) as error:
                raise DataError(f"the video {path} cannot be decoded after frame {count}: {error}") from error
            if count != expected:
                raise DataError(f"the video {path} holds {count} frames, its episodes have {expected}")

    def _video_files(self, key: str) -> dict[Path, int]:
        counts: dict[Path, int] = {}
        for row in self._placement:
            path = self.folder / self.info["video_path"].format(
                video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
            )
            counts[path] = counts.get(path, 0) + int(row["length"])
        return counts

    def _json(self, name: str) -> Any:
        path = self.folder / name
        if not path.is_file():
            raise DataError(f"{self.folder} is not a LeRobotDataset v3: it lacks {name}")
        try:
            return json.loads(path.read_text(encoding="utf8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}") from error

    def _contract(self) -> EmbodimentContract | None:
        if not (self.folder / v3.CONTRACT).exists():
            return None
        try:
            return EmbodimentContract.from_json(self._json(v3.CONTRACT))
        except ContractError as error:
            raise DataError(f"{self.folder / v3.CONTRACT} does not read: {error}") from error

    def _read(self, path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.is_file():
            raise DataError(f"{self.folder} lacks {path.relative_to(self.folder)}")
        try:
            return pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged or cut short: {error}") from error

    def _table_rows(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "meta" / "episodes").rglob("*.parquet"))
        if not files:
            raise DataError(f"{self.folder} lacks meta/episodes")
        rows = [row for path in files for row in self._read(path).to_pylist()]
        rows.sort(key=lambda row: row["episode_index"])
        return rows

    def _episode_rows(self, rows: list[dict[str, Any]]) -> list[EpisodeRow]:
        episodes = [
            EpisodeRow(
                row["episode_index"],
                row["dataset_from_index"],
                row["dataset_to_index"],
                row["tasks"][0],
                row.get("ornstein/seed", -1),
            )
            for row in rows
        ]
        expected = 0
        for k, episode in enumerate(episodes):
            if episode.index != k or episode.start != expected or episode.stop - episode.start != rows[k]["length"]:
                raise DataError(
                    f"episode {k} of {self.folder} is listed wrongly: {episode}, expected to start at frame {expected}"
                )
            expected = episode.stop
        if len(episodes) != self.info["total_episodes"] or expected != self.info["total_frames"]:
            raise DataError(
                f"{self.folder} lists {len(episodes)} episodes and {expected} frames, its info.json says"
                f" {self.info['total_episodes']} and {self.info['total_frames']}"
            )
        return episodes

    def _data(self) -> dict[str, NDArray[Any]]:
        files = dict.fromkeys(
            self.folder / self.info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
            for row in self._placement
        )
        tables = [self._read(path) for path in files]
        columns = {}
        for name, feature in self.info["features"].items():
            if feature["dtype"] == "video":
                continue
            missing = [path for path, table in zip(files, tables, strict=True) if name not in table.column_names]
            if missing:
                raise DataError(f"{missing[0]} lacks the feature {name!r} that info.json promises")
            parts = [np.array(table[name].to_pylist()) for table in tables]
            columns[name] = np.concatenate(parts).astype(feature["dtype"])
        return columns

    def _check(self) -> None:
        frames = self.info["total_frames"]
        for name, values in (("action", self.actions), ("observation.state", self.states)):
            if len(values) != frames:
                raise DataError(f"{self.folder} has {len(values)} rows of {name}, its info.json says {frames}")
            bad = ~np.isfinite(values).all(axis=1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                episode = next(e for e in self.episodes if e.start <= row < e.stop)
                raise DataError(
                    f"{name} is not finite at frame {row - episode.start} of episode {episode.index} in {self.folder}"
                )
        contract = self.contract
        if contract is not None and (self.actions.shape[1], self.states.shape[1]) != (len(contract.action), len(contract.state)):
            raise DataError(f"{self.folder} has actions {self.actions.shape[1:]}, its contract {len(contract.action)}")


def inspect_dataset(folder: Path) -> dict[str, Any]:
    """What a data set holds, for people and scripts."""
    data = LeRobotDataset(folder)
    size = sum(path.stat().st_size for path in data.folder.rglob("*") if path.is_file())
    return {
        "folder": str(folder),
        "episodes": len(data.episodes),
        "frames": len(data),
        "fps": data.info["fps"],
        "robot": data.info.get("robot_type"),
        "tasks": len({episode.task for episode in data.episodes}),
        "features": {name: feature["shape"] for name, feature in data.info["features"].items()},
        "contract": data.contract.fingerprint if data.contract is not None else None,
        "megabytes": round(size / 1e6, 2),
        "fingerprint": data.fingerprint,
    }


def validate_dataset(folder: Path) -> None:
    """Open a data set and decode all of it.

    Raises:
        DataError: what does not hold, with file, episode and frame.
    """
    data = LeRobotDataset(folder)
    for name, feature in data.info["features"].items():
        if feature["dtype"] == "video":
            for number, picture in enumerate(data.frames(name.removeprefix("observation.images."))):
                if list(picture.shape) != feature["shape"]:
                    raise DataError(f"frame {number} of {name} is {picture.shape}, its feature says {feature['shape']}")
