"""LeRobotDataset v3 on disk: names, features, schemas. Facts of the format live here and nowhere else.

    meta/info.json                                  version, frame rate, features, counts, path templates
    meta/stats.json                                 statistics of every feature over all frames
    meta/tasks.parquet                              task_index ↔ sentence; row k holds task k
    meta/episodes/chunk-000/file-000.parquet        a row an episode: where its frames lie, and its own statistics
    data/chunk-000/file-000.parquet                 a row a frame, a row group an episode
    videos/<key>/chunk-000/file-000.mp4             many episodes one after the other
    meta/ornstein_contract.json, …                  ours, ignored by other readers

A feature of shape (1,) is a plain column, one of shape (n,) a list of fixed size; videos have no column. Written as
lerobot 0.6 writes it (huggingface/lerobot, Apache-2.0; the layout is theirs, the code is ours).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

VERSION = "v3.0"
INFO, STATISTICS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CONTRACT, PROVENANCE, MANIFEST = "meta/ornstein_contract.json", "meta/ornstein_provenance.json", "meta/ornstein_manifest.json"

STATE, ACTION, CAMERA_PREFIX = "observation.state", "action", "observation.images."
TARGET_PIXEL = "observation.target_pixel"
GOAL_PIXEL = "observation.goal_pixel"
TARGET_HEADING = "observation.target_heading"
FILES_PER_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
# Of the episodes' table, and ours: what the episode was recorded under, the seed of its scene.
SEED = "ornstein/seed"

_CONVERT_V21 = "convert it with `ornstein data convert FOLDER --out NEW`"


@dataclass(frozen=True)
class Feature:
    """What a frame holds under one name.

    dtype: "video", "image" (PNG in the tables), or a number type of numpy. shape: of one frame; (height, width, 3) for pictures.
    names: one a dimension; other writers also use null or a dict. info: of videos, how they are encoded.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        data = asdict(self) | {"shape": list(self.shape)}
        return data if self.info is not None else {key: value for key, value in data.items() if key != "info"}

    @property
    def is_numeric(self) -> bool:
        """Whether it is a column of numbers that we read: of shape (n,) and a type that numpy has."""
        return self.dtype in _ARROW_TYPES and len(self.shape) == 1

    @property
    def is_picture(self) -> bool:
        """Whether it is what a camera sees."""
        return self.dtype in ("video", "image")


_ARROW_TYPES: dict[str, pa.DataType] = {
    "float32": pa.float32(), "float64": pa.float64(), "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(),
    "int64": pa.int64(), "uint8": pa.uint8(), "uint16": pa.uint16(), "uint32": pa.uint32(), "bool": pa.bool_(),
}  # fmt: skip

#: A picture in a table, as the `datasets` library keeps it.
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STATISTICS_PARTS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")

# Every data set has these, after its own features.
INDEX_FEATURES: dict[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


def read_info(data: Any, where: Path) -> dict[str, Any]:
    """Check the content of meta/info.json; what other writers add is let through, as lerobot does.

    Raises:
        DataError: another version of the format, or an entry is missing or impossible.
    """
    version = data.get("codebase_version") if isinstance(data, dict) else None
    if version != VERSION:
        remedy = _CONVERT_V21 if str(version).startswith("v2") else f"expected codebase_version {VERSION!r} in {INFO}"
        raise DataError(f"{where} is a LeRobotDataset {version!r}, and {VERSION!r} is what is read here: {remedy}")
    needed = {"fps": int, "total_episodes": int, "total_frames": int, "total_tasks": int, "data_path": str, "features": dict}
    for key, kind in needed.items():
        if not isinstance(data.get(key), kind) or (kind is int and data[key] < (key == "fps")):
            raise DataError(
                f"{where / INFO}: {key!r} is {data.get(key)!r}, a valid {kind.__name__} is needed; the file is damaged"
            )
    return dict(data)


def read_features(info: Mapping[str, Any], where: Path) -> dict[str, Feature]:
    """The features of a checked info.json.

    Raises:
        DataError: one lacks its type or shape, the counters are missing, or there are videos and no path to them.
    """
    try:
        features = {
            str(key): _with_channels_last(
                Feature(str(item["dtype"]), tuple(int(n) for n in item["shape"]), item.get("names"), item.get("info"))
            )
            for key, item in info["features"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where / INFO}: a feature lacks its dtype or shape ({error!r}); the file is damaged") from error
    missing = sorted(set(INDEX_FEATURES) - set(features))
    if missing:
        raise DataError(f"{where / INFO} lacks the features {missing}, which every LeRobotDataset has")
    if videos(features) and not isinstance(info.get("video_path"), str):
        raise DataError(f"{where / INFO} has the videos {sorted(videos(features))} and no video_path")
    return features


def _with_channels_last(feature: Feature) -> Feature:
    """Some writers say (3, height, width) of pictures that are stored like all others."""
    names = feature.names if isinstance(feature.names, list) else []
    if feature.is_picture and names and str(names[0]).startswith("channel"):
        return replace(feature, shape=(*feature.shape[1:], feature.shape[0]), names=[*names[1:], names[0]])
    return feature


def cameras(features: Mapping[str, Feature]) -> dict[str, str]:
    """Short name → feature of each camera: "front" → "observation.images.front"."""
    return {key.removeprefix(CAMERA_PREFIX): key for key, feature in features.items() if feature.is_picture}


def videos(features: Mapping[str, Feature]) -> dict[str, str]:
    """Those of them that are kept as videos."""
    return {name: key for name, key in cameras(features).items() if features[key].dtype == "video"}


def file_path(template: str, chunk: int, file: int, video_key: str = "") -> str:
    """The relative path that a template of info.json names.

    Raises:
        DataError: it would lie outside the data set's folder, or the template does not format.
    """
    try:
        path = template.format(chunk_index=int(chunk), file_index=int(file), video_key=video_key)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"the path template {template!r} of {INFO} cannot be filled in: {error}") from error
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise DataError(f"the path template {template!r} of {INFO} leads out of the data set's folder")
    return path


def data_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Columns of the data files, with the description that the `datasets` library keeps in their metadata."""
    described: dict[str, Any] = {}
    fields = []
    for key, feature in features.items():
        if feature.dtype == "video":
            continue
        if feature.dtype == "image":
            described[key] = {"_type": "Image"}
            fields.append(pa.field(key, IMAGE_TYPE))
            continue
        if not feature.is_numeric:
            raise DataError(f"feature {key!r} is {feature.dtype} of shape {feature.shape}; numbers of shape (n,) can be written")
        value, length = {"dtype": feature.dtype, "_type": "Value"}, feature.shape[0]
        described[key] = value if length == 1 else {"feature": value, "length": length, "_type": "List"}
        item = _ARROW_TYPES[feature.dtype]
        fields.append(pa.field(key, item if length == 1 else pa.list_(item, length)))
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})})


def to_table(schema: pa.Schema, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Columns (T, n), or (T,) where n is 1, as a table of that schema; of images, T encoded pictures."""
    arrays = []
    for item in schema:
        if item.type == IMAGE_TYPE:
            names = [f"frame-{k:06d}.png" for k in range(len(columns[item.name]))]
            parts = [pa.array(list(columns[item.name]), pa.binary()), pa.array(names, pa.string())]
            arrays.append(pa.StructArray.from_arrays(parts, fields=list(IMAGE_TYPE)))
            continue
        flat = pa.array(np.ascontiguousarray(columns[item.name]).reshape(-1))
        nested = pa.types.is_fixed_size_list(item.type)
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, item.type.list_size) if nested else flat)
    return pa.Table.from_arrays(arrays, schema=schema)


def from_column(column: pa.ChunkedArray, feature: Feature) -> NDArray[Any]:
    """The inverse for one column: (T,) where the feature has shape (1,), else (T, n).

    Raises:
        ValueError: nulls, lists of another length, or another type of number.
    """
    if column.null_count:
        raise ValueError(f"{column.null_count} values are missing")
    array = column.combine_chunks()
    length = feature.shape[0]
    nested = pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) or pa.types.is_large_list(array.type)
    values = array.flatten() if nested else array
    if values.null_count:
        raise ValueError(f"{values.null_count} values are missing")
    if len(values) != len(array) * length:
        raise ValueError(f"{len(values)} numbers for {len(array)} frames of {length}")
    if nested and set(np.unique(array.value_lengths().to_numpy(zero_copy_only=False))) - {length}:
        raise ValueError(f"lists whose length is not {length}")
    if values.type != _ARROW_TYPES[feature.dtype]:
        raise ValueError(f"numbers of type {values.type}, info.json says {feature.dtype}")
    flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return flat if length == 1 else flat.reshape(-1, length)


def episodes_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Columns of meta/episodes: a row an episode."""
    number, real = pa.int64(), pa.list_(pa.float64())
    places = ["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    fields = [
        ("episode_index", number),
        ("tasks", pa.list_(pa.string())),
        ("length", number),
        *((place, number) for place in places),
    ]
    for key in videos(features).values():
        fields += [(f"videos/{key}/{part}", number) for part in ("chunk_index", "file_index")]
        fields += [(f"videos/{key}/{part}", pa.float64()) for part in ("from_timestamp", "to_timestamp")]
    for key, feature in features.items():
        if not (feature.is_picture or feature.is_numeric):
            continue  # sentences and the like have no statistics
        kind = pa.list_(pa.list_(real)) if feature.is_picture else real
        fields += [(f"stats/{key}/{part}", pa.list_(number) if part == "count" else kind) for part in STATISTICS_PARTS]
    return pa.schema([*fields, ("meta/episodes/chunk_index", number), ("meta/episodes/file_index", number), (SEED, number)])


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """meta/tasks.parquet: a pandas frame with the sentence as its index, which is how other readers look tasks up."""
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())])
    columns = [
        {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": kind, "metadata": None}
        for name, pandas, kind in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    names = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    about = {
        "index_columns": ["task"],
        "column_indexes": [names],
        "columns": columns,
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    rows = {"task_index": list(range(len(tasks))), "task": list(tasks)}
    return pa.Table.from_pydict(rows, schema.with_metadata({"pandas": json.dumps(about)}))
