"""The LeRobotDataset v3.0 layout, as written by Hugging Face's lerobot library (Apache-2.0), in our own words.

    meta/info.json                               version, frame rate, features, totals, path templates
    meta/stats.json                              statistics of each feature over the whole data set
    meta/tasks.parquet                           task (index) → task_index
    meta/episodes/chunk-000/file-000.parquet     a row an episode: length, tasks, where its data and video lie, its statistics
    data/chunk-000/file-000.parquet              a row a frame, many episodes a file
    videos/<camera>/chunk-000/file-000.mp4       the same frames, many episodes one after another

Beside it stand two files of ours that other readers ignore: `meta/ornstein_contract.json`, the embodiment contract, and
`meta/ornstein_provenance.json`, how the data came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
CONTRACT, PROVENANCE = "meta/ornstein_contract.json", "meta/ornstein_provenance.json"
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{CHUNK}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{CHUNK}.mp4"
EPISODES_PATH = f"meta/episodes/{CHUNK}.parquet"
FILES_PER_CHUNK = 1000

STATE, ACTION, TARGET_PIXEL = "observation.state", "action", "observation.target_pixel"
_COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def image_key(camera: str) -> str:
    """The feature of a camera."""
    return f"observation.images.{camera}"


def features(contract: EmbodimentContract, video_info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The `features` entry of info.json for data of that contract."""
    described: dict[str, dict[str, Any]] = {}
    for camera in contract.cameras:
        described[image_key(camera.name)] = {
            "dtype": "video",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
            "info": {"video.height": camera.height, "video.width": camera.width, **video_info},
        }
    described[STATE] = _vector([channel.name for channel in contract.state])
    described[ACTION] = _vector([channel.name for channel in contract.action])
    described[TARGET_PIXEL] = _vector(["column", "row"])
    for name in _COUNTERS:
        described[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    return described


def statistics(values: NDArray[Any], *, image: bool) -> dict[str, list[Any]]:
    """min, max, mean, std and count of one episode's feature.

    Args:
        values: (T,) or (T, D) numbers; or uint8 (T, H, W, 3) with `image`, described as channels (3, 1, 1) in [0, 1].
    """
    if image:
        flat = values.reshape(-1, 3).astype(np.float64) / 255
        shape: tuple[int, ...] = (3, 1, 1)
    else:
        flat = values.reshape(len(values), -1).astype(np.float64)
        shape = (flat.shape[1],)
    parts = {"min": flat.min(0), "max": flat.max(0), "mean": flat.mean(0), "std": flat.std(0)}
    return {**{name: part.reshape(shape).tolist() for name, part in parts.items()}, "count": [len(values)]}


def merge(parts: Iterable[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Statistics of the union, exact: the parallel formula of Chan et al. 1979 for mean and variance."""
    stacked = list(parts)
    count = np.array([part["count"][0] for part in stacked], dtype=np.float64)
    mean, std, low, high = (np.array([part[name] for part in stacked]) for name in ("mean", "std", "min", "max"))
    weight = (count / count.sum()).reshape(-1, *[1] * (mean.ndim - 1))
    total = (weight * mean).sum(0)
    variance = (weight * (std**2 + (mean - total) ** 2)).sum(0)
    return {
        "min": low.min(0).tolist(),
        "max": high.max(0).tolist(),
        "mean": total.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(count.sum())],
    }


def _vector(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": names}
