"""v2.1 → v3.0, and damaged data sets without their bad episodes: nothing changes on the way but the layout."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ornstein.core.errors import DataError
from ornstein.data import lerobot_convert
from ornstein.data.lerobot import (
    DatasetSpec,
    LeRobotDataset,
    LeRobotWriter,
    RobotEpisode,
    VideoEncoding,
    convert_dataset,
    validate_dataset,
)
from ornstein.data.lerobot_video import as_png, encode

Make = Callable[..., RobotEpisode]
COUNT = 4


def write_v21(folder: Path, spec: DatasetSpec, episodes: list[RobotEpisode], *, images: tuple[str, ...] = ()) -> Path:
    """A LeRobotDataset v2.1 as its writers lay it out: a table and a video an episode, and JSON lines about them."""
    features: dict[str, Any] = {}
    for key, feature in spec.features.items():
        camera = key.removeprefix("observation.images.")
        features[key] = {**feature.to_json(), "dtype": "image"} if camera in images else feature.to_json()
    features["said"] = {"dtype": "string", "shape": [1], "names": None}
    (folder / "meta").mkdir(parents=True)
    rows, statistics, sentences, start = [], [], sorted({episode.instruction for episode in episodes}), 0
    for k, episode in enumerate(episodes):
        n = len(episode)
        columns: dict[str, Any] = {
            key: pa.array(values.tolist(), pa.list_(pa.from_numpy_dtype(values.dtype)) if values.ndim == 2 else None)
            if values.dtype != np.float32 or values.ndim == 2
            else pa.array(values, pa.float32())
            for key, values in episode.columns.items()
        }
        for camera in images:
            columns[f"observation.images.{camera}"] = pa.array(
                [{"bytes": as_png(picture), "path": f"frame_{t:06d}.png"} for t, picture in enumerate(episode.frames[camera])],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            )
        columns |= {
            "said": pa.array([f"word {t}" for t in range(n)]),
            "timestamp": pa.array(np.arange(n) / spec.fps, pa.float32()),
            "frame_index": pa.array(range(n), pa.int64()),
            "episode_index": pa.array([k] * n, pa.int64()),
            "index": pa.array(range(start, start + n), pa.int64()),
            "task_index": pa.array([sentences.index(episode.instruction)] * n, pa.int64()),
        }
        data = folder / f"data/chunk-000/episode_{k:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), data)
        for camera, pictures in episode.frames.items():
            if camera not in images:
                video = folder / f"videos/chunk-000/observation.images.{camera}/episode_{k:06d}.mp4"
                video.parent.mkdir(parents=True, exist_ok=True)
                video.write_bytes(encode(pictures, spec.fps, VideoEncoding()))
        rows.append({"episode_index": k, "tasks": [episode.instruction], "length": n})
        statistics.append({"episode_index": k, "stats": _statistics(episode)})
        start += n
    info = {
        "codebase_version": "v2.1", "robot_type": "somebody", "total_episodes": len(rows), "total_frames": start,
        "total_tasks": len(sentences), "total_videos": 0, "total_chunks": 1, "chunks_size": 1000, "fps": spec.fps,
        "splits": {"train": f"0:{len(rows)}"}, "features": features,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "meta/episodes_stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in statistics))
    lines = [json.dumps({"task_index": k, "task": sentence}) + "\n" for k, sentence in enumerate(sentences)]
    (folder / "meta/tasks.jsonl").write_text("".join(lines))
    return folder


def _statistics(episode: RobotEpisode) -> dict[str, Any]:
    """As v2.1 keeps them for each episode; pictures by channel in [0, 1]."""
    parts: dict[str, tuple[np.ndarray, Any]] = {
        key: (values.reshape(len(episode), -1).astype(float), (-1,)) for key, values in episode.columns.items()
    }
    parts |= {f"observation.images.{c}": (f.reshape(-1, 3) / 255.0, (3, 1, 1)) for c, f in episode.frames.items()}
    return {
        key: {name: getattr(np, name)(rows, axis=0).reshape(shape).tolist() for name in ("min", "max", "mean", "std")}
        | {"count": [len(episode)]}
        for key, (rows, shape) in parts.items()
    }


@pytest.fixture
def episodes(episode: Make) -> list[RobotEpisode]:
    return [episode(seed) for seed in range(COUNT)]


@pytest.fixture
def old(tmp_path: Path, spec: DatasetSpec, episodes: list[RobotEpisode]) -> Path:
    return write_v21(tmp_path / "old", spec, episodes)


def test_an_old_data_set_keeps_every_number_word_and_picture(old: Path, episodes: list[RobotEpisode], tmp_path: Path) -> None:
    made = convert_dataset(old, tmp_path / "new")
    assert (made.episodes, made.frames, made.left_out) == (COUNT, sum(map(len, episodes)), ())
    validate_dataset(made.folder)
    data = LeRobotDataset(made.folder)
    assert data.info["robot_type"] == "somebody"
    assert data.contract is None
    for k, (before, after) in enumerate(zip(episodes, data, strict=True)):
        assert after.instruction == before.instruction
        for key, values in before.columns.items():
            np.testing.assert_array_equal(after.columns[key], values)
        for camera in before.frames:
            video = old / f"videos/chunk-000/observation.images.{camera}/episode_{k:06d}.mp4"
            with av.open(str(video)) as source:
                shown = np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])
            np.testing.assert_array_equal(after.frames[camera], shown)
        assert data.rows(k, ["said"])["said"].to_pylist() == [f"word {t}" for t in range(len(before))]
        assert data.episodes[k].seed == -1


def test_its_statistics_are_those_of_its_numbers(old: Path, episodes: list[RobotEpisode], tmp_path: Path) -> None:
    statistics = LeRobotDataset(convert_dataset(old, tmp_path / "new").folder).statistics
    actions = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    np.testing.assert_allclose(statistics["action"]["mean"], actions.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["action"]["q90"], np.quantile(actions, 0.9, axis=0), rtol=1e-6)
    assert "said" not in statistics


def test_pictures_in_the_tables_stay_there_and_exact(spec: DatasetSpec, episodes: list[RobotEpisode], tmp_path: Path) -> None:
    cameras = [camera.name for camera in spec.contract.cameras]
    old = write_v21(tmp_path / "old", spec, episodes, images=tuple(cameras[:1]))
    made = convert_dataset(old, tmp_path / "new")
    validate_dataset(made.folder)
    data = LeRobotDataset(made.folder)
    for before, after in zip(episodes, data, strict=True):
        np.testing.assert_array_equal(after.frames[cameras[0]], before.frames[cameras[0]])
    whole = np.concatenate([episode.frames[cameras[0]] for episode in episodes]) / 255
    statistics = data.statistics[f"observation.images.{cameras[0]}"]
    np.testing.assert_allclose(statistics["mean"].ravel(), whole.mean((0, 1, 2)), rtol=1e-6)
    assert not (made.folder / "videos" / f"observation.images.{cameras[0]}").exists()


def test_our_own_pictures_may_be_images_too(spec: DatasetSpec, episodes: list[RobotEpisode], tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "data", replace(spec, encoding=None)) as writer:
        for one in episodes:
            writer.add(one)
        writer.finish()
    validate_dataset(tmp_path / "data")
    data = LeRobotDataset(tmp_path / "data")
    for camera in episodes[0].frames:
        np.testing.assert_array_equal(np.stack(list(data.frames(camera))), np.concatenate([e.frames[camera] for e in episodes]))
        np.testing.assert_array_equal(data.pictures(2, camera, 1, 2), episodes[2].frames[camera][1:3])
    assert not (tmp_path / "data" / "videos").exists()


def test_videos_with_frames_out_of_order_are_encoded_anew(old: Path, episodes: list[RobotEpisode], tmp_path: Path) -> None:
    """B-frames: stored after what they lie before."""
    camera = next(iter(episodes[0].frames))
    shown = []
    for k, one in enumerate(episodes):
        memory = io.BytesIO()
        with av.open(memory, "w", format="mp4") as container:
            stream: Any = container.add_stream(
                "libx264", rate=5, options={"crf": "1", "x264-params": "bframes=2:b-adapt=0:scenecut=0:keyint=30"}
            )
            stream.height, stream.width, stream.pix_fmt = *one.frames[camera].shape[1:3], "yuv444p"
            for picture in one.frames[camera]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        with av.open(io.BytesIO(memory.getvalue())) as source:
            times = [packet.pts for packet in source.demux(video=0) if packet.pts is not None]
        assert times != sorted(times)
        (old / f"videos/chunk-000/observation.images.{camera}/episode_{k:06d}.mp4").write_bytes(memory.getvalue())
        shown.append(one.frames[camera])
    made = convert_dataset(old, tmp_path / "new")
    validate_dataset(made.folder)
    for before, after in zip(shown, LeRobotDataset(made.folder), strict=True):
        error = np.mean((before.astype(float) - after.frames[camera]) ** 2, axis=(1, 2, 3))
        assert (10 * np.log10(255**2 / error) > 30).all()


def _damage(old: Path, episodes: list[RobotEpisode], what: str) -> str:
    """Break episode 2 in one way; what the message must say."""
    data = old / "data/chunk-000/episode_000002.parquet"
    camera = next(iter(episodes[0].frames))
    video = old / f"videos/chunk-000/observation.images.{camera}/episode_000002.mp4"
    table = pq.read_table(data)
    match what:
        case "cut table":
            data.write_bytes(data.read_bytes()[:-100])
            return "episode_000002.parquet is damaged or cut short"
        case "no table":
            data.unlink()
            return "episode_000002.parquet is missing"
        case "cut video":
            video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
            return "episode_000002.mp4"
        case "other size":
            video.write_bytes(encode(np.zeros((len(episodes[2]), 16, 16, 3), np.uint8), 5, VideoEncoding()))
            return "pictures of 16 × 16 pixels"
        case "short video":
            video.write_bytes(encode(episodes[2].frames[camera][:-2], 5, VideoEncoding()))
            return "the video ends"
        case "long video":
            longer = np.concatenate([episodes[2].frames[camera]] * 2)
            video.write_bytes(encode(longer, 5, VideoEncoding()))
            return f"holds {len(longer)} frames, its episode has {len(episodes[2])}"
        case "rows":
            pq.write_table(table.slice(1), data)
            return f"it has {len(episodes[2]) - 1} rows and should have {len(episodes[2])}"
        case "not a number":
            actions = np.array(table["action"].to_pylist(), np.float32)
            actions[1, 0] = np.nan
            place = table.column_names.index("action")
            pq.write_table(table.set_column(place, "action", pa.array(actions.tolist(), pa.list_(pa.float32()))), data)
            return "'action': 1 numbers are not finite, the first at frame 1, dimension 0"
        case "timestamps":
            place = table.column_names.index("timestamp")
            slow = pa.array(np.arange(table.num_rows) / 3, pa.float32())
            pq.write_table(table.set_column(place, "timestamp", slow), data)
            return "its timestamps are not those of"
        case "no column":
            pq.write_table(table.drop_columns(["action"]), data)
            return "'action'"
        case "length 0":
            path = old / "meta/episodes.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            rows[2]["length"] = 0
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return "gives it a length of 0"
        case "no sentence":
            path = old / "meta/episodes.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            rows[2]["tasks"] = []
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return "gives it the sentences \\[\\]"
        case _:
            raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    ["cut table", "no table", "cut video", "other size", "short video", "long video", "rows", "not a number", "timestamps", "no column",
     "length 0", "no sentence"],
)  # fmt: skip
def test_a_bad_episode_is_named_and_left_out_on_request(
    old: Path, episodes: list[RobotEpisode], tmp_path: Path, what: str
) -> None:
    message = _damage(old, episodes, what)
    with pytest.raises(DataError, match=f"(?s)episode 2 of .*{message}.*--skip-bad"):
        convert_dataset(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    shutil.rmtree(tmp_path / "new.incomplete")
    made = convert_dataset(old, tmp_path / "new", skip_bad=True)
    validate_dataset(made.folder)
    ((number, reason),) = made.left_out
    assert number == 2
    assert message.replace("\\", "") in reason
    data = LeRobotDataset(made.folder)
    assert [one.instruction for one in data] == [episodes[k].instruction for k in (0, 1, 3)]
    assert data.provenance["left_out"] == [[2, reason]]
    np.testing.assert_array_equal(data.actions, np.concatenate([episodes[k].actions for k in (0, 1, 3)]))


def test_a_damaged_episode_of_a_v3_data_set_is_left_out(toy_dataset: Path, tmp_path: Path) -> None:
    """The last third of the only video of a camera is gone: the episodes in it go, the others stay as they were, seeds and contract too."""
    broken = tmp_path / "broken"
    shutil.copytree(toy_dataset, broken)
    data = LeRobotDataset(toy_dataset)
    (video,) = (broken / "videos/observation.images.front").rglob("*.mp4")
    content = bytearray(video.read_bytes())
    content[-len(content) // 3 :] = b"\0" * (len(content) // 3)
    video.write_bytes(content)
    made = convert_dataset(broken, tmp_path / "whole", skip_bad=True)
    validate_dataset(made.folder)
    lost = {number for number, _ in made.left_out}
    assert 0 < len(lost) < len(data.episodes)
    after = LeRobotDataset(made.folder)
    kept = [k for k in range(len(data.episodes)) if k not in lost]
    assert [row.seed for row in after.episodes] == [data.episodes[k].seed for k in kept]
    for k, one in zip(kept, after, strict=True):
        before = data.episode(k)
        np.testing.assert_array_equal(one.actions, before.actions)
        for camera in one.frames:
            np.testing.assert_array_equal(one.frames[camera], before.frames[camera])
    assert after.contract is not None
    assert data.contract is not None
    after.contract.seeing([]).require_match(replace(data.contract.seeing([]), statistics=None), "after", "before")


def test_a_whole_v3_data_set_comes_out_as_it_went_in(toy_dataset: Path, tmp_path: Path) -> None:
    made = convert_dataset(toy_dataset, tmp_path / "again")
    assert LeRobotDataset(made.folder).provenance["converted_from"] == toy_dataset.name
    for name in ("meta/info.json", "meta/tasks.parquet", "meta/ornstein_contract.json"):
        assert (made.folder / name).read_bytes() == (toy_dataset / name).read_bytes()
    for video in (toy_dataset / "videos").rglob("*.mp4"):
        assert (made.folder / video.relative_to(toy_dataset)).read_bytes() == video.read_bytes()
    before, after = LeRobotDataset(toy_dataset), LeRobotDataset(made.folder)
    for k in range(len(before.episodes)):
        mine, theirs = after.rows(k, list(after.counters(k))), before.rows(k, list(before.counters(k)))
        assert mine.equals(theirs)
        for key, values in before.episode(k).columns.items():
            np.testing.assert_array_equal(after.episode(k).columns[key], values)
    for key, parts in before.statistics.items():
        for part, value in parts.items():  # of pictures, now those that the video shows
            tolerance = 0.03 if "images" in key else 1e-12
            np.testing.assert_allclose(after.statistics[key][part], value, atol=tolerance)


def test_an_interrupted_conversion_goes_on(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, done = lerobot_convert._stage, []

    def stopped(*arguments: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        stage(*arguments)
        done.append(arguments[1])

    with monkeypatch.context() as interrupted:
        interrupted.setattr(lerobot_convert, "_stage", stopped)
        with pytest.raises(KeyboardInterrupt):
            convert_dataset(old, tmp_path / "new")
    counted = []
    monkeypatch.setattr(lerobot_convert, "_stage", lambda *arguments: (counted.append(arguments[1]), stage(*arguments)))
    assert convert_dataset(old, tmp_path / "new").episodes == COUNT
    assert counted == [2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v1.6"}, "'v1.6'; v2.0, v2.1 and v3.0 are what is read here"),
        ({"total_episodes": 9}, "lists 4 episodes, not numbers 0 … 8"),
        ({"fps": 0}, "fps is 0"),
        ({"data_path": "../{episode_index}.parquet"}, "leads out of the data set's folder"),
        ({"data_path": "{nothing}"}, "cannot be filled in"),
    ],
)
def test_what_is_wrong_with_the_whole_is_named(old: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = old / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        convert_dataset(old, tmp_path / "new", skip_bad=True)


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        convert_dataset(tmp_path / "nowhere", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no LeRobotDataset: it lacks meta/info\.json"):
        convert_dataset(tmp_path / "empty", tmp_path / "new")


def test_a_list_of_episodes_without_numbers_is_named(old: Path, tmp_path: Path) -> None:
    path = old / "meta/episodes.jsonl"
    rows = path.read_text().splitlines()
    for odd in ('{"tasks": ["x"], "length": 3}', '{"episode_index": "one", "tasks": 5, "length": 3}'):
        path.write_text("\n".join([*rows[:3], odd]))
        with pytest.raises(DataError, match="lists 4 episodes, not numbers 0 … 3"):
            convert_dataset(old, tmp_path / "new")
