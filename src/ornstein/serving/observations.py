"""What a robot sends, as an observation that a policy believes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation

#: openpi's word for the instruction.
_PROMPT = "prompt"
#: Of strangers' words that go into an answer and into the log.
_MOST_TOLD, _LONGEST_NAME = 5, 40
_LARGEST = 1e300


def observation_of(message: Any, contract: EmbodimentContract) -> Observation:
    """An observation in our words, {"pixels": {camera: …}, "agent_pos": …, "instruction": …}, or flat as openpi's robots send it: "pixels/front", "prompt".

    Raises:
        DataError: a camera, the state or the sentence is missing, of another size or type, or not finite; or a key that nobody reads, which is often a
            camera of another name.
    """
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise DataError(f"an observation is a map with text for keys, got {type(message).__name__}")
    given = dict(message)
    pixels = given.pop("pixels", {})
    if not isinstance(pixels, dict):
        raise DataError(f"pixels are a map from camera to picture, got {type(pixels).__name__}")
    pixels = {**pixels, **{key.removeprefix("pixels/"): given.pop(key) for key in list(given) if key.startswith("pixels/")}}
    if _PROMPT in given:
        given.setdefault("instruction", given.pop(_PROMPT))
    state, instruction = given.pop("agent_pos", None), given.pop("instruction", None)
    wanted = {camera.name for camera in contract.cameras}
    strange = [
        _told(name)
        for name in sorted([*given, *(f"pixels/{name}" for name in map(str, pixels) if name not in wanted)])[:_MOST_TOLD]
    ]
    missing = sorted(f"pixels/{name}" for name in wanted - set(pixels))
    missing += [name for name, value in (("agent_pos", state), ("instruction (or prompt)", instruction)) if value is None]
    if missing or strange:
        raise DataError(
            f"the observation lacks {', '.join(missing) or 'nothing'} and has {', '.join(strange) or 'nothing'} that nobody reads"
        )
    return {
        "pixels": {
            camera.name: _picture(pixels[camera.name], camera.name, camera.height, camera.width) for camera in contract.cameras
        },
        "agent_pos": _state(state, contract),
        "instruction": _sentence(instruction),
    }


def _told(name: str) -> str:
    """Of a name that somebody else chose: one short line."""
    return ascii(name)[1:-1][:_LONGEST_NAME]


def _picture(given: Any, name: str, height: int, width: int) -> np.ndarray[Any, Any]:
    if not isinstance(given, np.ndarray):
        raise DataError(f"pixels/{name} must be an array, got {type(given).__name__}")
    picture = given
    if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
        raise DataError(f"pixels/{name} must be uint8 ({height}, {width}, 3), got {picture.dtype} {picture.shape}")
    return picture


def _state(given: Any, contract: EmbodimentContract) -> np.ndarray[Any, Any]:
    size = len(contract.state)
    if isinstance(given, list) and len(given) == size and all(type(number) in (int, float) for number in given):
        given = np.array([float(number) if abs(number) < _LARGEST else np.inf for number in given])
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiu" or given.shape != (size,):
        what = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
        raise DataError(f"agent_pos must be {size} finite numbers, got {what}")
    with np.errstate(over="ignore"):
        state = given.astype(np.float32)
    if not np.isfinite(state).all():
        raise DataError(f"agent_pos must be {size} finite numbers that float32 can hold")
    return state


def _sentence(given: Any) -> str:
    if not isinstance(given, str):
        raise DataError(f"the instruction must be a sentence, got {type(given).__name__}")
    return str(given)
