"""What served robots saw and did, as a LeRobotDataset v3: an episode is safe on disk when it has ended, the data set appears when the server stops."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data.lerobot_episode import DatasetSpec, RobotEpisode
from ornstein.data.lerobot_format import ACTION, STATE, Feature
from ornstein.data.lerobot_writer import LeRobotWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation

#: Beside state and action: whether the episode ended there, whether somebody said that it succeeded, and whether the shield changed the action.
COLUMNS = {"next.done": Feature("bool", (1,)), "next.success": Feature("bool", (1,)), "shielded": Feature("bool", (1,))}


class Recording:
    """Episodes of any number of robots. A kill loses the episodes that are under way, and nothing else: the same folder again goes on from there."""

    def __init__(
        self, out: Path, contract: EmbodimentContract, *, job: Mapping[str, Any] | None = None, most_steps: int = 3000
    ) -> None:
        """
        Args:
            out: the data set's folder to be. job: JSON; what is recorded there, which another recording must not go on with. most_steps: a longer episode is
                cut into several.

        Raises:
            DataError: `out` exists or cannot be written, another process is at it, or another job was interrupted there.
        """
        if most_steps < 1:
            raise DataError(f"an episode has at least one step, got most_steps {most_steps}")
        self._writer = LeRobotWriter(Path(out), DatasetSpec(contract, COLUMNS), job=job)
        self._lock = threading.Lock()
        self._most = most_steps
        #: Episodes that are on disk, those of an earlier run included.
        self.episodes = len(self._writer.staged())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def episode(self) -> Recorded:
        """A new one, of one robot."""
        return Recorded(self, self._most)

    def add(self, episode: RobotEpisode) -> None:
        """On disk when this returns. Errors as `LeRobotWriter.add`."""
        with self._lock:
            self._writer.add(episode)
            self.episodes += 1

    def finish(self, provenance: Mapping[str, Any] | None = None) -> Path | None:
        """Let the data set appear; None where nothing was recorded. Errors as `DatasetJoin.finish`."""
        with self._lock:
            return self._writer.finish(provenance=provenance) if self.episodes else None


class Recorded:
    """One episode as it grows; a sentence that changes begins the next."""

    def __init__(self, recording: Recording, most_steps: int) -> None:
        self._recording, self._most = recording, most_steps
        self._steps: list[tuple[Observation, NDArray[np.float32], bool]] = []

    def note(self, observation: Observation, action: NDArray[np.float32], *, shielded: bool) -> None:
        """One step: what was seen, what went out, and whether the shield changed it. Errors as `Recording.add`, where the step before was the last of its episode."""
        before = self._steps[-1][0]["instruction"] if self._steps else observation["instruction"]
        if len(self._steps) >= self._most or before != observation["instruction"]:
            self.end()
        self._steps.append((observation, action, shielded))

    def end(self, *, success: bool = False) -> None:
        """What there is of it goes to disk, if anything. Errors as `Recording.add`; the steps are then gone."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        last = np.arange(len(steps)) == len(steps) - 1
        cameras = steps[0][0]["pixels"]
        self._recording.add(
            RobotEpisode(
                steps[0][0]["instruction"],
                {name: np.stack([seen["pixels"][name] for seen, _, _ in steps]) for name in cameras},
                {
                    STATE: np.stack([seen["agent_pos"] for seen, _, _ in steps]),
                    ACTION: np.stack([action for _, action, _ in steps]),
                    "next.done": last,
                    "next.success": last & success,
                    "shielded": np.array([shielded for *_, shielded in steps]),
                },
            )
        )
