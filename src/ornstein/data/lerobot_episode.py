"""One demonstration in memory, and what all demonstrations of a data set have in common."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data.lerobot_format import (
    ACTION,
    CAMERA_PREFIX,
    DATA_FILE_MB,
    INDEX_FEATURES,
    STATE,
    VIDEO_FILE_MB,
    Feature,
    data_schema,
)
from ornstein.data.lerobot_video import VideoEncoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract

# Actions are float32, the contract's bounds float64.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class RobotEpisode:
    """One demonstration of T frames; frame t is what was seen before action t.

    instruction: the sentence. frames: camera name → uint8 (T, height, width, 3), RGB.
    columns: feature name → (T, n); of features of shape (1,) they are read as (T,), and may be either when written.
        "observation.state" and "action" are float32.
    """

    instruction: str
    frames: dict[str, NDArray[np.uint8]]
    columns: dict[str, NDArray[Any]]

    @property
    def states(self) -> NDArray[np.float32]:
        """(T, S), in the contract's units."""
        return self.columns[STATE].reshape(len(self), -1)

    @property
    def actions(self) -> NDArray[np.float32]:
        """(T, A), in the contract's units."""
        return self.columns[ACTION].reshape(len(self), -1)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Layout:
    """What the files of a data set look like.

    features: all, counters included. schema: of the data files. fps: frames a second. robot: what it says of itself.
    contract: None where nobody knows it. data_file_mb, video_file_mb: sizes at which the next file begins. seeded: whether an episode's
    key is the seed of its scene.
    """

    features: Mapping[str, Feature]
    schema: pa.Schema
    fps: int
    robot: str | None
    contract: EmbodimentContract | None = None
    data_file_mb: int = DATA_FILE_MB
    video_file_mb: int = VIDEO_FILE_MB
    seeded: bool = True

    @property
    def numbers(self) -> dict[str, Feature]:
        """Columns of numbers: what has moments and quantiles."""
        return {key: feature for key, feature in self.features.items() if feature.is_numeric}

    def to_json(self) -> dict[str, Any]:
        """What two interrupted runs must share to be one."""
        return {
            "features": {key: feature.to_json() for key, feature in self.features.items()},
            "fps": self.fps,
            "robot": self.robot,
            "contract": None if self.contract is None else self.contract.fingerprint,
            "data_file_mb": self.data_file_mb,
            "video_file_mb": self.video_file_mb,
        }


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set of demonstrations will hold.

    contract: cameras, state and action; its control rate is the frame rate and must be a whole number of Hz.
    extra: further columns of numbers, by name. encoding: of the videos; None keeps every picture as a PNG in the tables, exact and
    about ten times as large.
    data_file_mb, video_file_mb: sizes at which the next file begins.

    Raises:
        DataError: a rate that the format cannot say, or a column that is no list of numbers or takes a name that is in use.
    """

    contract: EmbodimentContract
    extra: Mapping[str, Feature] = field(default_factory=dict)
    encoding: VideoEncoding | None = field(default_factory=VideoEncoding)
    data_file_mb: int = DATA_FILE_MB
    video_file_mb: int = VIDEO_FILE_MB

    def __post_init__(self) -> None:
        if not self.contract.action:
            raise DataError("a data set of demonstrations needs a contract with actions")
        if not self.contract.control_hz.is_integer():
            raise DataError(
                f"a LeRobotDataset has a whole number of frames a second, the contract says {self.contract.control_hz}"
            )
        for key, feature in self.extra.items():
            taken = key in (STATE, ACTION, "task") or key in INDEX_FEATURES or key.startswith(CAMERA_PREFIX)
            if taken or "/" in key or not feature.is_numeric:
                raise DataError(f"{key!r} ({feature.dtype} {feature.shape}) cannot be a further column: it needs a name of its own"
                                " without '/' and numbers of shape (n,)")  # fmt: skip

    @property
    def fps(self) -> int:
        """Frames a second."""
        return int(self.contract.control_hz)

    @property
    def columns(self) -> dict[str, Feature]:
        """The numbers that a recorder hands over for each frame."""
        state, action = self.contract.state, self.contract.action
        vectors = {STATE: [channel.name for channel in state], ACTION: [channel.name for channel in action]}
        return {**{key: Feature("float32", (len(names),), names) for key, names in vectors.items() if names}, **self.extra}

    @property
    def features(self) -> dict[str, Feature]:
        """All features in the order of the files: cameras, numbers, counters."""
        pictures = {
            CAMERA_PREFIX + camera.name: Feature(
                "image" if self.encoding is None else "video",
                (camera.height, camera.width, 3),
                ["height", "width", "channels"],
                None if self.encoding is None else self.encoding.info(camera.height, camera.width, self.fps),
            )
            for camera in self.contract.cameras
        }
        return {**pictures, **self.columns, **INDEX_FEATURES}

    @property
    def stored(self) -> dict[str, Feature]:
        """Features that have a column in the tables and are handed over: all but videos and counters."""
        return {key: kind for key, kind in self.features.items() if kind.dtype != "video" and key not in INDEX_FEATURES}

    @property
    def layout(self) -> Layout:
        """What its files look like."""
        features = self.features
        body = self.contract
        return Layout(features, data_schema(features), self.fps, body.robot, body, self.data_file_mb, self.video_file_mb)

    def to_json(self) -> dict[str, Any]:
        """What two recordings must share to be one data set."""
        return {**self.layout.to_json(), "encoding": "png" if self.encoding is None else asdict(self.encoding)}

    def check(self, episode: RobotEpisode, what: str) -> None:
        """Refuse an episode that does not fit.

        Args:
            what: its name for the message.

        Raises:
            DataError: no frames or no sentence, a column or camera is missing, of another shape or type, not finite, or an
                action is out of the contract's bounds.
        """
        if not episode.instruction.strip():
            raise DataError(f"{what} has no instruction")
        if set(episode.columns) != set(self.columns) or not len(episode):
            raise DataError(
                f"{what} has {list(episode.columns)} over {len(episode)} frames, expected {list(self.columns)} over ≥ 1"
            )
        for key, feature in self.columns.items():
            _check_column(what, key, feature, episode.columns[key], len(episode))
        if set(episode.frames) != {camera.name for camera in self.contract.cameras}:
            raise DataError(f"{what} has cameras {sorted(episode.frames)}, expected {[c.name for c in self.contract.cameras]}")
        for camera in self.contract.cameras:
            pictures, shape = episode.frames[camera.name], (len(episode), camera.height, camera.width, 3)
            if pictures.dtype != np.uint8 or pictures.shape != shape:
                raise DataError(f"{what}: camera {camera.name!r} has {pictures.dtype} {pictures.shape}, expected uint8 {shape}")
        outside = out_of_bounds(self.contract, episode.actions)
        if outside is not None:
            raise DataError(f"{what}: {outside}")


def out_of_bounds(contract: EmbodimentContract, actions: NDArray[np.float32]) -> str | None:
    """Where the first action (T, A) lies outside the contract's bounds; None where none does."""
    bad = (actions < contract.action_low - _ROUNDING) | (actions > contract.action_high + _ROUNDING)
    if not bad.any():
        return None
    frame, dimension = np.argwhere(bad)[0]
    channel, count = contract.action[dimension], int(bad.sum())
    value = f"{actions[frame, dimension]:.6g} {channel.unit}"
    return f"{count} numbers of 'action' are out of bounds, the first at frame {frame}: {channel.name} is {value}, not within [{channel.low}, {channel.high}]"


def not_finite(values: NDArray[Any]) -> str | None:
    """Where the first number (T,) or (T, n) that is not finite stands; None where all are."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    bad = np.argwhere(~np.isfinite(values))
    place = f"frame {bad[0][0]}" + (f", dimension {bad[0][1]}" if values.ndim > 1 else "")
    return f"{len(bad)} numbers are not finite, the first at {place}"


def _check_column(what: str, key: str, feature: Feature, values: NDArray[Any], length: int) -> None:
    shape = (length, *feature.shape)
    alone = feature.shape == (1,) and values.shape == (length,)
    if not (alone or values.shape == shape) or values.dtype != feature.dtype:
        raise DataError(f"{what}: {key!r} is {values.dtype} {values.shape}, expected {feature.dtype} {shape}")
    bad = not_finite(values)
    if bad is not None:
        raise DataError(f"{what}: {key!r}: {bad}")
