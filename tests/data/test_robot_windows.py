from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ornstein.core.errors import DataError
from ornstein.data.lerobot import EpisodeRow
from ornstein.data.robot_windows import RobotWindows

LENGTHS = (5, 9, 4, 12)


@dataclass
class Recorded:
    """What RobotWindows reads of a data set; every number says which frame it belongs to."""

    folder: Path = Path("recorded")
    fingerprint: str = "0123456789abcdef"
    decoded: int = 0
    episodes: list[EpisodeRow] = field(init=False)

    def __post_init__(self) -> None:
        stops = np.cumsum(LENGTHS).tolist()
        self.episodes = [
            EpisodeRow(k, stop - n, stop, f"task {k}", k, Path("unused"), {})
            for k, (n, stop) in enumerate(zip(LENGTHS, stops, strict=True))
        ]
        frame = np.arange(stops[-1], dtype=np.float32)[:, None]
        self.states, self.actions = np.tile(frame, 7), np.tile(frame + 100, 7)
        self.pointers: np.ndarray | None = np.tile(frame / 100, 4).reshape(-1, 2, 2)
        self.headings = np.tile(frame / 50, 2)

    def __len__(self) -> int:
        return sum(LENGTHS)

    def column(self, name: str) -> np.ndarray:
        assert name == "observation.target_heading"
        return self.headings

    def frames(self, camera: str) -> list[np.ndarray]:
        assert camera == "front"
        self.decoded += 1
        return [np.full((2, 2, 3), k, np.uint8) for k in range(len(self))]


def _windows(data: Recorded, cache: Path, length: int = 3, seed: int = 0) -> RobotWindows:
    return RobotWindows(data, "front", length, cache, seed=seed)  # type: ignore[arg-type]


def test_everything_in_a_window_belongs_to_the_same_frames_of_one_episode(tmp_path: Path) -> None:
    data = Recorded()
    drawn = _windows(data, tmp_path).at(np.arange(300))
    first = drawn.states[:, 0, 0].astype(int)
    frames = first[:, None] + np.arange(3)
    np.testing.assert_array_equal(drawn.states[..., 0], frames)
    np.testing.assert_array_equal(drawn.actions[..., 3], frames + 100)
    np.testing.assert_array_equal(drawn.pictures[..., 1, 1, 2], frames)
    np.testing.assert_allclose(drawn.pointers[..., 1, 0], frames / 100)
    np.testing.assert_allclose(drawn.headings[..., 1], frames / 50)
    rows, tasks = _windows(data, tmp_path).rows(np.arange(300))
    np.testing.assert_array_equal(rows, frames)
    assert tasks == list(drawn.tasks)
    for start, task in zip(first, drawn.tasks, strict=True):
        episode = next(e for e in data.episodes if e.start <= start < e.stop)
        assert start + 3 <= episode.stop
        assert task == episode.task


def test_every_possible_place_is_equally_likely(tmp_path: Path) -> None:
    starts = _windows(Recorded(), tmp_path).at(np.arange(4000)).states[:, 0, 0].astype(int)
    places, counts = np.unique(starts, return_counts=True)
    assert len(places) == sum(n - 2 for n in LENGTHS)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_window_depends_on_its_number_and_the_seed_alone(tmp_path: Path) -> None:
    windows = _windows(Recorded(), tmp_path)
    together = windows.at(np.arange(50)).states
    apart = np.concatenate([windows.at(np.array([k])).states for k in reversed(range(50))])[::-1]
    np.testing.assert_array_equal(together, apart)
    assert not np.array_equal(together, _windows(Recorded(), tmp_path, seed=1).at(np.arange(50)).states)


def test_pictures_are_decoded_once_and_again_for_other_data(tmp_path: Path) -> None:
    data = Recorded()
    _windows(data, tmp_path)
    _windows(data, tmp_path)
    assert data.decoded == 1
    _windows(other := Recorded(fingerprint="fedcba9876543210"), tmp_path)
    assert other.decoded == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["front-0123456789abcdef.npy", "front-fedcba9876543210.npy"]


def test_a_damaged_video_leaves_no_cache_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Recorded()

    def damaged(camera: str) -> object:
        yield from Recorded().frames(camera)[:5]
        raise DataError("the video cannot be decoded after frame 5")

    monkeypatch.setattr(data, "frames", damaged)
    with pytest.raises(DataError, match="after frame 5"):
        _windows(data, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    _windows(data, tmp_path)
    assert data.decoded == 1


def test_another_process_may_decode_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one of two must neither fail nor disturb what the faster one has opened."""
    slow = Recorded()

    def overtaken(camera: str) -> list[np.ndarray]:
        with monkeypatch.context() as other_process:
            other_process.setattr(os, "getpid", lambda: 1)
            _windows(Recorded(), tmp_path)
        return Recorded().frames(camera)

    monkeypatch.setattr(slow, "frames", overtaken)
    drawn = _windows(slow, tmp_path).at(np.arange(20))
    np.testing.assert_array_equal(drawn.pictures[..., 0, 0, 0], drawn.states[..., 0])
    assert [path.name for path in tmp_path.iterdir()] == ["front-0123456789abcdef.npy"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="episode 2 of recorded is shorter than a window of 5 frames"):
        _windows(Recorded(), tmp_path, length=5)
    without = Recorded()
    without.pointers = None
    with pytest.raises(DataError, match="lacks observation.target_pixel"):
        _windows(without, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot use the picture cache"):
        _windows(Recorded(), tmp_path / "file" / "cache")


def test_a_cache_that_was_cut_short_is_named(tmp_path: Path) -> None:
    _windows(Recorded(), tmp_path)
    (cache,) = tmp_path.iterdir()
    cache.write_bytes(cache.read_bytes()[:200])
    with pytest.raises(DataError, match="delete it and start again"):
        _windows(Recorded(), tmp_path)
