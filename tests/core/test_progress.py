from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from ornstein.core import progress
from ornstein.core.progress import track


def _console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


@pytest.mark.parametrize("terminal", [True, False])
def test_items_pass_unchanged_and_lazily(terminal: bool) -> None:
    taken: list[int] = []
    items = (taken.append(k) or k for k in range(5))
    tracked = track(items, 5, "counting", console=_console(terminal))
    assert next(tracked) == 0
    assert taken == [0]
    assert list(tracked) == [1, 2, 3, 4]


def test_off_a_terminal_it_speaks_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 4))  # four seconds an item
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    console = _console(terminal=False)
    list(track(range(10), 10, "encoding", console=console))
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "encoding: 2/10, about 48 s left",
        "encoding: 5/10, about 24 s left",
        "encoding: 8/10, about 9 s left",
    ]


def test_what_is_short_says_nothing() -> None:
    console = _console(terminal=False)
    list(track(range(100), 100, "quick", console=console))
    assert console.file.getvalue() == ""


def test_the_bar_shows_the_description() -> None:
    console = _console(terminal=True)
    list(track(range(3), 3, "drawing", console=console))
    assert "drawing" in console.file.getvalue()
    assert "3/3" in console.file.getvalue()


def test_the_bar_says_how_fast_it_goes() -> None:
    console = _console(terminal=True)
    list(track((time.sleep(0.12) for _ in range(4)), 4, "drawing", console=console))  # rich looks ten times a second
    assert re.search(r"\d\.\d/s", console.file.getvalue())
