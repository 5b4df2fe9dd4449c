from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ornstein.core import DataError
from ornstein.data.lerobot import LeRobotDataset, inspect_dataset, validate_dataset

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"


@pytest.fixture
def data(toy_dataset: Path, tmp_path: Path) -> Path:
    """A copy to break, as another program would leave it: without our manifest."""
    folder = tmp_path / "data"
    shutil.copytree(toy_dataset, folder)
    (folder / "meta/ornstein_manifest.json").unlink()
    return folder


def everything(folder: Path) -> None:
    """Open and read all of it."""
    dataset = LeRobotDataset(folder)
    assert dataset.actions.shape == (len(dataset), 2)
    for _ in dataset:
        pass


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(path: Path, change: Callable[[dict[str, list[Any]]], Any]) -> None:
    """Rewrite a parquet file in one row group, as other programs may."""
    table = pq.read_table(path)
    content = table.to_pydict()
    change(content)
    schema = pa.schema([field for field in table.schema if field.name in content], table.schema.metadata)
    pq.write_table(pa.Table.from_pydict(content, schema), path)


def put(column: str, row: int, value: Any) -> Callable[[dict[str, list[Any]]], None]:
    def change(content: dict[str, list[Any]]) -> None:
        content[column][row] = value

    return change


# ---- reading ----


def test_one_camera_or_none_can_be_decoded(toy_dataset: Path) -> None:
    dataset = LeRobotDataset(toy_dataset)
    assert set(dataset.episode(2).frames) == {"front", "wrist"}
    assert set(dataset.episode(2, cameras=["wrist"]).frames) == {"wrist"}
    assert dataset.episode(2, cameras=[]).frames == {}
    with pytest.raises(DataError, match=r"no camera 'top'; it has \['front', 'wrist'\]"):
        dataset.episode(2, cameras=["top"])
    with pytest.raises(DataError, match=r"episodes 0 … 6, got 7"):
        dataset.episode(7)
    with pytest.raises(DataError, match="no column of numbers 'observation.images.front'"):
        dataset.column("observation.images.front")


def test_order_of_reading_does_not_matter(toy_dataset: Path) -> None:
    forward, backward = LeRobotDataset(toy_dataset), LeRobotDataset(toy_dataset)
    for index in (6, 2, 3, 0, 5, 5, 1, 4):
        one, other = forward.episode(index), backward.episode(index)
        fresh = LeRobotDataset(toy_dataset).episode(index)
        for camera in one.frames:
            np.testing.assert_array_equal(one.frames[camera], fresh.frames[camera])
        np.testing.assert_array_equal(other.actions, fresh.actions)


def test_row_groups_need_not_be_episodes(data: Path) -> None:
    before = [episode.columns for episode in LeRobotDataset(data)]
    table = pq.read_table(data / DATA)
    for rows in (1, 4, 1000):
        pq.write_table(table, data / DATA, row_group_size=rows)
        for old, new in zip(before, LeRobotDataset(data), strict=True):
            for key, values in old.items():
                np.testing.assert_array_equal(new.columns[key], values)


def test_lists_of_free_length_and_an_unnamed_task_index_read_too(data: Path) -> None:
    # Both occur in data sets of older versions of lerobot.
    expected = LeRobotDataset(data).actions
    table = pq.read_table(data / DATA)
    place = table.schema.get_field_index("action")
    pq.write_table(table.set_column(place, "action", pa.array(table["action"].to_pylist(), pa.list_(pa.float32()))), data / DATA)
    tasks = pq.read_table(data / "meta/tasks.parquet").rename_columns(["task_index", "__index_level_0__"])
    pq.write_table(tasks, data / "meta/tasks.parquet")
    np.testing.assert_array_equal(LeRobotDataset(data).actions, expected)
    uneven = [[0.0, 0.0, 0.0], [0.0], *table["action"].to_pylist()[2:]]
    pq.write_table(table.set_column(place, "action", pa.array(uneven, pa.list_(pa.float32()))), data / DATA)
    with pytest.raises(DataError, match="'action' in .*: lists whose length is not 2"):
        LeRobotDataset(data).actions
    pq.write_table(table, data / DATA)
    assert LeRobotDataset(data).tasks == ("do number 0", "do number 1", "do number 2")
    everything(data)


def test_another_programs_data_has_no_contract_and_is_valid(data: Path) -> None:
    for name in ("contract", "provenance"):
        (data / f"meta/ornstein_{name}.json").unlink()
    dataset = LeRobotDataset(data)
    assert dataset.contract is None
    assert dataset.provenance == {}
    validate_dataset(data)
    assert inspect_dataset(data)["contract"] is None


def test_the_fingerprint_is_of_the_content(toy_dataset: Path, data: Path) -> None:
    fingerprint = LeRobotDataset(toy_dataset).fingerprint
    assert LeRobotDataset(data).fingerprint == fingerprint  # the manifest is not part of it, nor is the place
    edit_json(data / "meta/ornstein_provenance.json", lambda content: content.update(note="copied"))
    assert LeRobotDataset(data).fingerprint == fingerprint
    content = bytearray((data / VIDEO).read_bytes())
    content[-1] ^= 1
    (data / VIDEO).write_bytes(content)
    assert LeRobotDataset(data).fingerprint != fingerprint


def test_inspection_is_json_and_right(toy_dataset: Path) -> None:
    summary = json.loads(json.dumps(inspect_dataset(toy_dataset)))
    dataset = LeRobotDataset(toy_dataset)
    expected = {"robot": "toy", "episodes": 7, "frames": len(dataset), "fps": 5, "tasks": 3, "failed": 2}
    assert expected.items() <= summary.items()
    assert summary["cameras"] == {"front": "32×48×3", "wrist": "16×16×3"}
    assert summary["contract"] == dataset.contract.fingerprint if dataset.contract else False
    size = sum(path.stat().st_size for path in toy_dataset.rglob("*") if path.is_file())
    assert summary["megabytes"] == pytest.approx(size / 1e6, abs=0.006)


# ---- what must not pass ----


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, name) for name in ("meta/info.json", "meta/tasks.parquet", DATA, VIDEO, "meta/episodes")),
        (EPISODES, "meta/episodes"), ("data", DATA), ("videos", VIDEO), ("meta", "meta/info.json"),
    ],
)  # fmt: skip
def test_a_missing_part_is_named(data: Path, name: str, said: str) -> None:
    path = data / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=f"lacks {said}"):
        everything(data)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        LeRobotDataset(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"lacks meta/info\.json"):
        LeRobotDataset(tmp_path)


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet", DATA, VIDEO, EPISODES, "meta/ornstein_contract.json"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.97])
def test_a_truncated_file_is_named(data: Path, name: str, share: float) -> None:
    content = (data / name).read_bytes()
    (data / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        everything(data)


@pytest.mark.parametrize("name", ["meta/info.json", "meta/stats.json", "meta/tasks.parquet", DATA, VIDEO, EPISODES])
def test_a_flipped_bit_is_found_by_the_manifest(toy_dataset: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(toy_dataset, tmp_path / "data")
    path = tmp_path / "data" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} has changed since it was written"):
        validate_dataset(tmp_path / "data")
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"{name} has \d+ bytes, \d+ were written"):
        validate_dataset(tmp_path / "data")
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        validate_dataset(tmp_path / "data")


INFO_CASES: list[tuple[dict[str, Any], str]] = [
    ({"codebase_version": "v2.1"}, r"LeRobotDataset 'v2\.1'.*ornstein data convert"),
    ({"codebase_version": "v4.0"}, r"LeRobotDataset 'v4\.0', and 'v3\.0' is what is read here"),
    ({"codebase_version": None}, "LeRobotDataset None"),
    ({"total_episodes": 8}, r"lists 7 episodes and \d+ frames, meta/info\.json says 8"),
    ({"total_frames": 1}, r"meta/info\.json says 7 and 1"),
    ({"total_tasks": 2}, r"tasks\.parquet numbers its 3 tasks"),
    ({"fps": 0}, "'fps' is 0"),
    ({"fps": "five"}, "'fps' is 'five'"),
    ({"fps": 10}, r"10 frames a second in meta/info\.json, 5\.0 in meta/ornstein_contract\.json"),
    ({"features": None}, "'features' is None"),
    ({"features": {"action": {"shape": [2]}}}, "lacks its dtype or shape"),
    ({"data_path": "../{chunk_index}{file_index}.parquet"}, "leads out of the data set's folder"),
    ({"data_path": "/etc/passwd"}, "leads out of the data set's folder"),
    ({"data_path": "{nonsense}"}, "cannot be filled in"),
    ({"video_path": None}, "no video_path"),
]


@pytest.mark.parametrize(("change", "message"), INFO_CASES)
def test_an_info_that_disagrees(data: Path, change: dict[str, Any], message: str) -> None:
    edit_json(data / "meta/info.json", lambda content: content.update(change))
    with pytest.raises(DataError, match=message):
        everything(data)


def test_features_that_disagree_with_files(data: Path) -> None:
    info = data / "meta/info.json"
    original = info.read_text()
    edit_json(info, lambda content: content["features"].pop("task_index"))
    with pytest.raises(DataError, match=r"lacks the features \['task_index'\]"):
        everything(data)
    info.write_text(original)
    edit_json(info, lambda content: content["features"].update(torque={"dtype": "float32", "shape": [7], "names": None}))
    with pytest.raises(DataError, match=r"lacks the columns \['torque'\]"):
        everything(data)
    info.write_text(original)
    edit_json(info, lambda content: content["features"]["observation.target_pixel"].update(shape=[3]))
    with pytest.raises(DataError, match=r"'observation.target_pixel' in episode 0: .*numbers for"):
        everything(data)
    info.write_text(original)
    edit_json(info, lambda content: content["features"]["observation.target_pixel"].update(dtype="float64"))
    with pytest.raises(DataError, match="numbers of type float, info.json says float64"):
        everything(data)


def test_a_contract_that_disagrees(data: Path) -> None:
    path = data / "meta/ornstein_contract.json"
    edit_json(path, lambda content: content["cameras"][0].update(height=64))
    with pytest.raises(DataError, match=r"observation\.images\.front is \(32, 48, 3\) in meta/info\.json and \(64, 48, 3\)"):
        everything(data)
    edit_json(path, lambda content: content.pop("robot"))
    with pytest.raises(DataError, match="ornstein_contract.json does not read"):
        everything(data)


def test_numbers_that_must_not_train_anything(data: Path) -> None:
    original = (data / DATA).read_bytes()
    edit_rows(data / DATA, put("action", 3, [0.0, float("nan")]))
    with pytest.raises(DataError, match=r"'action' in data/.*not finite, the first at frame 3, dimension 1"):
        LeRobotDataset(data).actions
    with pytest.raises(DataError, match=r"'action' in episode 0: .*not finite"):
        LeRobotDataset(data).episode(0)
    (data / DATA).write_bytes(original)
    edit_rows(data / DATA, put("observation.state", 0, [float("inf"), 0.0, 0.0]))
    with pytest.raises(DataError, match="'observation.state' in episode 0"):
        everything(data)
    (data / DATA).write_bytes(original)
    edit_rows(data / DATA, put("next.done", 0, None))
    with pytest.raises(DataError, match="'next.done' in episode 0: 1 values are missing"):
        everything(data)


def test_rows_that_are_missing_or_moved(data: Path) -> None:
    table = pq.read_table(data / DATA)
    pq.write_table(table.slice(0, table.num_rows - 2), data / DATA)
    with pytest.raises(DataError, match=rf"has {table.num_rows - 2} rows; its episodes have {table.num_rows} frames"):
        everything(data)
    order = np.r_[1, 0, np.arange(2, table.num_rows)]
    pq.write_table(table.take(order), data / DATA)
    with pytest.raises(DataError, match="the rows of episode 0 are not frames 0 …"):
        everything(data)


def test_episodes_that_are_listed_wrongly(data: Path) -> None:
    original = (data / EPISODES).read_bytes()
    for column, row, value in (
        ("length", 2, 100), ("dataset_from_index", 3, 0), ("dataset_to_index", 0, 0), ("episode_index", 6, 7),
    ):  # fmt: skip
        (data / EPISODES).write_bytes(original)
        edit_rows(data / EPISODES, put(column, row, value))
        with pytest.raises(DataError, match=r"episode \d is listed as number"):
            everything(data)
    (data / EPISODES).write_bytes(original)
    edit_rows(data / EPISODES, lambda content: content.pop("dataset_from_index"))
    with pytest.raises(DataError, match="lacks 'dataset_from_index'"):
        everything(data)


def test_videos_that_do_not_match(data: Path) -> None:
    original, other = (data / VIDEO).read_bytes(), (data / VIDEO.replace("front", "wrist")).read_bytes()
    (data / VIDEO).write_bytes(other)
    with pytest.raises(DataError, match=r"pictures of 16 × 16 pixels, meta/info\.json says \(32, 48, 3\)"):
        everything(data)
    (data / VIDEO).write_bytes(original)
    edit_rows(data / EPISODES, put("videos/observation.images.front/from_timestamp", 6, 1000.0))
    with pytest.raises(DataError, match="frame 5000 of .* is wanted, and the video ends"):
        everything(data)


def test_a_video_of_another_number_of_frames(data: Path, toy_dataset: Path) -> None:
    from ornstein.data.lerobot_video import VideoEncoding, encode

    count = len(LeRobotDataset(toy_dataset)) - 1
    (data / VIDEO).write_bytes(encode(np.zeros((count, 32, 48, 3), np.uint8), 5, VideoEncoding()))
    with pytest.raises(DataError, match=f"holds {count} frames, its episodes have {count + 1}"):
        everything(data)


# ---- what only validation sees ----


def test_validation_names_all_that_is_wrong(data: Path) -> None:
    validate_dataset(data)
    edit_rows(data / DATA, lambda content: [put("timestamp", 1, 9.0)(content), put("task_index", 2, 5)(content)])
    with pytest.raises(DataError) as caught:
        validate_dataset(data)
    text = str(caught.value)
    assert "episode 0: timestamp is not frame / 5 s" in text
    assert "episode 0: task_index 5 is not one of the 3 tasks" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("frame_index", 7, "episode 0: frame_index does not count"),
        ("episode_index", 1, "episode 0: episode_index does not count"),
        ("action", [0.2, 0.0], r"episode 0: 1 numbers of 'action' are out of bounds, the first at frame 1: dx is 0\.2 m"),
        ("observation.state", [0.0, 0.0, 500.0], "meta/stats.json: mean of 'observation.state' is"),
        ("index", 40, "rows of episode 0 are not frames"),
    ],
)
def test_validation_sees_a_wrong_number(data: Path, column: str, value: Any, message: str) -> None:
    edit_rows(data / DATA, put(column, 1, value))
    with pytest.raises(DataError, match=message):
        validate_dataset(data)


def test_validation_compares_tasks_and_statistics(data: Path) -> None:
    original = (data / EPISODES).read_bytes()
    edit_rows(data / EPISODES, put("tasks", 4, ["do number 2"]))
    with pytest.raises(DataError, match="episode 4: its task is 'do number 2' in meta/episodes"):
        validate_dataset(data)
    (data / EPISODES).write_bytes(original)
    edit_json(data / "meta/stats.json", lambda content: content["action"].update(std=[0.3, 0.3]))
    with pytest.raises(DataError, match=r"meta/stats\.json: std of 'action' is \[0\.3, 0\.3\]"):
        validate_dataset(data)
    edit_json(data / "meta/stats.json", lambda content: content.pop("action"))
    with pytest.raises(DataError, match=r"lacks \['max', 'mean', 'min', 'std'\] of 'action'"):
        validate_dataset(data)
    (data / "meta/stats.json").unlink()
    with pytest.raises(DataError, match=r"lacks meta/stats\.json"):
        validate_dataset(data)
