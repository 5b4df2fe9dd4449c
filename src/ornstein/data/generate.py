"""Demonstrations by the scripted expert, written as a LeRobotDataset v3."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.data.lerobot_writer import LeRobotWriter
from ornstein.simulation import Episode, PickExpert, TabletopEnv, contract, generate_episode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Seeds of demonstrations stay below this number; evaluations use larger ones.
FIRST_EVALUATION_SEED = 1_000_000

_world: tuple[TabletopEnv, PickExpert] | None = None


def generate_dataset(
    out: Path, *, episodes: int, seed: int = 0, noise: float = 0.0, workers: int = 2, image_size: int = 128
) -> None:
    """Record `episodes` successful episodes from scene seeds `seed`, `seed` + 1, …; failed ones are left out and counted.

    The data do not depend on the number of workers.

    Args:
        noise: share of steps at which a disturbance begins; see `generate_episode`. workers: processes.

    Raises:
        DataError: a number out of range, the folder exists or cannot be written.
    """
    if episodes < 1 or workers < 1 or seed < 0:
        raise DataError(f"episodes and workers must be at least 1 and seed ≥ 0, got {episodes}, {workers} and {seed}")
    if seed + 2 * episodes >= FIRST_EVALUATION_SEED:
        raise DataError(f"seeds from {FIRST_EVALUATION_SEED} on belong to evaluations: choose a smaller seed or fewer episodes")
    provenance: dict[str, Any] = {"expert": "PickExpert", "seed": seed, "noise": noise, "failed_seeds": []}
    with LeRobotWriter(out, contract(image_size), provenance) as writer:
        recorded = _successful(_episodes(seed, noise, workers, image_size), writer.provenance["failed_seeds"])
        for episode in track(itertools.islice(recorded, episodes), episodes, "recording episodes"):
            writer.add(episode.frames, episode.states, episode.actions, episode.target_pixels, episode.instruction, episode.seed)


def _successful(recorded: Iterator[Episode], failed: list[int]) -> Iterator[Episode]:
    for episode in recorded:
        if episode.success:
            yield episode
        else:
            failed.append(episode.seed)


def _episodes(seed: int, noise: float, workers: int, image_size: int) -> Iterator[Episode]:
    """Episodes of all seeds from `seed` on, in order, forever."""
    if workers == 1:
        for number in itertools.count(seed):
            yield _record(number, noise, image_size)
    # A GL context does not survive a fork.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        waiting = deque(pool.submit(_record, seed + k, noise, image_size) for k in range(4 * workers))
        for number in itertools.count(seed + 4 * workers):
            yield waiting.popleft().result()
            waiting.append(pool.submit(_record, number, noise, image_size))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _record(seed: int, noise: float, image_size: int) -> Episode:
    global _world  # noqa: PLW0603  one world a process: building it costs as much as an episode
    if _world is None or _world[0].contract.cameras[0].height != image_size:
        _world = (TabletopEnv(image_size=image_size), PickExpert())
    return generate_episode(*_world, seed, noise=noise)
