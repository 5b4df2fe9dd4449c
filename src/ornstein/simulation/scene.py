"""One arrangement of the tabletop as plain data: the same scene can be given to several policies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import DataError
from ornstein.simulation.objects import SEEN_OBJECTS, TRAIN_PHRASINGS

MAX_BLOCKS = 5
MIN_BLOCKS = 3
# Where blocks may lie, in metres of the robot's base frame; and how far apart their centres are at least.
PLACEMENT_LOW = (0.40, -0.16)
PLACEMENT_HIGH = (0.64, 0.16)
CLEARANCE = 0.085
MAX_YAW = 0.5


@dataclass(frozen=True)
class PlacedBlock:
    """A block: what it shows, its centre on the table [m] and its yaw [rad]."""

    name: str
    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class Scene:
    """Three to five blocks, the one that is asked for (by index), and the sentence that asks."""

    blocks: tuple[PlacedBlock, ...]
    target: int
    instruction: str

    def to_json(self) -> dict[str, Any]:
        """Plain data for results and data sets."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        """The inverse of `to_json`.

        Raises:
            DataError: keys are missing or unknown, a value has the wrong type, or the scene is impossible (see `check`).
            UnknownNameError: nobody draws such an object.
        """
        try:
            scene = cls(**{**data, "blocks": tuple(PlacedBlock(**block) for block in data["blocks"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"this is not a tabletop scene: {error}") from error
        scene.check()
        return scene

    def check(self) -> None:
        """Refuse a scene that cannot be built.

        Raises:
            DataError: too few or many blocks, two with one name, blocks inside one another or out of reach, no such target,
                a value of another type. UnknownNameError: nobody draws such an object.
        """
        self._check_types()
        names = [block.name for block in self.blocks]
        if not 1 <= len(names) <= MAX_BLOCKS or len(set(names)) != len(names):
            raise DataError(f"a scene has one to {MAX_BLOCKS} blocks with different names, got {names}")
        if not 0 <= self.target < len(names):
            raise DataError(f"the target must be one of the {len(names)} blocks, got number {self.target}")
        for k, a in enumerate(self.blocks):
            openmoji.code(a.name)
            if not (
                PLACEMENT_LOW[0] <= a.x <= PLACEMENT_HIGH[0]
                and PLACEMENT_LOW[1] <= a.y <= PLACEMENT_HIGH[1]
                and np.isfinite(a.yaw)
            ):
                raise DataError(f"block {a.name!r} at ({a.x:.3f}, {a.y:.3f}) m lies outside {PLACEMENT_LOW} … {PLACEMENT_HIGH}")
            for b in self.blocks[k + 1 :]:
                if np.hypot(a.x - b.x, a.y - b.y) < CLEARANCE - 1e-9:
                    raise DataError(f"blocks {a.name!r} and {b.name!r} are closer than {CLEARANCE} m")

    def _check_types(self) -> None:
        """Scenes are read from files: a text or a truth value for a number would be compared, rounded or built in silence."""
        if type(self.target) is not int or not isinstance(self.instruction, str):
            raise DataError(f"a scene has the number of its target and a sentence, got {self.target!r} and {self.instruction!r}")
        for block in self.blocks:
            numbers = (block.x, block.y, block.yaw)
            if not isinstance(block.name, str) or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
                raise DataError(f"a block has a name, x, y [m] and yaw [rad], got {block}")


def sample_scene(seed: int, *, objects: tuple[str, ...] = SEEN_OBJECTS, phrasings: tuple[str, ...] = TRAIN_PHRASINGS) -> Scene:
    """The scene of that seed: objects, places, target and wording drawn uniformly.

    Args:
        seed: ≥ 0. objects: at least three names; with fewer than five, scenes have at most as many blocks.
        phrasings: sentences with `{name}` in them.

    Raises:
        DataError: a negative seed, fewer than three objects, or no phrasings.
    """
    if seed < 0 or len(set(objects)) < MIN_BLOCKS or not phrasings:
        raise DataError(
            f"a scene needs a seed ≥ 0, {MIN_BLOCKS} different objects and a phrasing, got seed {seed}, "
            f"{len(set(objects))} objects and {len(phrasings)} phrasings"
        )
    rng = np.random.default_rng([seed, 7])
    count = int(rng.integers(MIN_BLOCKS, min(MAX_BLOCKS, len(objects)) + 1))
    names = [str(name) for name in rng.choice(objects, count, replace=False)]
    while True:
        # All at once and again if any two touch: placing one after the other would favour the borders.
        places = rng.uniform(PLACEMENT_LOW, PLACEMENT_HIGH, (count, 2))
        gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + np.eye(count)
        if gaps.min() >= CLEARANCE:
            break
    yaws = rng.uniform(-MAX_YAW, MAX_YAW, count)
    blocks = tuple(
        PlacedBlock(name, float(x), float(y), float(yaw)) for name, (x, y), yaw in zip(names, places, yaws, strict=True)
    )
    target = int(rng.integers(count))
    instruction = str(rng.choice(phrasings)).format(name=names[target])
    return Scene(blocks, target, instruction)
