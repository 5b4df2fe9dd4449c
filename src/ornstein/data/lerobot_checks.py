"""Looking at a data set, and checking all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.data import lerobot_format as v3
from ornstein.data.lerobot_episode import out_of_bounds
from ornstein.data.lerobot_reader import LeRobotDataset
from ornstein.data.lerobot_statistics import Moments

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 5
# Other writers keep statistics in float32 and subtract squares of means.
_STATISTICS_TOLERANCE = 1e-3


def inspect_dataset(folder: Path) -> dict[str, Any]:
    """What a data set holds, as JSON, for people and scripts. Pictures are not decoded.

    Raises:
        DataError: it does not open.
    """
    data = LeRobotDataset(Path(folder))
    lengths = [len(episode) for episode in data.episodes]
    size = sum(path.stat().st_size for path in data.folder.rglob("*") if path.is_file())
    return {
        "folder": str(folder),
        "robot": data.info.get("robot_type"),
        "episodes": len(lengths),
        "frames": len(data),
        "fps": data.fps,
        "minutes": round(len(data) / data.fps / 60, 2),
        "length": f"{min(lengths)} … {max(lengths)} frames, median {np.median(lengths):g}" if lengths else "no episodes",
        "tasks": len(data.tasks),
        "examples": list(data.tasks[:3]),
        "cameras": {name: "×".join(map(str, data.features[key].shape)) for name, key in data.cameras.items()},
        "features": {
            key: f"{kind.dtype} {list(kind.shape)}" for key, kind in data.features.items() if key not in v3.INDEX_FEATURES
        },
        "contract": data.contract.fingerprint if data.contract is not None else None,
        "failed": len(data.provenance.get("failed_seeds", [])),
        "megabytes": round(size / 1e6, 2),
        "fingerprint": data.fingerprint,
    }


def validate_dataset(folder: Path) -> None:
    """Check every file against the manifest, read every number, decode every picture, compare the statistics.

    Raises:
        DataError: all that does not hold (the first few, and how many more), with file, episode and frame.
    """
    folder = Path(folder)
    problems = list(_unlike_manifest(folder))
    if problems:
        problems.append(f"if that was done on purpose, delete {v3.MANIFEST}")
    else:
        problems = list(_problems(LeRobotDataset(folder)))
    if problems:
        shown = [*problems[:_SHOWN], f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN + 1 else problems
        raise DataError(f"{folder} is not sound: {'; '.join(shown)}")


def _unlike_manifest(folder: Path) -> Iterator[str]:
    """Files that are missing or no longer as they were written. Other programs' data sets have no manifest."""
    path = folder / v3.MANIFEST
    if not path.is_file():
        return
    try:
        manifest = {
            str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in json.loads(path.read_text()).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{v3.MANIFEST} is damaged: {error}"
        return
    for name, (size, expected) in manifest.items():
        file = folder / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != size:
            yield f"{name} has {file.stat().st_size} bytes, {size} were written"
        else:
            with file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                    yield f"{name} has changed since it was written (its sha256 differs)"


def _problems(data: LeRobotDataset) -> Iterator[str]:
    moments: dict[str, Moments] = {}
    for index in track(range(len(data.episodes)), len(data.episodes), "checking episodes"):
        try:
            episode = data.episode(index)
        except DataError as error:
            yield str(error)
            continue
        yield from _episode_problems(data, index)
        if data.contract is not None:
            outside = out_of_bounds(data.contract, episode.actions)
            if outside is not None:
                yield f"episode {index}: {outside}"
        for key, values in episode.columns.items():
            part = Moments.of(values)
            moments[key] = moments[key].merge(part) if key in moments else part
    statistics = data.statistics
    for key, part in moments.items():
        yield from _statistics_problems(key, part, statistics.get(key, {}))


def _episode_problems(data: LeRobotDataset, index: int) -> Iterator[str]:
    """What the counters of an episode should be."""
    row, length = data.episodes[index], len(data.episodes[index])
    counters = data.counters(index)
    expected = {"frame_index": np.arange(length), "episode_index": np.full(length, index)}
    for key, values in expected.items():
        if not np.array_equal(counters[key], values):
            yield f"episode {index}: {key} does not count as it should (in {row.data})"
    # A tenth of a millisecond is what lerobot tolerates between a row's time and its picture's.
    if np.abs(counters["timestamp"] - np.arange(length) / data.fps).max() > 1e-4:
        yield f"episode {index}: timestamp is not frame / {data.fps} s (in {row.data})"
    unknown = set(counters["task_index"].tolist()) - set(range(len(data.tasks)))
    if unknown:
        yield f"episode {index}: task_index {sorted(unknown)[0]} is not one of the {len(data.tasks)} tasks"
    elif row.task not in {data.tasks[k] for k in set(counters["task_index"].tolist())}:
        yield f"episode {index}: its task is {row.task!r} in meta/episodes, its frames have another"


def _statistics_problems(key: str, found: Moments, said: dict[str, Any]) -> Iterator[str]:
    values = {"mean": found.mean, "std": found.std, "min": found.minimum, "max": found.maximum}
    missing = sorted(set(values) - set(said))
    if missing:
        yield f"{v3.STATISTICS} lacks {missing} of {key!r}"
        return
    scale = np.maximum(np.abs(found.minimum), np.abs(found.maximum)) + 1e-12
    for part, value in values.items():
        if said[part].size != value.size or (np.abs(said[part].reshape(-1) - value) > _STATISTICS_TOLERANCE * scale).any():
            yield f"{v3.STATISTICS}: {part} of {key!r} is {said[part].tolist()}, the data have {np.round(value, 6).tolist()}"
