"""Recording on a Ray cluster of several nodes on this machine, one of which goes away in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ornstein.core.errors import DataError
from ornstein.data import recording
from ornstein.data.demonstrations import record_demonstrations

SETTINGS: dict[str, Any] = {"episodes": 8, "seed": 40, "noise": 0.1, "cameras": {"front": 48}}


def test_a_node_that_dies_loses_no_episode_and_doubles_none(
    cluster: Any,
    losing_a_node: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    same_data: Callable[[Path, Path], bool],
) -> None:
    alone = record_demonstrations(tmp_path / "alone", "pick", workers=1, **SETTINGS)
    monkeypatch.setattr(recording, "outcome", losing_a_node(recording.outcome, 4))
    spread = record_demonstrations(tmp_path / "spread", "pick", ray=cluster.address, **SETTINGS)
    assert len(cluster.worker_nodes) == 1
    assert same_data(alone.folder, spread.folder)


def test_a_machine_without_the_folder_says_so(tmp_path: Path) -> None:
    """A folder of the same name on a disk of its own is not the same folder."""
    recorder = recording.Recorder(tmp_path / "data", None, None, "abc")  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(DataError, match=r"does not see .*data"):
            recording._begin(recorder)
        (tmp_path / "data").mkdir(exist_ok=True)
