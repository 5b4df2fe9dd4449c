"""Several recordings as one, against each of them read by itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ornstein.core.errors import ContractError, DataError
from ornstein.data.demonstrations import record_demonstrations
from ornstein.data.joined_datasets import JoinedDatasets, shares
from ornstein.data.lerobot import LeRobotDataset
from ornstein.data.robot_windows import RobotWindows


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[LeRobotDataset]:
    root = tmp_path_factory.mktemp("sets")
    for name, seed, episodes in (("a", 0, 3), ("b", 50, 1)):
        record_demonstrations(root / name, episodes=episodes, seed=seed, cameras={"front": 64}, plain=True)
    return [LeRobotDataset(root / name) for name in ("a", "b")]


def test_all_rows_are_there_in_their_order(sets: list[LeRobotDataset]) -> None:
    joined = JoinedDatasets(sets)
    assert len(joined) == len(sets[0]) + len(sets[1])
    for name in ("states", "actions", "pointers"):
        assert np.array_equal(getattr(joined, name), np.concatenate([getattr(one, name) for one in sets]))
    assert np.array_equal(
        joined.column("observation.target_heading")[len(sets[0]) :], sets[1].column("observation.target_heading")
    )
    assert [episode.index for episode in joined.episodes] == [0, 1, 2, 3]
    assert all(a.stop == b.start for a, b in pairwise(joined.episodes))
    assert joined.episodes[3].task == sets[1].episodes[0].task
    last = list(joined.frames("front"))[-1]
    assert np.array_equal(last, list(sets[1].frames("front"))[-1])
    assert joined.fingerprint != JoinedDatasets(sets[::-1]).fingerprint


def test_the_contract_has_statistics_of_all_numbers(sets: list[LeRobotDataset]) -> None:
    joined = JoinedDatasets(sets)
    assert joined.contract is not None
    found = joined.contract.statistics
    assert found is not None
    assert found.count == len(joined)
    np.testing.assert_allclose(found.mean["action"], joined.actions.mean(0, dtype=np.float64), atol=1e-6)
    assert sets[0].contract is not None
    assert sets[0].contract.statistics is not None
    assert set(found.mean) == set(sets[0].contract.statistics.mean)


@pytest.mark.parametrize(("weights", "expected"), [([1, 1], 0.5), ([9, 1], 0.1), ([0, 2], 1.0), (None, None)])
def test_each_is_drawn_as_often_as_its_weight_says(
    sets: list[LeRobotDataset], tmp_path: Path, weights: list[float] | None, expected: float | None
) -> None:
    joined = JoinedDatasets(sets)
    rows, tasks = RobotWindows(joined, "front", 3, tmp_path, weights=weights).rows(np.arange(2000))
    later = rows[:, 0] >= len(sets[0])
    if expected is None:
        windows = [sum(len(episode) - 2 for episode in one.episodes) for one in sets]
        expected = windows[1] / sum(windows)
    assert abs(later.mean() - expected) < 4 * np.sqrt(0.25 / 2000)
    inside = np.array([any(e.start <= row[0] and row[-1] < e.stop for e in joined.episodes) for row in rows])
    assert inside.all()
    assert {tasks[k] for k in np.flatnonzero(later)} <= {sets[1].episodes[0].task}
    if weights == [1, 1]:  # every window of a data set as often as every other
        counts = np.bincount(rows[later, 0] - len(sets[0]))
        assert (counts > 0).mean() > 0.9


def test_what_cannot_be_joined_is_refused(sets: list[LeRobotDataset], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one"):
        JoinedDatasets([])
    with pytest.raises(DataError, match="same data"):
        JoinedDatasets([sets[0], sets[0]])
    record_demonstrations(tmp_path / "other", episodes=1, cameras={"front": 48}, plain=True)
    with pytest.raises(ContractError, match="48"):
        JoinedDatasets([sets[0], LeRobotDataset(tmp_path / "other")])
    (tmp_path / "other" / "meta" / "contract.json").unlink(missing_ok=True)
    unsigned = LeRobotDataset(tmp_path / "other")
    unsigned.contract = None
    with pytest.raises(ContractError, match="no contract"):
        JoinedDatasets([sets[0], unsigned])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    with pytest.raises(DataError, match="2 data sets need as many weights"):
        shares([10, 20], weights)


def test_by_size_unless_weighted() -> None:
    assert shares([10, 30], None).tolist() == [0.25, 0.75]
    assert shares([10, 30], [1, 1]).tolist() == [0.5, 0.5]
