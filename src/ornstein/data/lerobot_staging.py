"""Episodes on their way into a data set: each one whole on disk, or not there.

    <out>.incomplete/
        job.json                     what is being recorded; going on with anything else is refused
        episodes/00000012/           one episode by its key (the seed of its scene), renamed into place when it is complete
            data.parquet  <camera>.mp4  episode.json

Whoever dies when, nothing is lost but the episode in hand, nothing is there twice, and no reader takes the folder for a data
set. Several processes may write episodes; one process owns the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import pyarrow.parquet as pq

from ornstein.core.errors import DataError
from ornstein.data.lerobot_format import CAMERA_PREFIX, data_schema, to_table
from ornstein.data.lerobot_statistics import PixelCounts
from ornstein.data.lerobot_video import as_png, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from ornstein.data.lerobot_episode import DatasetSpec, RobotEpisode

_FORMAT = "ornstein-unfinished-dataset"
_JOB, _EPISODES, _ABOUT, _DATA, _LOCK = "job.json", "episodes", "episode.json", "data.parquet", "lock"


def staging_folder(out: Path) -> Path:
    """Where the episodes of a data set wait until it is complete."""
    return out.with_name(f"{out.name}.incomplete")


def is_staging_folder(folder: Path) -> bool:
    """Whether a folder is such a place."""
    return (folder / _JOB).is_file() and (folder / _EPISODES).is_dir()


def cannot_write(what: Path, error: OSError) -> DataError:
    """The error for a full disk, a missing permission and the like."""
    reason = os.strerror(error.errno) if error.errno else str(error)  # arrow and libav word it in their own ways
    return DataError(f"cannot write {what}: {reason}; mend that and run the same again: it goes on from there")


@dataclass(frozen=True)
class StagedEpisode:
    """An episode on disk. kept: it belongs into the data set; a failed demonstration does not, and has no files. reason: why not."""

    key: int
    folder: Path
    kept: bool
    length: int
    instruction: str = ""
    pixels: Mapping[str, PixelCounts] | None = None
    reason: str = ""

    @property
    def data(self) -> Path:
        """Its columns of numbers."""
        return self.folder / _DATA

    def video(self, camera: str) -> Path:
        """Its pictures."""
        return self.folder / f"{camera}.mp4"


class Staging:
    """The folder, owned by this process until `close`."""

    def __init__(self, out: Path, spec: Mapping[str, Any], job: Mapping[str, Any]) -> None:
        """
        Args:
            spec: JSON, what the data set will hold. job: JSON; whatever else must be the same for an interrupted recording to go on.

        Raises:
            DataError: `out` exists, cannot be written, another process is at it, or another job was interrupted there.
        """
        self.out, self.folder = out, staging_folder(out)
        if out.exists():
            raise DataError(f"{out} exists already: choose another folder, or delete it first")
        about = json.loads(json.dumps({"format": _FORMAT, "version": 1, "spec": dict(spec), "job": dict(job)}))
        try:
            (self.folder / _EPISODES).mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            self._claim(about)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def episodes(self) -> Iterator[StagedEpisode]:
        """What is there, by rising key. An episode whose files are not as they were written is removed."""
        for folder in sorted((self.folder / _EPISODES).iterdir()):
            episode = read_staged(folder)
            if episode is None:  # also what a process that died in the middle left under a hidden name
                shutil.rmtree(folder, ignore_errors=True)
            else:
                yield episode

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.close()

    def remove(self) -> None:
        """Delete the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _locked(self) -> TextIO:
        file = (self.folder / _LOCK).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with the process, however that ends
        except BlockingIOError as error:
            file.close()
            raise DataError(f"another process is writing {self.out}: let it finish, or stop it first") from error
        return file

    def _claim(self, about: dict[str, Any]) -> None:
        path = self.folder / _JOB
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            os.rename(partial, path)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged: delete {self.folder} and begin again") from error
        differences = list(_differences(before, about, ""))
        if differences:
            raise DataError(
                f"{self.folder} holds an interrupted recording with other settings ({'; '.join(differences)}): repeat it with"
                f" its own settings to go on, or delete the folder to begin again"
            )


def write_staged(staging: Path, key: int, spec: DatasetSpec, episode: RobotEpisode) -> None:
    """Put an episode there; if the key is taken already, nothing happens.

    Raises:
        DataError: the episode does not fit the data set, or it cannot be written.
    """
    spec.check(episode, f"episode {key}")
    pixels = {camera: PixelCounts.of(pictures) for camera, pictures in episode.frames.items()}
    columns: dict[str, Any] = dict(episode.columns)
    videos: dict[str, bytes] = {}
    for camera, pictures in episode.frames.items():
        if spec.encoding is None:
            columns[CAMERA_PREFIX + camera] = [as_png(picture) for picture in pictures]
        else:
            videos[camera] = encode(pictures, spec.fps, spec.encoding)
    table = to_table(data_schema(spec.stored), columns)
    stage_files(staging, key, episode.instruction, table, videos, pixels)


def stage_files(
    staging: Path,
    key: int,
    instruction: str,
    table: pa.Table,
    videos: Mapping[str, bytes],
    pixels: Mapping[str, PixelCounts],
) -> None:
    """Put an episode there that is encoded already; if the key is taken, nothing happens.

    Args:
        table: its rows, without counters. videos: of each camera, the content of an MP4. pixels: of each camera.

    Raises:
        DataError: it cannot be written.
    """
    about = {
        "kept": True,
        "length": table.num_rows,
        "instruction": instruction,
        "pixels": {camera: counted.counts.tolist() for camera, counted in pixels.items()},
    }

    def fill(folder: Path) -> None:
        pq.write_table(table, folder / _DATA)
        for camera, content in videos.items():
            (folder / f"{camera}.mp4").write_bytes(content)

    _put(staging, key, about, fill)


def write_failed(staging: Path, key: int, length: int, reason: str = "") -> None:
    """Note that the demonstration under that key failed, or is damaged, and is left out."""
    _put(staging, key, {"kept": False, "length": length, "reason": reason}, lambda folder: None)


def read_staged(folder: Path) -> StagedEpisode | None:
    """The episode in a folder; None where its files are not as they were written."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if any((folder / name).stat().st_size != size for name, size in about["bytes"].items()):
            return None
        pixels = {
            camera: PixelCounts(about["length"], np.array(counts, np.int64)) for camera, counts in about.get("pixels", {}).items()
        }
        return StagedEpisode(
            int(folder.name),
            folder,
            about["kept"],
            about["length"],
            about.get("instruction", ""),
            pixels,
            about.get("reason", ""),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _put(staging: Path, key: int, about: dict[str, Any], fill: Any) -> None:
    """Write an episode's folder under another name, then rename it: it is there as a whole or not at all."""
    place = staging / _EPISODES / f"{key:08d}"
    # Not by the process's number: of machines that share a disk, two may have the same.
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir()
        fill(partial)
        about["bytes"] = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        (partial / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        if not place.exists():
            try:
                os.rename(partial, place)
            except OSError:
                if not place.exists():  # else another machine was asked for the same, and was faster
                    raise
    except OSError as error:
        raise cannot_write(place, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(set(before) | set(now)):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif before != now:
        yield f"{where}: {before!r} before, {now!r} now"
