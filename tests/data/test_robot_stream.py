"""Moments straight from disk: exactly the episode's frames, padded where there is no past or future, mixed by weight, the same in any batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ornstein.core.errors import ContractError, DataError, OrnsteinError
from ornstein.data import robot_stream
from ornstein.data.lerobot import DatasetSpec, LeRobotDataset, LeRobotWriter, RobotEpisode
from ornstein.data.robot_stream import RobotStream
from ornstein.simulation.tabletop import contract

CAMERAS = {"front": 32, "wrist": 16}


def _write(folder: Path, lengths: list[int], first: int, **changes: Any) -> LeRobotDataset:
    """Frame t of episode e is a picture of level 10 e + t, state (e, t, …) and action (t, e, …) within bounds."""
    spec = DatasetSpec(replace(contract(CAMERAS), **changes))
    with LeRobotWriter(folder, spec) as writer:
        for k, length in enumerate(lengths):
            t = np.arange(length, dtype=np.float32)
            states = np.zeros((length, 7), np.float32)
            states[:, 0], states[:, 1] = (first + k) / 100, t / 100
            actions = np.zeros((length, 7), np.float32)
            actions[:, 6], actions[:, 5] = t / 50, (first + k) / 100
            frames = {
                name: np.tile((10 * (first + k) + t).astype(np.uint8)[:, None, None, None], (1, size, size, 3))
                for name, size in CAMERAS.items()
            }
            writer.add(RobotEpisode(f"episode {first + k}", frames, {"observation.state": states, "action": actions}))
        writer.finish()
    return LeRobotDataset(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[LeRobotDataset, LeRobotDataset]:
    root = tmp_path_factory.mktemp("stream")
    return _write(root / "a", [6, 9, 4], 0), _write(root / "b", [8, 5], 10)


def test_moments_are_the_episodes_own(data: tuple[LeRobotDataset, LeRobotDataset]) -> None:
    stream = RobotStream(data, cameras=("front", "wrist"), history=3, chunk=4)
    batch = stream.at(range(60))
    for k in range(60):
        source, episode, now = int(batch.sources[k]), int(batch.episodes[k]), int(batch.frames[k])
        number, length = (0, 10)[source] + episode, len(data[source].episodes[episode])
        past, future = now - 2 + np.arange(3), now + np.arange(4)
        np.testing.assert_array_equal(batch.seen[k], past >= 0)
        np.testing.assert_array_equal(batch.planned[k], future < length)
        np.testing.assert_allclose(batch.states[k, :, 0], number / 100, atol=1e-6)
        np.testing.assert_allclose(batch.states[k, :, 1], past.clip(0) / 100, atol=1e-6)
        np.testing.assert_allclose(batch.actions[k, :, 6], future.clip(max=length - 1) / 50, atol=1e-6)
        assert batch.tasks[k] == f"episode {number}"
        for name, size in CAMERAS.items():
            assert batch.pictures[name][k].shape == (3, size, size, 3)
            levels = batch.pictures[name][k].reshape(3, -1).mean(1)
            np.testing.assert_allclose(levels, 10 * number + past.clip(0), atol=2.5)
    assert {tuple(row) for row in batch.seen.tolist()} >= {(True,) * 3, (False, False, True)}


def test_moment_i_is_the_same_in_any_batch(data: tuple[LeRobotDataset, LeRobotDataset]) -> None:
    stream = RobotStream(data, cameras=("front",), history=2, chunk=2, seed=5)
    together, alone = stream.at([7, 3, 11]), stream.at([3])
    np.testing.assert_array_equal(together.pictures["front"][1], alone.pictures["front"][0])
    np.testing.assert_array_equal(together.actions[1], alone.actions[0])
    other = RobotStream(data, cameras=(), seed=6).at(range(40))
    assert not np.array_equal(other.frames, RobotStream(data, cameras=(), seed=5).at(range(40)).frames)
    assert other.pictures == {}


def test_numbers_are_kept_up_to_a_limit_and_stay_right(
    data: tuple[LeRobotDataset, LeRobotDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes of 4 to 9 frames under a limit of 10, larger batches than fit; each stretch read once while it is kept."""
    fresh = [RobotStream(data, cameras=(), chunk=2).at(range(k, k + 8)) for k in range(0, 80, 8)]
    monkeypatch.setattr(robot_stream, "_KEPT_FRAMES", 10)
    stream, reads = RobotStream(data, cameras=(), chunk=2), []
    rows = LeRobotDataset.rows
    monkeypatch.setattr(LeRobotDataset, "rows", lambda self, *rest: reads.append(rest[0]) or rows(self, *rest))
    for k, expected in zip(range(0, 80, 8), fresh, strict=True):
        batch = stream.at(range(k, k + 8))
        for name in ("states", "actions", "seen", "planned"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
        kept = sum(len(data[source].episodes[episode]) for source, episode in stream._kept)
        assert kept == stream._kept_frames <= 10
    before = len(reads)
    stream.at([79])
    stream.at([79])
    assert len(reads) <= before + 1


def test_a_damaged_episode_leaves_the_stream_as_it_was(
    data: tuple[LeRobotDataset, LeRobotDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever skips it goes on with all others, for as long as they like."""
    monkeypatch.setattr(robot_stream, "_KEPT_FRAMES", 12)
    stream, rows, skipped = RobotStream(data, cameras=()), LeRobotDataset.rows, 0

    def damaged(self: LeRobotDataset, index: int, names: list[str]) -> Any:
        if self is data[0] and index == 1:
            raise DataError("damaged")
        return rows(self, index, names)

    monkeypatch.setattr(LeRobotDataset, "rows", damaged)
    for k in range(0, 400, 4):
        try:
            stream.at(range(k, k + 4))
        except DataError:
            skipped += 1
        kept = sum(len(data[source].episodes[episode]) for source, episode in stream._kept)
        assert kept == stream._kept_frames <= 12
    assert 10 < skipped < 100


def test_pictures_in_tables_are_held_one_row_group_at_a_time(tmp_path: Path) -> None:
    """As other programs rewrite files: all episodes in one row group, of which each episode's table would hold the whole."""
    spec = DatasetSpec(replace(contract({"front": 64})), encoding=None)
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    with LeRobotWriter(folder, spec) as writer:
        for k in range(24):
            numbers = {"observation.state": np.zeros((6, 7), np.float32), "action": np.zeros((6, 7), np.float32)}
            writer.add(RobotEpisode(f"episode {k}", {"front": rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)}, numbers))
        writer.finish()
    (file,) = (folder / "data").rglob("*.parquet")
    pq.write_table(pq.read_table(file), file, row_group_size=10_000)
    stored, pool = file.stat().st_size, pa.default_memory_pool()
    stream = RobotStream([LeRobotDataset(folder)], cameras=("front",))
    before = pool.bytes_allocated()
    held: list[int] = []
    pictures = LeRobotDataset.pictures

    def watched(self: LeRobotDataset, *arguments: Any, **named: Any) -> np.ndarray:
        held.append(pool.bytes_allocated() - before)
        return pictures(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LeRobotDataset, "pictures", watched)
        batch = stream.at(range(32))
    assert len(set(batch.episodes.tolist())) > 12
    assert max(held) < 3 * stored


@pytest.mark.parametrize(("weights", "share"), [(None, 19 / 32), ((1, 3), 0.25), ((0, 2), 0.0)])
def test_data_sets_are_mixed_by_weight_and_frames_uniformly(
    data: tuple[LeRobotDataset, LeRobotDataset], weights: tuple[float, ...] | None, share: float
) -> None:
    n = 3000
    batch = RobotStream(data, cameras=(), weights=weights).at(range(n))
    first = float((batch.sources == 0).mean())
    assert abs(first - share) < 4 * (share * (1 - share) / n) ** 0.5 + 1e-9
    for source, one in enumerate(data):
        rows = [
            one.episodes[e].start + f for s, e, f in zip(batch.sources, batch.episodes, batch.frames, strict=True) if s == source
        ]
        if rows:
            counts = np.bincount(rows, minlength=len(one))
            expected = len(rows) / len(one)
            assert float(((counts - expected) ** 2 / expected).sum()) < len(one) + 5 * (2 * len(one)) ** 0.5


def test_what_cannot_be_mixed_is_refused(data: tuple[LeRobotDataset, LeRobotDataset], tmp_path: Path) -> None:
    slow = _write(tmp_path / "slow", [4], 0, control_hz=5.0)
    unsigned = _write(tmp_path / "unsigned", [4], 0)
    (unsigned.folder / "meta/ornstein_contract.json").unlink()
    unsigned = LeRobotDataset(unsigned.folder)
    for sets, options, kind, message in (
        ((data[0], slow), {}, ContractError, "control_hz: 5"),
        ((data[0], unsigned), {}, ContractError, "has no contract"),
        (data, {"cameras": ("side",)}, DataError, "no camera 'side'"),
        (data, {"weights": (1,)}, DataError, "as many weights"),
        (data, {"weights": (0, 0)}, DataError, "not all zero"),
        (data, {"weights": (1, float("nan"))}, DataError, "as many weights"),
        (data, {"history": 0}, DataError, "history"),
        ((), {}, DataError, "at least one data set"),
    ):
        with pytest.raises(kind, match=message):
            RobotStream(sets, **{"cameras": ("front",), **options})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least one moment"):
        RobotStream(data, cameras=()).at([])


def test_parts_of_an_episode_are_read_and_no_others(data: tuple[LeRobotDataset, LeRobotDataset]) -> None:
    one = data[0]
    whole = one.episode(1).frames["front"]
    for start, count in ((3, 4), (0, 1), (8, 1), (2, 2)):
        np.testing.assert_array_equal(one.pictures(1, "front", start, count), whole[start : start + count])
    for wrong in ((1, "front", 8, 2), (1, "front", -1, 1), (9, "front", 0, 1), (1, "side", 0, 1)):
        with pytest.raises(OrnsteinError):
            one.pictures(*wrong)
    with pytest.raises(DataError, match="no column of numbers 'speed'"):
        one.numbers(0, ["speed"])


def test_a_cut_video_is_named(data: tuple[LeRobotDataset, LeRobotDataset], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(data[0].folder, tmp_path / "cut")
    video = next((tmp_path / "cut").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:-600])
    with pytest.raises(DataError, match=r"\.mp4"):
        RobotStream([LeRobotDataset(tmp_path / "cut")], cameras=("front", "wrist")).at(range(30))
