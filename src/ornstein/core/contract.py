"""The embodiment contract: what a policy, a dataset and an environment each say about the body they are made for.

It is compared whenever two of them meet (training, evaluation, serving). Most silent failures of robot policies are a
swapped camera, another frame, another gripper sign or another control rate: each is a field here, and a difference is
an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ornstein.core.errors import ContractError, DataError
from ornstein.core.statistics import NormalizationStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_COLOR_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class Camera:
    """A named camera: uint8 pictures of `height` × `width` pixels with channels in `color` order ("RGB" or "BGR")."""

    name: str
    height: int
    width: int
    color: str = "RGB"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ContractError(f"camera {self.name!r} is {self.height} × {self.width} pixels; both must be at least 1")
        if self.color not in _COLOR_ORDERS:
            raise ContractError(f"camera {self.name!r} has colour order {self.color!r}, expected one of {_COLOR_ORDERS}")


@dataclass(frozen=True)
class Channel:
    """One number of a state or action: its name, unit ("m", "rad", "1") and bounds, low < high."""

    name: str
    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        # Through JSON and numpy alike a bound is a Python float: fingerprints must not see 1 and 1.0 as different.
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ContractError(f"channel {self.name!r} is bounded by [{self.low}, {self.high}]; finite low < high is needed")


@dataclass(frozen=True)
class EmbodimentContract:
    """Everything that must agree for an action to mean the same thing on both sides.

    Args:
        robot: name of the body.
        cameras, state, action: in the order in which arrays hold them.
        action_frame: for instance "delta, base frame".
        rotation: for instance "extrinsic xyz Euler, radians".
        gripper: for instance "0 open … 1 closed".
        control_hz: actions a second.
        chunk_length: actions predicted at once.
        statistics: of the data a policy was trained on; an environment has none.
    """

    robot: str
    cameras: tuple[Camera, ...]
    state: tuple[Channel, ...]
    action: tuple[Channel, ...]
    action_frame: str
    rotation: str
    gripper: str
    control_hz: float
    chunk_length: int
    statistics: NormalizationStatistics | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "control_hz", float(self.control_hz))
        if not (math.isfinite(self.control_hz) and self.control_hz > 0):
            raise ContractError(f"the control rate must be a positive number of Hz, got {self.control_hz}")
        if self.chunk_length < 1:
            raise ContractError(f"the chunk length must be at least 1 action, got {self.chunk_length}")
        for group in ("cameras", "state", "action"):
            names = [item.name for item in getattr(self, group)]
            if len(set(names)) < len(names):
                raise ContractError(f"{group} repeat a name: {', '.join(names)}")

    @property
    def action_low(self) -> NDArray[np.float64]:
        """Lower bounds (A,) in the channels' units."""
        return np.array([channel.low for channel in self.action], np.float64)

    @property
    def action_high(self) -> NDArray[np.float64]:
        """Upper bounds (A,) in the channels' units."""
        return np.array([channel.high for channel in self.action], np.float64)

    def seeing(self, cameras: Sequence[str]) -> EmbodimentContract:
        """The same body with these of its cameras, in this order.

        Raises:
            ContractError: it has no such camera.
        """
        by_name = {camera.name: camera for camera in self.cameras}
        missing = [name for name in cameras if name not in by_name]
        if missing:
            raise ContractError(f"{self.robot} has the cameras {', '.join(by_name) or 'none'}, not {', '.join(missing)}")
        return replace(self, cameras=tuple(by_name[name] for name in cameras))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the embodiment. Statistics are left out: they describe data and have their own."""
        body = {key: value for key, value in self.to_json().items() if key != "statistics"}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: EmbodimentContract) -> list[str]:
        """One line a differing field, `field: mine != theirs`; empty where they match. Floats are compared exactly.

        Statistics are compared, by fingerprint, only where both sides have them.
        """
        mine, theirs = self._described(), other._described()
        return [f"{key}: {mine[key]} != {theirs[key]}" for key in mine if key in theirs and mine[key] != theirs[key]]

    def require_match(self, other: EmbodimentContract, mine: str, theirs: str) -> None:
        """Refuse a mismatch.

        Args:
            mine, theirs: what the two sides are, for the message: "the policy", "the environment".

        Raises:
            ContractError: lists every differing field.
        """
        differences = self.differences(other)
        if differences:
            raise ContractError(f"{mine} does not fit {theirs}: {'; '.join(differences)}")

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["statistics"] = None if self.statistics is None else self.statistics.to_json()
        return {key: [*value] if isinstance(value, tuple) else value for key, value in data.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EmbodimentContract:
        """The inverse of `to_json`, exactly and strictly.

        Raises:
            ContractError: a key is missing or unknown, or a value is impossible.
        """
        _require_keys("an embodiment contract", data, {field.name for field in fields(cls)})
        statistics = data["statistics"]
        try:
            return cls(
                **{key: data[key] for key in ("robot", "action_frame", "rotation", "gripper", "control_hz", "chunk_length")},
                cameras=tuple(_strictly(Camera, item) for item in data["cameras"]),
                state=tuple(_strictly(Channel, item) for item in data["state"]),
                action=tuple(_strictly(Channel, item) for item in data["action"]),
                statistics=None if statistics is None else NormalizationStatistics.from_json(statistics),
            )
        except (TypeError, ValueError, DataError) as error:
            raise ContractError(f"an embodiment contract does not read: {error}") from error

    def _described(self) -> dict[str, object]:
        """Field name for a reader → value. A channel or camera that one side lacks shows in the line of names alone."""
        data: dict[str, object] = {"robot": self.robot}
        for group, items in (("cameras", self.cameras), ("state", self.state), ("action", self.action)):
            data[group] = ", ".join(item.name for item in items)
            for item in items:
                for key, value in asdict(item).items():
                    data[f"{group}.{item.name}.{key}"] = value
        for key in ("action_frame", "rotation", "gripper", "control_hz", "chunk_length"):
            data[key] = getattr(self, key)
        if self.statistics is not None:
            data["statistics"] = self.statistics.fingerprint
        return data


_Part = TypeVar("_Part", Camera, Channel)


def _strictly(cls: type[_Part], data: Mapping[str, Any]) -> _Part:
    _require_keys(f"a {cls.__name__.lower()}", data, {field.name for field in fields(cls)})
    return cls(**data)


def _require_keys(what: str, data: Mapping[str, Any], expected: set[str]) -> None:
    missing, unknown = sorted(expected - set(data)), sorted(set(data) - expected)
    if missing or unknown:
        raise ContractError(f"{what} lacks the keys {missing} and has the unknown keys {unknown}")
