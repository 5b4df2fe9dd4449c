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
    strange = sorted([*given, *(f"pixels/{name}" for name in pixels if name not in wanted)])
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


def _picture(given: Any, name: str, height: int, width: int) -> np.ndarray[Any, Any]:
    picture = np.asarray(given)
    if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
        raise DataError(f"pixels/{name} must be uint8 ({height}, {width}, 3), got {picture.dtype} {picture.shape}")
    return picture


def _state(given: Any, contract: EmbodimentContract) -> np.ndarray[Any, Any]:
    state = np.asarray(given)
    if state.dtype.kind not in "fiu" or state.shape != (len(contract.state),) or not np.isfinite(state).all():
        raise DataError(f"agent_pos must be {len(contract.state)} finite numbers, got {state.dtype} {state.shape}")
    return state.astype(np.float32)


def _sentence(given: Any) -> str:
    if not isinstance(given, str):
        raise DataError(f"the instruction must be a sentence, got {type(given).__name__}")
    return str(given)
