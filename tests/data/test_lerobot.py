from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ornstein.core.errors import DataError
from ornstein.data import lerobot_format as v3
from ornstein.data.generate import generate_dataset
from ornstein.data.lerobot import LeRobotDataset, inspect_dataset, validate_dataset
from ornstein.data.lerobot_writer import LeRobotWriter
from ornstein.data.robot_windows import RobotWindows
from ornstein.simulation import PickExpert, TabletopEnv, contract, generate_episode

EPISODES = 3


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pick"
    generate_dataset(folder, episodes=EPISODES, noise=0.2, workers=1, image_size=64)
    return folder


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def test_what_was_recorded_comes_back(recorded: Path) -> None:
    data = LeRobotDataset(recorded)
    pictures = np.stack(list(data.frames("front")))
    env = TabletopEnv(image_size=64)
    for row in data.episodes:
        episode = generate_episode(env, PickExpert(), row.seed, noise=0.2)
        part = slice(row.start, row.stop)
        assert row.task == episode.instruction
        np.testing.assert_array_equal(data.actions[part], episode.actions)
        np.testing.assert_array_equal(data.states[part], episode.states)
        np.testing.assert_array_equal(data.target_pixels[part], episode.target_pixels)
        error = (pictures[part].astype(float) - episode.frames["front"]) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 40
    env.close()
    assert data.contract == contract(64)


def test_the_layout_is_the_published_one(recorded: Path) -> None:
    info = json.loads((recorded / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert info["splits"] == {"train": f"0:{EPISODES}"}
    assert info["features"]["observation.images.front"]["dtype"] == "video"
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    frames = pq.read_table(recorded / "data/chunk-000/file-000.parquet")
    assert set(frames.column_names) == {k for k, f in info["features"].items() if f["dtype"] != "video"}
    assert frames["index"].to_pylist() == list(range(info["total_frames"]))
    episodes = pq.read_table(recorded / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for row in episodes:
        length = row["dataset_to_index"] - row["dataset_from_index"]
        assert row["length"] == length
        span = row["videos/observation.images.front/to_timestamp"] - row["videos/observation.images.front/from_timestamp"]
        assert abs(span - length / info["fps"]) < 1e-9
        mine = slice(row["dataset_from_index"], row["dataset_to_index"])
        np.testing.assert_allclose(
            frames["timestamp"].to_numpy()[mine], np.arange(length, dtype=np.float32) / np.float32(info["fps"]), rtol=1e-6
        )
        assert frames["episode_index"].to_pylist()[mine] == [row["episode_index"]] * length
    tasks = pq.read_table(recorded / "meta/tasks.parquet")
    assert tasks.column_names == ["task_index", "task"]
    assert [tasks["task"].to_pylist()[i] for i in (0,)] == episodes[0]["tasks"]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_statistics_are_those_of_all_frames(recorded: Path) -> None:
    data = LeRobotDataset(recorded)
    stats = json.loads((recorded / "meta/stats.json").read_text())
    for key, values in ((v3.ACTION, data.actions), (v3.STATE, data.states)):
        for name, reference in (("mean", values.mean(0)), ("std", values.std(0)), ("min", values.min(0)), ("max", values.max(0))):
            np.testing.assert_allclose(stats[key][name], reference, atol=1e-6)
        assert stats[key]["count"] == [len(values)]
    image = stats["observation.images.front"]
    assert np.array(image["mean"]).shape == (3, 1, 1)
    pictures = np.stack(list(data.frames("front"))) / 255
    np.testing.assert_allclose(np.array(image["mean"]).ravel(), pictures.mean((0, 1, 2)), atol=2e-3)


def test_merging_is_exact() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(k, 1 + k, (5 + 7 * k, 3)) for k in range(4)]
    merged = v3.merge(v3.statistics(part, image=False) for part in parts)
    whole = v3.statistics(np.concatenate(parts), image=False)
    for name, values in whole.items():
        np.testing.assert_allclose(merged[name], values, rtol=1e-12)


def test_the_data_do_not_depend_on_the_number_of_workers(recorded: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path / "two", episodes=EPISODES, noise=0.2, workers=2, image_size=64)
    assert LeRobotDataset(tmp_path / "two").fingerprint == LeRobotDataset(recorded).fingerprint


def test_inspect_and_validate(recorded: Path) -> None:
    summary = inspect_dataset(recorded)
    assert summary["episodes"] == EPISODES
    assert summary["features"]["action"] == [7]
    validate_dataset(recorded)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _drop_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 5), path)


def _poison(path: Path) -> None:
    import pyarrow as pa

    table = pq.read_table(path)
    rows = table["action"].to_pylist()
    rows[4][2] = float("nan")
    index = table.column_names.index("action")
    pq.write_table(table.set_column(index, "action", pa.array(rows, pa.list_(pa.float32(), 7))), path)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("data/chunk-000/file-000.parquet", _cut, "damaged or cut short"),
        ("data/chunk-000/file-000.parquet", Path.unlink, "lacks data/chunk-000"),
        ("data/chunk-000/file-000.parquet", _drop_rows, "rows of action"),
        ("data/chunk-000/file-000.parquet", _poison, "action is not finite at frame 4 of episode 0"),
        ("videos/observation.images.front/chunk-000/file-000.mp4", _cut, r"\.mp4"),
        ("meta/info.json", Path.unlink, "lacks meta/info.json"),
        ("meta/info.json", _cut, "damaged"),
        ("meta/ornstein_contract.json", _cut, "contract"),
    ],
)
def test_damage_is_found_and_named(copy: Path, file: str, damage: object, message: str) -> None:
    damage(copy / file)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        validate_dataset(copy)


def test_another_version_is_refused(copy: Path) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    (copy / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    with pytest.raises(DataError, match=r"v2\.1"):
        LeRobotDataset(copy)


def _arrays(length: int = 4) -> dict[str, object]:
    return {
        "frames": {"front": np.zeros((length, 64, 64, 3), np.uint8)},
        "states": np.zeros((length, 7), np.float32),
        "actions": np.zeros((length, 7), np.float32),
        "target_pixels": np.zeros((length, 2), np.float32),
        "task": "x",
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((4, 6), np.float32)}, "action must be"),
        ({"states": np.full((4, 7), np.nan, np.float32)}, "not finite at frame 0"),
        ({"frames": {"side": np.zeros((4, 64, 64, 3), np.uint8)}}, "has cameras"),
        ({"frames": {"front": np.zeros((4, 32, 64, 3), np.uint8)}}, "must give uint8"),
        ({"actions": np.zeros((0, 7), np.float32)}, "empty"),
    ],
)
def test_wrong_episodes_are_refused_and_nothing_is_left(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message), LeRobotWriter(tmp_path / "d", contract(64), {}) as writer:
        writer.add(**_arrays())  # type: ignore[arg-type]
        writer.add(**{**_arrays(), **change})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_existing_folders_and_full_disks_are_clear_errors(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="exists already"):
        LeRobotWriter(recorded, contract(64), {})

    def full(*args: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DataError, match="no space left"), LeRobotWriter(tmp_path / "d", contract(64), {}) as writer:
        writer.add(**_arrays())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_windows_are_consecutive_frames_of_one_episode_and_keyed_by_their_number(recorded: Path, tmp_path: Path) -> None:
    data = LeRobotDataset(recorded)
    windows = RobotWindows(data, "front", 3, tmp_path, seed=1)
    drawn = windows.at(np.arange(40))
    pictures = np.stack(list(data.frames("front")))
    for k in range(40):
        (start,) = [s for s in range(len(data) - 2) if np.array_equal(data.states[s : s + 3], drawn.states[k])][:1]
        episode = next(e for e in data.episodes if e.start <= start < e.stop)
        assert start + 3 <= episode.stop
        assert drawn.tasks[k] == episode.task
        assert np.array_equal(drawn.pictures[k], pictures[start : start + 3])
        assert np.array_equal(drawn.actions[k], data.actions[start : start + 3])
    again = RobotWindows(data, "front", 3, tmp_path, seed=1).at(np.array([7]))
    assert np.array_equal(again.pictures[0], drawn.pictures[7])
    with pytest.raises(DataError, match="shorter than a window"):
        RobotWindows(data, "front", 100, tmp_path)
