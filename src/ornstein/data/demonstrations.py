"""Demonstrations on the tabletop: the expert at work in the scenes of a suite, as a LeRobotDataset v3."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ornstein.core.errors import DataError, unknown_name
from ornstein.data.lerobot_episode import DatasetSpec
from ornstein.data.lerobot_video import VideoEncoding
from ornstein.data.recording import EXTRA_COLUMNS, Generated, record_dataset
from ornstein.simulation.tabletop import Episode, Style, TabletopEnv, Variation, contract, generate_episode, suite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ornstein.simulation.tabletop.environment import ArmName

Axis = Literal["lights", "table", "camera", "sizes"]
AXES: tuple[Axis, ...] = get_args(Axis)


def record_demonstrations(
    out: Path,
    suite_name: str = "all",
    *,
    episodes: int,
    seed: int = 0,
    noise: float = 0.0,
    workers: int = 2,
    ray: str | None = None,
    cameras: Mapping[str, int] | None = None,
    arm: ArmName = "arm7",
    vary: Sequence[Axis] = (),
    plain: bool = False,
    images: bool = False,
) -> Generated:
    """Record `episodes` successful episodes from scene seeds `seed`, `seed` + 1, …; failed ones are left out and counted.

    If it is interrupted, the same call goes on where it stopped. Scripts that call it with several workers need the usual
    `if __name__ == "__main__":`.

    Args:
        suite_name: which scenes; one whose scenes are kept for evaluation is refused. noise: chance that a disturbance begins at a
            step; see `generate_episode`. workers, ray: see `ornstein.core.workers.open_workers`. cameras: side of the pictures by camera; both by default.
            vary: aspects of the look that are drawn at random for each scene. plain: all in one manner, the fastest, instead of one
            drawn for each scene. images: pictures as PNGs in the tables instead of videos.

    Raises:
        DataError: a number out of range, the folder exists or cannot be written, the disk is full, a process died, the expert
            fails too often, scenes belong to evaluations, or another recording was interrupted there.
        UnknownNameError: no such suite, arm or aspect. RenderingError: there is no headless GL.
    """
    if not 0.0 <= noise <= 1.0:
        raise DataError(f"noise is a probability between 0 and 1, got {noise}")
    for axis in vary:
        if axis not in AXES:
            raise unknown_name("aspect of a look", axis, AXES)
    axes: dict[str, Any] = dict.fromkeys(vary, True)
    variation = replace(suite(suite_name).variation, **axes)
    if (variation.split, variation.pairs, variation.phrasing, variation.meaning) != ("seen", "seen", "seen", "name"):
        raise DataError(f"the scenes of suite {suite_name} are kept for evaluation: robot data must not hold them")
    demonstrating = Demonstrating(variation, noise, None if cameras is None else dict(cameras), arm, plain)
    demonstrating.open().close()  # before processes start: does it exist, and is there a GL?
    spec = DatasetSpec(contract(cameras, arm), EXTRA_COLUMNS, None if images else VideoEncoding())
    job = {
        "expert": "Expert",
        "suite": suite_name,
        "vary": sorted(vary),
        "arm": arm,
        "seed": seed,
        "noise": noise,
        "plain": plain,
    }
    return record_dataset(Path(out), spec, demonstrating, job, episodes=episodes, seed=seed, workers=workers, ray=ray)


@dataclass(frozen=True)
class Demonstrating:
    """Scenes of a variation, seen by these cameras, solved by the expert of this arm, in drawn manners or in the plain one."""

    variation: Variation
    noise: float
    cameras: dict[str, int] | None
    arm: ArmName
    plain: bool = False

    def open(self) -> TabletopEnv:
        return TabletopEnv(variation=self.variation, cameras=self.cameras, arm=self.arm)

    def episode(self, world: TabletopEnv, seed: int) -> Episode:
        return generate_episode(world, seed, noise=self.noise, style=Style() if self.plain else None)
