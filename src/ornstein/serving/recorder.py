"""What served robots saw and did, as a LeRobotDataset v3: an episode is safe on disk when its end is acknowledged, the data set appears when the server stops."""

from __future__ import annotations

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
    """Episodes of any number of robots, written by one thread. A kill loses what was not acknowledged; the same folder again goes on from there."""

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
        self._contract, self._most = contract, most_steps
        there = self._writer.staged()
        self._next = max(there, default=-1) + 1
        #: Episodes that are on disk, those of an earlier run included.
        self.episodes = len(there)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def episode(self) -> Recorded:
        """A new one, of one robot."""
        return Recorded(self._contract, self._most)

    def add(self, episode: RobotEpisode) -> None:
        """On disk when this returns. Errors as `LeRobotWriter.add`."""
        self._writer.add(episode, self._next)
        self._next += 1
        self.episodes += 1

    def finish(self, provenance: Mapping[str, Any] | None = None) -> Path | None:
        """Let the data set appear; None where nothing was recorded. Errors as `DatasetJoin.finish`."""
        return self._writer.finish(provenance=provenance) if self.episodes else None


class Recorded:
    """One episode as it grows. A sentence that changes begins the next, and so does a step that no data set can hold, which is left out."""

    def __init__(self, contract: EmbodimentContract, most_steps: int) -> None:
        self._low, self._high, self._most = contract.action_low, contract.action_high, most_steps
        self._steps: list[tuple[Observation, NDArray[np.float32], bool]] = []
        self._over: list[RobotEpisode] = []

    def note(self, observation: Observation, action: NDArray[np.float32], *, shielded: bool) -> None:
        """One step: what was seen, what went out, and whether the shield changed it."""
        before = self._steps[-1][0]["instruction"] if self._steps else observation["instruction"]
        fits = bool(np.isfinite(action).all() and (action >= self._low).all() and (action <= self._high).all())
        fits = fits and bool(observation["instruction"].strip())
        if len(self._steps) >= self._most or before != observation["instruction"] or not fits:
            self._close(success=False)
        if fits:
            self._steps.append((observation, action, shielded))

    def ended(self, *, success: bool = False) -> list[RobotEpisode]:
        """The episode is over; it and those before it that nobody took, in their order."""
        self._close(success=success)
        return self.taken()

    def taken(self) -> list[RobotEpisode]:
        """Episodes that are over and that nobody took yet, in their order."""
        over, self._over = self._over, []
        return over

    def _close(self, *, success: bool) -> None:
        steps, self._steps = self._steps, []
        if not steps:
            return
        last = np.arange(len(steps)) == len(steps) - 1
        self._over.append(
            RobotEpisode(
                steps[0][0]["instruction"],
                {name: np.stack([seen["pixels"][name] for seen, _, _ in steps]) for name in steps[0][0]["pixels"]},
                {
                    STATE: np.stack([seen["agent_pos"] for seen, _, _ in steps]),
                    ACTION: np.stack([action for _, action, _ in steps]),
                    "next.done": last,
                    "next.success": last & success,
                    "shielded": np.array([shielded for *_, shielded in steps]),
                },
            )
        )
