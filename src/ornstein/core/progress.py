"""Progress over an iteration: a bar in a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from rich.console import Console

_Item = TypeVar("_Item")
SECONDS_BETWEEN_LINES = 10.0


def track(
    items: Iterable[_Item], total: int, description: str, *, console: Console | None = None
) -> Generator[_Item, None, None]:
    """Yield `items` unchanged while showing how far they are and the time left.

    Args:
        total: how many there will be.
        console: where to draw; standard error unless given. Off a terminal, lines are printed there instead.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    if console.is_terminal:
        yield from _bar(items, total, description, console)
    else:
        yield from _lines(items, total, description, console)


def _bar(items: Iterable[_Item], total: int, description: str, console: Console) -> Iterator[_Item]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as progress:
        yield from progress.track(items, total=total, description=description)


def _lines(items: Iterable[_Item], total: int, description: str, console: Console) -> Iterator[_Item]:
    started = spoken = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - spoken >= SECONDS_BETWEEN_LINES:
            spoken = now
            left = (now - started) / max(done, 1) * (total - done)
            print(f"{description}: {done}/{total}, about {left:.0f} s left", file=console.file or sys.stderr, flush=True)
        yield item
