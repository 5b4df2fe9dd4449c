"""Demonstrations of picking, for `rt1-tabletop`: the expert lifts the named block, as a LeRobotDataset v3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ornstein.core.errors import DataError
from ornstein.data.lerobot_episode import DatasetSpec
from ornstein.data.recording import EXTRA_COLUMNS, Generated, record_dataset
from ornstein.simulation import Episode, PickExpert, TabletopEnv, contract, generate_episode


def generate_dataset(
    out: Path, *, episodes: int, seed: int = 0, noise: float = 0.0, workers: int = 2, image_size: int = 128
) -> Generated:
    """Record `episodes` successful episodes from scene seeds `seed`, `seed` + 1, …; failed ones are left out and counted.

    If it is interrupted, the same call goes on where it stopped. Scripts that call it with several workers need the usual
    `if __name__ == "__main__":`.

    Args:
        noise: chance that a disturbance begins at a step; see `generate_episode`. workers: processes.

    Raises:
        DataError: a number out of range, the folder exists or cannot be written, the disk is full, a process died, the expert
            fails too often, or another recording was interrupted there.
        RenderingError: there is no headless GL.
    """
    if image_size < 16:
        raise DataError(f"pictures are at least 16 pixels wide, got image_size {image_size}")
    if not 0.0 <= noise <= 1.0:
        raise DataError(f"noise is a probability between 0 and 1, got {noise}")
    spec = DatasetSpec(contract(image_size), EXTRA_COLUMNS)
    job = {"expert": "PickExpert", "seed": seed, "noise": noise}
    picking = Picking(noise, image_size)
    return record_dataset(Path(out), spec, picking, job, episodes=episodes, seed=seed, workers=workers)


@dataclass(frozen=True)
class Picking:
    """Scenes of three to five blocks, one of which is to be lifted."""

    noise: float
    image_size: int

    def open(self) -> TabletopEnv:
        return TabletopEnv(image_size=self.image_size)

    def episode(self, world: TabletopEnv, seed: int) -> Episode:
        return generate_episode(world, PickExpert(), seed, noise=self.noise)
