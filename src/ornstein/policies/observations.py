"""What a policy checks before it believes an observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation


def checked(observation: Observation, contract: EmbodimentContract) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32], str]:
    """The pictures of the contract's cameras in its order, the state and the sentence.

    Raises:
        DataError: a camera, the state or the sentence is missing, of another size or type, or not finite.
    """
    missing = {"pixels", "agent_pos", "instruction"} - set(observation)
    if missing:
        raise DataError(f"the observation lacks {', '.join(sorted(missing))}; it has {', '.join(sorted(observation))}")
    pixels: Any = observation["pixels"]
    pictures = []
    for camera in contract.cameras:
        if camera.name not in pixels:
            raise DataError(f"the observation lacks camera {camera.name!r}; it has {sorted(pixels)}")
        picture = np.asarray(pixels[camera.name])
        if picture.shape != (camera.height, camera.width, 3) or picture.dtype != np.uint8:
            raise DataError(
                f"camera {camera.name!r} must give uint8 ({camera.height}, {camera.width}, 3), got {picture.dtype} {picture.shape}"
            )
        pictures.append(picture.copy())
    state = np.asarray(observation["agent_pos"], dtype=np.float32)
    if state.shape != (len(contract.state),) or not np.isfinite(state).all():
        raise DataError(f"agent_pos must be {len(contract.state)} finite numbers, got {state!r}")
    instruction = observation["instruction"]
    if not isinstance(instruction, str):
        raise DataError(f"the instruction must be a sentence, got {instruction!r}")
    return pictures, state, instruction
