from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ornstein.core import Camera, Channel, DataError, EmbodimentContract
from ornstein.data.lerobot import DatasetSpec, Feature, LeRobotDataset, LeRobotWriter, RobotEpisode, validate_dataset
from ornstein.data.lerobot_format import INDEX_FEATURES, file_path
from ornstein.data.lerobot_staging import staging_folder

Same = Callable[[Path, Path], bool]
Make = Callable[..., RobotEpisode]
Limit = Callable[[int], AbstractContextManager[None]]
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def write(out: Path, spec: DatasetSpec, episodes: list[RobotEpisode]) -> Path:
    with LeRobotWriter(out, spec) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.finish()


# ---- the layout, spelt out: what the lerobot library writes and expects ----


def test_files_are_where_the_format_wants_them(toy_dataset: Path) -> None:
    standard = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet"}
    standard |= {"data/chunk-000/file-000.parquet", *(f"videos/{key}/chunk-000/file-000.mp4" for key in (FRONT, WRIST))}
    ours = {"meta/ornstein_contract.json", "meta/ornstein_provenance.json", "meta/ornstein_manifest.json"}
    assert {path.relative_to(toy_dataset).as_posix() for path in toy_dataset.rglob("*") if path.is_file()} == standard | ours


def test_info_says_what_the_format_wants(toy_dataset: Path) -> None:
    info = json.loads((toy_dataset / "meta/info.json").read_text())
    features = info.pop("features")
    frames = info.pop("total_frames")
    assert info == {
        "codebase_version": "v3.0",
        "fps": 5,
        "total_episodes": 7,
        "total_tasks": 3,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": "toy",
        "splits": {"train": "0:7"},
    }
    assert frames == pq.read_metadata(toy_dataset / "data/chunk-000/file-000.parquet").num_rows
    counters = ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    own = [FRONT, WRIST, "observation.state", "action", "observation.target_pixel", "next.done"]
    assert list(features) == own + counters
    assert features["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "gripper"]}
    assert features["next.done"] == {"dtype": "bool", "shape": [1], "names": None}
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    assert all(features[key] == {"dtype": "int64", "shape": [1], "names": None} for key in counters[1:])
    front = features[FRONT]
    assert (front["dtype"], front["shape"], front["names"]) == ("video", [32, 48, 3], ["height", "width", "channels"])
    with av.open(str(toy_dataset / f"videos/{FRONT}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        probed = {"video.height": stream.height, "video.width": stream.width, "video.codec": stream.codec.canonical_name}
        probed |= {"video.pix_fmt": stream.pix_fmt, "video.fps": int(stream.base_rate or 0)}
    assert probed.items() <= front["info"].items()
    assert {"has_audio": False, "is_depth_map": False, "video.channels": 3, "video.g": 2}.items() <= front["info"].items()


def test_data_columns_types_and_row_groups(toy_dataset: Path) -> None:
    file = pq.ParquetFile(toy_dataset / "data/chunk-000/file-000.parquet")
    schema = file.schema_arrow
    expected = {
        "observation.state": pa.list_(pa.float32(), 3),
        "action": pa.list_(pa.float32(), 2),
        "observation.target_pixel": pa.list_(pa.float32(), 2),
        "next.done": pa.bool_(),
        "timestamp": pa.float32(),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), pa.int64()),
    }
    assert {field.name: field.type for field in schema} == expected
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert described["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "List"}
    assert described["index"] == {"dtype": "int64", "_type": "Value"}
    assert list(described) == schema.names
    assert file.num_row_groups == 7
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    table = file.read().to_pydict()
    lengths = np.bincount(table["episode_index"])
    assert table["index"] == list(range(sum(lengths)))
    assert table["frame_index"] == [t for length in lengths for t in range(length)]
    np.testing.assert_array_equal(np.float32(table["timestamp"]), np.float32(np.array(table["frame_index"]) / 5))


def test_tasks_are_found_by_their_sentence(toy_dataset: Path) -> None:
    table = pq.read_table(toy_dataset / "meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1, 2], "task": ["do number 0", "do number 1", "do number 2"]}
    about = json.loads(table.schema.metadata[b"pandas"])
    assert about["index_columns"] == ["task"]
    # pandas looks the index up among the columns: without its entry there, reading raises KeyError.
    assert [column["name"] for column in about["columns"]] == ["task_index", "task"]
    data = pq.read_table(toy_dataset / "data/chunk-000/file-000.parquet").to_pydict()
    first = dict(zip(data["episode_index"], data["task_index"], strict=True))
    assert first == {episode: episode % 3 for episode in range(7)}


def test_rows_of_episodes(toy_dataset: Path, episode: Make) -> None:
    table = pq.read_table(toy_dataset / "meta/episodes/chunk-000/file-000.parquet")
    rows = table.to_pylist()
    lengths = [len(episode(seed)) for seed in range(7)]
    ends = np.cumsum(lengths)
    assert [row["length"] for row in rows] == lengths
    assert [row["dataset_to_index"] for row in rows] == ends.tolist()
    assert [row["dataset_from_index"] for row in rows] == [0, *ends[:-1].tolist()]
    assert [row["tasks"] for row in rows] == [[f"do number {seed % 3}"] for seed in range(7)]
    for key in (FRONT, WRIST):
        np.testing.assert_allclose([row[f"videos/{key}/to_timestamp"] for row in rows], ends / 5)
        np.testing.assert_allclose([row[f"videos/{key}/from_timestamp"] for row in rows], [0, *ends[:-1] / 5])
    places = ["data/chunk_index", "data/file_index", "meta/episodes/chunk_index", "meta/episodes/file_index"]
    assert all(
        row[place] == 0 for row in rows for place in [*places, f"videos/{FRONT}/chunk_index", f"videos/{FRONT}/file_index"]
    )
    picture, number, count = pa.list_(pa.list_(pa.list_(pa.float64()))), pa.list_(pa.float64()), pa.list_(pa.int64())
    for part in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"):
        assert table.schema.field(f"stats/{FRONT}/{part}").type == picture
        assert table.schema.field(f"stats/action/{part}").type == number
    assert table.schema.field("stats/action/count").type == count
    assert {name.split("/")[1] for name in table.column_names if name.startswith("stats/")} == {
        FRONT, WRIST, "observation.state", "action", "observation.target_pixel", "next.done", *INDEX_FEATURES,
    }  # fmt: skip


def test_statistics_are_those_of_all_frames(toy_dataset: Path, episode: Make) -> None:
    episodes = [episode(seed) for seed in range(7)]
    stats = json.loads((toy_dataset / "meta/stats.json").read_text())
    actions = np.concatenate([e.actions for e in episodes]).astype(np.float64)
    pixels = np.concatenate([e.frames["front"].reshape(-1, 3) for e in episodes]) / 255
    quantile = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
    for key, values, shape in (("action", actions, (2,)), (FRONT, pixels, (3, 1, 1))):
        expected = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
        expected |= {name: np.quantile(values, q, axis=0) for name, q in quantile.items()}
        assert set(stats[key]) == {*expected, "count"}
        assert stats[key]["count"] == [len(actions)]
        for name, value in expected.items():
            assert np.shape(stats[key][name]) == shape
            np.testing.assert_allclose(np.ravel(stats[key][name]), value, rtol=1e-10, atol=1e-12, err_msg=f"{key} {name}")
    assert stats["index"]["max"] == [len(actions) - 1]
    assert stats["next.done"]["mean"] == pytest.approx([7 / len(actions)])
    row = pq.read_table(toy_dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[4]
    np.testing.assert_allclose(row["stats/action/std"], episodes[4].actions.astype(np.float64).std(0), rtol=1e-10)
    wrist = episodes[4].frames["wrist"].reshape(-1, 3) / 255
    np.testing.assert_allclose(np.ravel(row[f"stats/{WRIST}/mean"]), wrist.mean(0), rtol=1e-10)


def test_the_contract_comes_with_the_statistics(toy_dataset: Path, spec: DatasetSpec, episode: Make) -> None:
    contract = LeRobotDataset(toy_dataset).contract
    assert contract is not None
    assert contract.statistics is not None
    assert replace(contract, statistics=None) == spec.contract
    actions = np.concatenate([episode(seed).actions for seed in range(7)]).astype(np.float64)
    np.testing.assert_allclose(contract.statistics.std["action"], actions.std(0), rtol=1e-10)
    assert contract.statistics.count == len(actions)


# ---- round trip ----


def test_what_is_written_is_read(toy_dataset: Path, episode: Make) -> None:
    data = LeRobotDataset(toy_dataset)
    read = list(data)
    assert len(read) == 7
    for seed, found in enumerate(read):
        given = episode(seed)
        assert found.instruction == given.instruction
        assert set(found.columns) == set(given.columns)
        for key, values in given.columns.items():
            assert found.columns[key].dtype == values.dtype
            np.testing.assert_array_equal(found.columns[key], values)
        for camera, pictures in given.frames.items():
            assert found.frames[camera].shape == pictures.shape
            error = np.mean((found.frames[camera].astype(float) - pictures) ** 2)
            assert 10 * np.log10(255**2 / error) > 38
    assert data.episodes[3].seed == 3
    np.testing.assert_array_equal(data.actions, np.concatenate([e.actions for e in read]))
    np.testing.assert_array_equal(
        data.column("observation.target_pixel"), np.concatenate([e.columns["observation.target_pixel"] for e in read])
    )
    np.testing.assert_array_equal(np.stack(list(data.frames("wrist"))), np.concatenate([e.frames["wrist"] for e in read]))
    assert data.provenance["failed_seeds"] == [5, 9]
    validate_dataset(toy_dataset)


def test_episodes_spread_over_files_at_the_limits(tmp_path: Path) -> None:
    contract = EmbodimentContract(
        "toy", (Camera("front", 128, 128),), (), (Channel("dx", "m", -1, 1),), "delta", "none", "none", 10, 1
    )
    spec = DatasetSpec(contract, {"signal": Feature("float64", (2000,))}, data_file_mb=1, video_file_mb=1)
    rng = np.random.default_rng(0)

    def noisy(length: int) -> RobotEpisode:
        columns = {"action": np.zeros((length, 1), np.float32), "signal": rng.normal(size=(length, 2000))}
        return RobotEpisode("shake", {"front": rng.integers(0, 256, (length, 128, 128, 3), dtype=np.uint8)}, columns)

    episodes = [noisy(length) for length in (12, 9, 20, 15, 14)]
    out = write(tmp_path / "data", spec, episodes)
    data = LeRobotDataset(out)
    assert len({row.data for row in data.episodes}) > 1
    assert len({row.videos[FRONT][0] for row in data.episodes}) > 1
    assert data.episodes[0].data == "data/chunk-000/file-000.parquet"
    assert all(path.stat().st_size < 1.1 * 1024**2 for path in out.rglob("*") if path.is_file() and "meta" not in path.parts)
    for index in (4, 0, 3, 1, 2):
        np.testing.assert_array_equal(data.episode(index).columns["signal"], episodes[index].columns["signal"])
        assert len(data.episode(index).frames["front"]) == len(episodes[index])
    np.testing.assert_array_equal(data.column("signal"), np.concatenate([e.columns["signal"] for e in episodes]))
    validate_dataset(out)


def test_a_thousand_files_fill_a_chunk() -> None:
    from ornstein.data.lerobot_assembly import _Place

    place = _Place(limit_mb=1)
    seen = [place.take(2**20) for _ in range(2001)]
    assert (seen[0], seen[999], seen[1000], seen[2000]) == ((0, 0), (0, 999), (1, 0), (2, 0))
    assert [_Place(1, filled=f).take(10) for f in (2**20 - 11, 2**20 - 10)] == [(0, 0), (0, 1)]
    assert file_path("data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", 2, 7) == "data/chunk-002/file-007.parquet"


# ---- interruption ----


def test_what_was_added_survives_and_the_rest_goes_on(
    tmp_path: Path, spec: DatasetSpec, episode: Make, toy_dataset: Path, same_data: Same
) -> None:
    out = tmp_path / "data"
    with LeRobotWriter(out, spec) as writer:
        for seed in range(4):
            writer.add(episode(seed))
    assert not out.exists()
    with pytest.raises(DataError, match=r"data\.incomplete is an unfinished recording"):
        LeRobotDataset(out)
    with pytest.raises(DataError, match="unfinished recording"):
        LeRobotDataset(staging_folder(out))
    with LeRobotWriter(out, spec) as writer:
        assert writer.staged() == dict.fromkeys(range(4), True)
        for seed in range(7):
            writer.add(episode(seed), key=seed)  # the first four are there already
        writer.finish(provenance={"seed": 0, "failed_seeds": [5, 9]})
    assert not staging_folder(out).exists()
    assert same_data(out, toy_dataset)


def test_order_comes_from_keys_and_not_from_time(
    tmp_path: Path, spec: DatasetSpec, episode: Make, toy_dataset: Path, same_data: Same
) -> None:
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        for seed in (3, 0, 6, 1, 5, 2, 4):
            writer.add(episode(seed), key=seed)
        writer.leave_out(7, 40)
        writer.finish(provenance={"seed": 0, "failed_seeds": [5, 9]})
    assert same_data(tmp_path / "data", toy_dataset)


def _add_until_killed(out: Path, spec: DatasetSpec, episodes: list[RobotEpisode]) -> None:
    with LeRobotWriter(out, spec) as writer:
        for seed, episode in enumerate(episodes):
            writer.add(episode, key=seed)
        time.sleep(60)


def test_a_killed_process_leaves_nothing_half(
    tmp_path: Path, spec: DatasetSpec, episode: Make, toy_dataset: Path, same_data: Same
) -> None:
    out, episodes = tmp_path / "data", [episode(seed) for seed in range(7)]
    process = multiprocessing.get_context("fork").Process(target=_add_until_killed, args=(out, spec, episodes))
    process.start()
    deadline = time.monotonic() + 30
    while not (staging_folder(out) / "episodes/00000002").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(DataError, match="another process is writing"):
        LeRobotWriter(out, spec)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    # What a process that dies in the middle of an episode leaves, and a file cut short by a power failure:
    (staging_folder(out) / "episodes/.00000006.1").mkdir()
    cut = staging_folder(out) / "episodes/00000001/front.mp4"
    cut.write_bytes(cut.read_bytes()[:-5])
    with LeRobotWriter(out, spec) as writer:
        staged = writer.staged()
        assert {0, 2} <= set(staged)
        assert 1 not in staged
        for seed in range(7):
            writer.add(episodes[seed], key=seed)
        writer.finish(provenance={"seed": 0, "failed_seeds": [5, 9]})
    assert same_data(out, toy_dataset)


def test_an_episode_with_too_few_pictures_does_not_get_in(tmp_path: Path, spec: DatasetSpec, episode: Make) -> None:
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        folder = writer.folder / "episodes" / f"{writer.add(episode(0, 5)):08d}"
        short = writer.folder / "episodes" / f"{writer.add(episode(0, 4)):08d}"
        about = json.loads((folder / "episode.json").read_text())
        for name, message in (
            ("front.mp4", "holds 4 pictures of 5 frames"),
            ("data.parquet", "another number of rows than its 5"),
        ):
            kept = (folder / name).read_bytes()
            (folder / name).write_bytes((short / name).read_bytes())
            changed_about = {**about, "bytes": {**about["bytes"], name: (short / name).stat().st_size}}
            (folder / "episode.json").write_text(json.dumps(changed_about))
            with pytest.raises(DataError, match=message):
                writer.finish([0])
            (folder / name).write_bytes(kept)
        assert not (tmp_path / "data").exists()


def test_another_job_does_not_mix_in(tmp_path: Path, spec: DatasetSpec, episode: Make) -> None:
    with LeRobotWriter(tmp_path / "data", spec, job={"noise": 0.3}) as writer:
        writer.add(episode(0))
    with pytest.raises(DataError, match=r"other settings \(job\.noise: 0\.3 before, 0\.5 now\)"):
        LeRobotWriter(tmp_path / "data", spec, job={"noise": 0.5})
    with pytest.raises(DataError, match=r"spec\.video_file_mb: 200 before, 50 now"):
        LeRobotWriter(tmp_path / "data", replace(spec, video_file_mb=50), job={"noise": 0.3})
    LeRobotWriter(tmp_path / "data", spec, job={"noise": 0.3}).close()


def test_a_full_disk_while_recording(tmp_path: Path, spec: DatasetSpec, episode: Make, largest_file: Limit) -> None:
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        writer.add(episode(0))
        with largest_file(2000), pytest.raises(DataError, match=r"cannot write .*00000001: File too large; mend that"):
            writer.add(episode(1))
        assert writer.staged() == {0: True}
        writer.add(episode(1))
        writer.finish()
    validate_dataset(tmp_path / "data")


# The limits fall into the numbers, into a video and into what describes the episodes.
@pytest.mark.parametrize("size", [1000, 9000, 17500, 50000])
def test_a_full_disk_while_joining(tmp_path: Path, spec: DatasetSpec, episode: Make, largest_file: Limit, size: int) -> None:
    out = tmp_path / "data"
    with LeRobotWriter(out, spec) as writer:
        for seed in range(7):
            writer.add(episode(seed))
        with largest_file(size), pytest.raises(DataError, match="cannot write .*data: File too large"):
            writer.finish()
        assert not out.exists()
        assert not (staging_folder(out) / "dataset").exists()
        writer.finish()
    validate_dataset(out)


def test_a_full_disk_in_the_middle_of_a_video(tmp_path: Path, largest_file: Limit) -> None:
    contract = EmbodimentContract("toy", (Camera("front", 64, 64),), (), (Channel("dx", "m", -1, 1),), "", "", "", 5, 1)
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    with LeRobotWriter(tmp_path / "data", DatasetSpec(contract)) as writer:
        for _ in range(3):
            writer.add(RobotEpisode("shake", {"front": noise}, {"action": np.zeros((12, 1), np.float32)}))
        size = (writer.folder / "episodes/00000000/front.mp4").stat().st_size
        for limit in (size // 2, 2 * size, 3 * size - 5000):
            with largest_file(limit), pytest.raises(DataError, match="cannot write .*data: File too large"):
                writer.finish()
        writer.finish()
    validate_dataset(tmp_path / "data")


# ---- refusals ----


def test_places_that_cannot_be_written(tmp_path: Path, spec: DatasetSpec, toy_dataset: Path) -> None:
    with pytest.raises(DataError, match="exists already: choose another folder"):
        LeRobotWriter(toy_dataset, spec)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*Not a directory"):
        LeRobotWriter(tmp_path / "file" / "data", spec)
    with pytest.raises(DataError, match="at least one"), LeRobotWriter(tmp_path / "empty", spec) as writer:
        writer.finish()
    assert not (tmp_path / "empty").exists()
    with pytest.raises(DataError, match="episode 12 of .* is missing"), LeRobotWriter(tmp_path / "empty", spec) as writer:
        writer.finish([12])


def changed(episode: RobotEpisode, key: str, values: Any) -> RobotEpisode:
    return replace(episode, columns={**episode.columns, key: values})


def test_episodes_that_do_not_fit_are_refused_by_field(tmp_path: Path, spec: DatasetSpec, episode: Make) -> None:
    good = episode(0, 4)
    actions, front = good.actions, good.frames["front"]
    nan, far = actions.copy(), actions.copy()
    nan[2, 1] = np.nan
    far[3, 0] = 0.11
    without_done = {key: value for key, value in good.columns.items() if key != "next.done"}
    cases: list[tuple[RobotEpisode, str]] = [
        (changed(good, "action", nan), "'action': 1 numbers are not finite, the first at frame 2, dimension 1"),
        (changed(good, "action", far), r"the first at frame 3: dx is 0\.11 m, not within \[-0\.1, 0\.1\]"),
        (changed(good, "action", actions.astype(np.float64)), r"'action' is float64 \(4, 2\), expected float32 \(4, 2\)"),
        (changed(good, "observation.target_pixel", actions[:3]), r"'observation.target_pixel' is float32 \(3, 2\)"),
        (replace(good, columns=without_done), "next.done"),
        (replace(good, instruction=" "), "has no instruction"),
        (replace(good, frames={"front": front}), r"has cameras \['front'\], expected \['front', 'wrist'\]"),
        (replace(good, frames={**good.frames, "front": front[:3]}), r"camera 'front' has uint8 \(3, 32, 48, 3\)"),
        (replace(good, frames={**good.frames, "front": front / 255}), "camera 'front' has float64"),
        (episode(0, 0), "over 0 frames"),
    ]
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        for bad, message in cases:
            with pytest.raises(DataError, match=message):
                writer.add(bad)
        assert writer.staged() == {}


def test_specs_that_the_format_cannot_hold(spec: DatasetSpec) -> None:
    with pytest.raises(DataError, match=r"whole number of frames a second, the contract says 7\.5"):
        DatasetSpec(replace(spec.contract, control_hz=7.5))
    with pytest.raises(DataError, match="with actions"):
        DatasetSpec(replace(spec.contract, action=()))
    for name, feature in {
        "action": Feature("float32", (2,)),
        "index": Feature("int64", (1,)),
        "a/b": Feature("float32", (1,)),
        "word": Feature("string", (1,)),
        "matrix": Feature("float32", (3, 3)),
        "observation.images.top": Feature("float32", (1,)),
    }.items():
        with pytest.raises(DataError, match="cannot be a further column"):
            DatasetSpec(spec.contract, {name: feature})
