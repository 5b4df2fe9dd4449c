"""How a training is going: a bar in a terminal, a line every ten seconds elsewhere; on the main process alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ornstein.core.progress import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    from types import TracebackType

_SMOOTHING = 0.98


class _PatientConsole(Console):
    def on_broken_pipe(self) -> None:
        """A reader that left (`2>&1 | head`) does not end a training."""
        self.quiet = True


class Reporter:
    """Shows step, smoothed loss, learning rate, samples a second and time left.

    Use as a context. `warn` and `say` print a line above the bar.
    """

    def __init__(self, name: str, total: int, batch_size: int, *, enabled: bool) -> None:
        self._name, self._total, self._batch_size, self._enabled = name, total, batch_size, enabled
        self._console = _PatientConsole(stderr=True)  # standard output is for what scripts read
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss: float | None = None
        self._weight = 0.0
        self._started = self._spoken = time.monotonic()
        self._first = 0

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, step: int) -> None:
        """Begin counting from `step`."""
        self._first, self._started, self._spoken = step, time.monotonic(), time.monotonic()
        if self._enabled and self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[now]}"),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console)
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total, completed=step, now="")

    def step(self, done: int, loss: float, learning_rate: float) -> None:
        """One more update: `done` in all."""
        # Smoothed, with the start weighed rightly (as in Adam) so that it neither begins at 0 nor at one batch's loss.
        self._weight = _SMOOTHING * self._weight + 1 - _SMOOTHING
        self._loss = loss if self._loss is None else self._loss + (loss - self._loss) * (1 - _SMOOTHING) / self._weight
        if not self._enabled:
            return
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._started, 1e-9)
        text = f"loss {self._loss:.4g}  lr {learning_rate:.2g}  {rate * self._batch_size:.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, now=text)
        elif now - self._spoken >= SECONDS_BETWEEN_LINES or done == self._total:
            self._spoken = now
            left = (self._total - done) / rate
            self.say(f"{self._name}: step {done}/{self._total}  {text}  {left / 60:.1f} min left")

    def say(self, text: str) -> None:
        """A line for the user."""
        if self._enabled:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line that must not be missed."""
        self.say(f"warning: {text}")
