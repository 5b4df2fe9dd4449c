"""Recording demonstrations, as a LeRobotDataset v3: which scenes, by how many processes, and what happens when it is interrupted.

A data set holds the first N scenes, counted from the given seed, that the expert solves. Processes record scenes side by side; a scene is
begun only if it is needed whatever becomes of those under way, so the choice, the order and every byte are the same with any number of
processes, and after any interruption.
"""

from __future__ import annotations

import atexit
import platform
import sys
import uuid
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.core.workers import WorkerDiedError, open_workers, outcome
from ornstein.data.lerobot_episode import DatasetSpec, RobotEpisode
from ornstein.data.lerobot_format import ACTION, GOAL_PIXEL, STATE, TARGET_HEADING, TARGET_PIXEL, Feature
from ornstein.data.lerobot_reader import LeRobotDataset
from ornstein.data.lerobot_staging import cannot_write, write_failed, write_staged
from ornstein.data.lerobot_writer import LeRobotWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

# Seeds of demonstrations stay below this number; evaluations use larger ones.
FIRST_EVALUATION_SEED = 1_000_000
# An expert that fails so often is broken, or the disturbance too large; a few failures say nothing.
_LARGEST_FAILED_SHARE, _LENIENT_UNTIL = 0.5, 20

EXTRA_COLUMNS: dict[str, Feature] = {
    TARGET_PIXEL: Feature("float32", (2,), ["column", "row"]),
    GOAL_PIXEL: Feature("float32", (2,), ["column", "row"]),
    TARGET_HEADING: Feature("float32", (2,), ["sin 4ψ", "cos 4ψ"]),
    "next.reward": Feature("float32", (1,)),
    "next.done": Feature("bool", (1,)),
    "next.success": Feature("bool", (1,)),
}


@dataclass(frozen=True)
class Generated:
    """What came of it. failed_seeds: scenes that the expert did not solve; they are not in the data."""

    folder: Path
    episodes: int
    frames: int
    failed_seeds: tuple[int, ...]


class Demonstration(Protocol):
    """What a simulated episode must have to be recorded; T steps.

    frames: {camera: uint8 (T, H, W, 3)}. states, actions: float32 (T, …). target_pixels, goal_pixels, headings: float32 (T, 2).
    """

    @property
    def instruction(self) -> str: ...
    @property
    def frames(self) -> dict[str, NDArray[np.uint8]]: ...
    @property
    def states(self) -> NDArray[np.float32]: ...
    @property
    def actions(self) -> NDArray[np.float32]: ...
    @property
    def target_pixels(self) -> NDArray[np.float32]: ...
    @property
    def goal_pixels(self) -> NDArray[np.float32]: ...
    @property
    def headings(self) -> NDArray[np.float32]: ...
    @property
    def success(self) -> bool: ...
    def __len__(self) -> int: ...


class Simulation(Protocol):
    """What a process needs to simulate scenes; it is sent to each."""

    def open(self) -> Any:
        """A world, with a `close`."""
        ...

    def episode(self, world: Any, seed: int) -> Demonstration:
        """The expert's attempt at the scene of that seed."""
        ...


def record_dataset(
    out: Path,
    spec: DatasetSpec,
    simulation: Simulation,
    job: dict[str, Any],
    *,
    episodes: int,
    seed: int,
    workers: int,
    ray: str | None = None,
) -> Generated:
    """The first `episodes` scenes from `seed` on that the expert solves.

    If it is interrupted, the same call goes on where it stopped.

    Args:
        workers, ray: see `open_workers`. The machines of a cluster all write into `out`: it must be on a disk that they share.

    Raises:
        DataError: a number out of range, the folder exists or cannot be written, the disk is full, a process died, the expert
            fails too often, a machine does not see the folder, or another recording was interrupted there.
    """
    if episodes < 1 or workers < 1 or seed < 0:
        raise DataError(f"episodes and workers must be at least 1 and seed ≥ 0, got {episodes}, {workers} and {seed}")
    if seed + 2 * episodes >= FIRST_EVALUATION_SEED:
        raise DataError(f"seeds from {FIRST_EVALUATION_SEED} on belong to evaluations: choose a smaller seed or fewer episodes")
    with LeRobotWriter(out, spec, job=job) as writer:
        staged = writer.staged()
        recorder = Recorder(writer.folder.absolute(), spec, simulation, uuid.uuid4().hex)
        failed: list[int] = []
        successes = _without_failed(_recorded(recorder, staged, seed, episodes, workers, ray), failed)
        try:
            kept = sorted(track(successes, episodes, "recording episodes"))
        except KeyboardInterrupt:
            print(f"stopped: what is recorded waits in {writer.folder}; the same command goes on from there", file=sys.stderr)
            raise
        writer.finish(kept, provenance={**job, "failed_seeds": sorted(failed)})
    return Generated(out, len(kept), len(LeRobotDataset(out)), tuple(sorted(failed)))


def first_successes(
    submit: Callable[[int], Future[bool]], done: Mapping[int, bool], first: int, wanted: int, window: int
) -> Iterator[tuple[int, bool]]:
    """(seed, success) of the scenes from `first` on, in the order in which they end, until `wanted` succeeded.

    Args:
        submit: begins a scene. done: scenes whose outcome is known already. window: scenes under way at once.
    """
    running: dict[Future[bool], int] = {}
    succeeded = failed = 0
    following = first
    while succeeded < wanted:
        # Begun only if needed even when all that are under way succeed: so none is ever recorded in vain.
        while succeeded + len(running) < wanted and len(running) < window:
            future = _known(done[following]) if following in done else submit(following)
            running[future] = following
            following += 1
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            seed, success = running.pop(future), outcome(future)
            succeeded, failed = succeeded + success, failed + (not success)
            yield seed, success
        if failed > _LENIENT_UNTIL and failed > _LARGEST_FAILED_SHARE * (failed + succeeded):
            raise DataError(f"the expert failed in {failed} of the first {failed + succeeded} scenes: use less noise")


def _without_failed(outcomes: Iterator[tuple[int, bool]], failed: list[int]) -> Iterator[int]:
    for seed, success in outcomes:
        if success:
            yield seed
        else:
            failed.append(seed)


def _recorded(
    recorder: Recorder, staged: Mapping[int, bool], seed: int, episodes: int, workers: int, ray: str | None
) -> Iterator[tuple[int, bool]]:
    try:
        recorder.marked.touch()
        with open_workers(workers, _begin, recorder, ray=ray) as pool:
            yield from first_successes(lambda number: pool.submit(_record, number), staged, seed, episodes, 2 * pool.size)
    except WorkerDiedError as error:
        raise DataError(
            f"{error}; what is recorded waits in {recorder.folder}: run the same again, perhaps with fewer workers"
        ) from error
    except OSError as error:
        raise cannot_write(recorder.folder, error) from error
    finally:
        recorder.marked.unlink(missing_ok=True)


@dataclass(frozen=True)
class Recorder:
    """What a process needs to record scenes."""

    folder: Path
    spec: DatasetSpec
    simulation: Simulation
    mark: str = ""

    @property
    def marked(self) -> Path:
        """A file that is in this very folder, and in none of its name on another machine's disk."""
        return self.folder / f"recording-{self.mark}"

    def record(self, world: Any, seed: int) -> bool:
        """Put the scene's episode on disk; whether the expert solved it."""
        episode = self.simulation.episode(world, seed)
        if episode.success:
            write_staged(self.folder, seed, self.spec, as_robot_episode(episode))
        else:
            write_failed(self.folder, seed, len(episode))
        return episode.success


def as_robot_episode(episode: Demonstration) -> RobotEpisode:
    """A simulated episode as a data set keeps it; `next.…` say what the action led to."""
    last = np.arange(len(episode)) == len(episode) - 1
    success = last & episode.success
    columns = {
        STATE: episode.states,
        ACTION: episode.actions,
        TARGET_PIXEL: episode.target_pixels,
        GOAL_PIXEL: episode.goal_pixels,
        TARGET_HEADING: episode.headings,
        "next.reward": success.astype(np.float32),
        "next.done": last,
        "next.success": success,
    }
    return RobotEpisode(episode.instruction, episode.frames, columns)


_recorder: Recorder | None = None
_world: Any = None


def _begin(recorder: Recorder) -> None:
    global _recorder, _world
    if not recorder.marked.is_file():
        raise DataError(
            f"{platform.node()} does not see {recorder.folder}: record into a folder that all machines of the cluster share"
        )
    _close_world()  # a cluster's processes outlive a recording
    _recorder, _world = recorder, None


def _record(seed: int) -> bool:
    global _world  # noqa: PLW0603  one world a process: building it costs as much as an episode
    if _recorder is None:
        raise RuntimeError("_record runs in processes that _begin has prepared")
    if _world is None:
        _world = _recorder.simulation.open()
    return _recorder.record(_world, seed)


@atexit.register  # a GL context that outlives its library complains
def _close_world() -> None:
    if _world is not None:
        _world.close()


def _known(success: bool) -> Future[bool]:
    future: Future[bool] = Future()
    future.set_result(success)
    return future
