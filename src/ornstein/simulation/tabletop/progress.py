"""How far a scene's tasks are done: one after the other, each for half a second, none spoiled, and at the end all that should last still lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ornstein.simulation.tabletop.success import HOLD_STEPS, History, height, is_done, is_spoiled

if TYPE_CHECKING:
    from ornstein.simulation.tabletop.scene import Scene, Task
    from ornstein.simulation.tabletop.world import Moment

_LASTING = ("place_in_bowl", "place_on_mat", "stack")


class Progress:
    """done: tasks that are done. spoiled: the current one no longer can be."""

    def __init__(self, scene: Scene, start: Moment) -> None:
        self._scene = scene
        self.done = 0
        self.spoiled = False
        self._held = 0
        self._histories: list[History] = []
        self._begin(start)

    @property
    def task(self) -> Task:
        """The current one; the last where all are done."""
        return self._scene.tasks[min(self.done, len(self._scene.tasks) - 1)]

    @property
    def history(self) -> History:
        """Of the current task."""
        return self._histories[-1]

    @property
    def succeeded(self) -> bool:
        return self.done == len(self._scene.tasks) and not self.spoiled

    def advance(self, now: Moment) -> None:
        """A control step later."""
        if self.spoiled or self.succeeded:
            return
        history = self._histories[-1]
        heights = [height(now, k, self._scene.block_size) for k in range(len(self._scene.blocks))]
        np.maximum(history.highest, heights, out=history.highest)
        self.spoiled = is_spoiled(self._scene, self.task, now, history)
        self._held = self._held + 1 if is_done(self._scene, self.task, now, history) else 0
        if self._held < HOLD_STEPS or self.spoiled:
            return
        self.done += 1
        self._held = 0
        if self.done < len(self._scene.tasks):
            self._begin(now)
        else:
            self.spoiled = not all(
                is_done(self._scene, task, now, then)
                for task, then in zip(self._scene.tasks, self._histories, strict=True)
                if task.skill in _LASTING
            )

    def _begin(self, now: Moment) -> None:
        self._histories.append(History(now, np.zeros(len(self._scene.blocks))))
