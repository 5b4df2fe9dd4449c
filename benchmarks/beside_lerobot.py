"""Do ornstein and the `lerobot` package read the same from the same files, and how fast? Writes benchmarks/results/beside-lerobot.json.

    .venv/bin/python benchmarks/beside_lerobot.py --peer PATH/TO/ITS/python

The package wants another torch, so it lives in an environment of its own (about 7 GB):

    python3.11 -m venv lerobot-env && lerobot-env/bin/pip install lerobot==0.4.4     # 0.5 and later need Python 3.12
    apt-get install ffmpeg                                                            # its decoder, torchcodec, loads FFmpeg's libraries

Four data sets: recorded by ornstein and written by the package's own class, each with pictures in videos and in tables. Each is read by
both: every number, picture, sentence and statistic, and moments with a past and a future. One of v2.1 is converted by both. Then, in processes of one thread that take turns, the
time of reading moments in random order with all their pictures, as float tensors (channels first) on both sides; ornstein also without the numbers that its
stream keeps from earlier batches. The package hands out every column, which in ornstein's own sets are six more than state and action; in those that it
wrote there are no others. Any disagreement ends the script with an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from record import RESULTS, write

from ornstein.core.errors import DataError
from ornstein.data import robot_stream
from ornstein.data.demonstrations import record_demonstrations
from ornstein.data.lerobot import DatasetSpec, LeRobotDataset, convert_dataset
from ornstein.data.recording import EXTRA_COLUMNS
from ornstein.data.robot_stream import RobotStream
from ornstein.simulation.tabletop import contract

CAMERAS = {"front": 128, "wrist": 64}
KEYS = {camera: f"observation.images.{camera}" for camera in CAMERAS}
HISTORY, CHUNK = 3, 5
WARM_UP = 64
# Two decoders turn YUV into RGB with roundings of their own; pictures in tables must be the same bits.
MOST_APART = 4


def main(
    peer: Path, episodes: int = 40, moments: int = 1000, rounds: int = 5, out: Path = RESULTS / "beside-lerobot.json"
) -> None:
    """Compare, then time.

    Args:
        peer: the interpreter of an environment with the `lerobot` package.
        episodes: of each data set. moments: read in each timing. rounds: of turns.
    """
    versions = _peer_versions(peer)
    found: dict[str, Any] = {"peer": versions, "episodes": episodes, "agreement": {}, "speed": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {}
        for kind in ("videos", "images"):
            ours, theirs = folder / f"ours-{kind}", folder / f"theirs-{kind}"
            record_demonstrations(ours, episodes=episodes, noise=0.05, workers=2, cameras=CAMERAS, images=kind == "images")
            _let_peer_write(peer, LeRobotDataset(ours), theirs, videos=kind == "videos", scratch=folder)
            sets |= {f"ornstein, {kind}": ours, f"lerobot, {kind}": theirs}
        for label, root in sets.items():
            found["agreement"][label] = _agreement(peer, root, folder)
        found["conversion_from_v2.1"] = _conversion(peer, LeRobotDataset(sets["ornstein, videos"]), folder)
        for label, root in sets.items():
            found["speed"][label] = _speed(peer, root, moments, rounds)
        found["memory"] = _memory(folder, sets["ornstein, images"], moments)
    write(out, found)


def _peer_versions(peer: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('lerobot', 'torch', 'torchcodec', 'av')}))"
    return dict(json.loads(subprocess.run([str(peer), "-c", code], check=True, capture_output=True, text=True).stdout))


def _ask(peer: Path, *arguments: str) -> dict[str, Any]:
    """Run the peer's script; the last line that it prints."""
    script = Path(__file__).with_name("lerobot_peer.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(peer), str(script), *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed at {arguments[0]}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _let_peer_write(peer: Path, data: LeRobotDataset, root: Path, *, videos: bool, scratch: Path) -> None:
    """The same frames, through the package's `add_frame` and `save_episode`."""
    numbers = [key for key, feature in data.features.items() if key in ("observation.state", "action")]
    episodes = list(data)
    frames = {key: np.concatenate([episode.columns[key] for episode in episodes]) for key in numbers}
    frames |= {key: np.concatenate([episode.frames[camera] for episode in episodes]) for camera, key in KEYS.items()}
    np.savez(scratch / "frames.npz", **frames)
    features: dict[str, Any] = {key: {"dtype": "float32", "shape": list(frames[key].shape[1:]), "names": None} for key in numbers}
    dtype = "video" if videos else "image"
    features |= {
        key: {"dtype": dtype, "shape": list(frames[key].shape[1:]), "names": ["height", "width", "channels"]}
        for key in KEYS.values()
    }
    about = {
        "fps": data.fps,
        "videos": videos,
        "features": features,
        "lengths": [len(row) for row in data.episodes],
        "tasks": [row.task for row in data.episodes],
    }
    _ask(peer, "write", str(root), str(scratch / "frames.npz"), json.dumps(about))


def _conversion(peer: Path, data: LeRobotDataset, scratch: Path) -> dict[str, Any]:
    """The same v2.1 data set, converted by each; the writer of the old layout is the tests'."""
    place = Path(__file__).parents[1] / "tests/data/test_lerobot_convert.py"
    loader = importlib.util.spec_from_file_location("old_layout", place)
    assert loader is not None
    assert loader.loader is not None
    tests = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(tests)
    spec = DatasetSpec(contract(CAMERAS), EXTRA_COLUMNS)
    old = tests.write_v21(scratch / "old", spec, list(data))
    theirs_at = scratch / "peer" / "converted"
    shutil.copytree(old, theirs_at)
    convert_dataset(old, scratch / "converted")
    _ask(peer, "convert", str(theirs_at.parent), theirs_at.name)
    ours, theirs = LeRobotDataset(scratch / "converted"), LeRobotDataset(theirs_at)
    for one in (ours, theirs):
        _same([row.task for row in data.episodes], [row.task for row in one.episodes], "sentences")
        _same(
            [row.task for row in data.episodes for _ in range(len(row))],
            [one.tasks[k] for k in one.column("task_index")],
            "tasks",
        )
    for key, feature in ours.features.items():
        if feature.is_numeric and key != "task_index":  # each numbers the sentences in its own way
            _same(ours.column(key), theirs.column(key), key)
    apart = {c: _apart(np.stack(list(ours.frames(c))), np.stack(list(theirs.frames(c))), exact=True) for c in CAMERAS}
    worst = 0.0
    for key in ("observation.state", "action"):
        for part in ("mean", "std", "min", "max"):
            a, b = ours.statistics[key][part], theirs.statistics[key][part]
            worst = max(worst, float(np.abs(a - b).max()))
    if worst > 1e-5:
        raise DataError(f"statistics of the converted data sets differ by {worst}")
    return {"frames": len(ours), "columns_of_numbers": "equal", "sentences": "equal", "pictures_apart": apart,
            "statistics_apart": worst}  # fmt: skip


def _agreement(peer: Path, root: Path, scratch: Path) -> dict[str, Any]:
    """Every frame and every statistic, then moments with past and future."""
    data = LeRobotDataset(root)
    said = _ask(peer, "read", str(root), str(scratch / "read.npz"))
    theirs = np.load(scratch / "read.npz")
    _same(len(data), said["frames"], "frames")
    for key, feature in data.features.items():
        if feature.is_numeric:
            _same(data.column(key).reshape(len(data), -1), theirs[key].reshape(len(data), -1), key)
    _same([row.task for row in data.episodes for _ in range(len(row))], theirs["task"].tolist(), "task")
    apart = {}
    for camera, key in KEYS.items():
        ours = np.stack(list(data.frames(camera)))
        apart[camera] = _apart(ours, theirs[key], exact=key not in data.episodes[0].videos)
    for key, parts in data.statistics.items():
        for part, value in parts.items():
            np.testing.assert_allclose(value.ravel(), said["statistics"][key][part], rtol=1e-6, err_msg=f"{key} {part}")
    windows = _windows(peer, data, scratch)
    return {"frames": len(data), "columns_of_numbers": "equal", "sentences": "equal", "statistics_as_stored": "equal",
            "pictures_apart": apart, **windows, "peers_decoder": said["decoder"]}  # fmt: skip


def _windows(peer: Path, data: LeRobotDataset, scratch: Path) -> dict[str, Any]:
    """Past states and pictures, future actions, and which of them are real."""
    moments = np.arange(200)
    batch = RobotStream([data], cameras=list(CAMERAS), history=HISTORY, chunk=CHUNK).at(moments)
    frames = [data.episodes[e].start + f for e, f in zip(batch.episodes.tolist(), batch.frames.tolist(), strict=True)]
    about = {"fps": data.fps, "history": HISTORY, "chunk": CHUNK, "cameras": list(KEYS.values()), "frames": frames}
    _ask(peer, "windows", str(data.folder), str(scratch / "windows.npz"), json.dumps(about))
    theirs = np.load(scratch / "windows.npz")
    _same(batch.states, theirs["observation.state"], "past states")
    _same(~batch.seen, theirs["observation.state_is_pad"], "which states are real")
    _same(batch.actions, theirs["action"], "future actions")
    _same(~batch.planned, theirs["action_is_pad"], "which actions are real")
    exact = not data.episodes[0].videos
    for camera, key in KEYS.items():
        _apart(batch.pictures[camera], theirs[key], exact=exact)
    ends = int((~batch.seen).any(1).sum() + (~batch.planned).any(1).sum())
    return {"moments_with_past_and_future": len(moments), "of_them_at_an_end": ends}


def _same(ours: Any, theirs: Any, what: str) -> None:
    if not np.array_equal(np.asarray(ours), np.asarray(theirs)):
        raise DataError(f"{what}: ornstein reads {ours}, lerobot {theirs}")


def _apart(ours: np.ndarray, theirs: np.ndarray, *, exact: bool) -> dict[str, float]:
    """Levels of 255."""
    difference = np.abs(ours.astype(np.int16) - theirs)
    if difference.max() > (0 if exact else MOST_APART):
        raise DataError(f"pictures differ by up to {difference.max()} of 255 levels")
    return {"most": int(difference.max()), "mean": float(difference.mean())}


def _speed(peer: Path, root: Path, moments: int, rounds: int) -> dict[str, Any]:
    """Moments a second with pictures of both cameras, by turns; one at a time, and ours in batches of 32 too."""
    names = ("ornstein", "ornstein, nothing kept", "ornstein, batches of 32", "lerobot")
    rates: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names:
            about = json.dumps({"seed": k, "warm_up": WARM_UP, "moments": moments})
            if name == "lerobot":
                timed = _ask(peer, "time", str(root), about)
            else:
                timed = _ask_self(root, moments, k, batch=32 if "32" in name else 1, keep="kept" not in name)
            rates[name].append(moments / timed["seconds"])
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["ornstein"], rates["lerobot"], strict=True)]
    return {
        "moments_per_second": median,
        "times_as_fast": {"median": statistics.median(ratios), "all": ratios},
        "batches_times_as_fast": median["ornstein, batches of 32"] / median["lerobot"],
    }


def _ask_self(root: Path, moments: int, seed: int, batch: int, *, keep: bool = True) -> dict[str, Any]:
    command = [sys.executable, __file__, "--time", str(root), str(moments), str(seed), str(batch), str(int(keep))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _time(root: str, moments: str, seed: str, batch: str, keep: str) -> None:
    """In a process of its own."""
    import torch

    torch.set_num_threads(1)
    count, size = int(moments), int(batch)
    if keep == "0":
        robot_stream._KEPT_FRAMES = 0
    stream = RobotStream([LeRobotDataset(Path(root))], cameras=list(CAMERAS), seed=int(seed))
    for k in range(WARM_UP):
        stream.at([10**6 + k])
    began = time.perf_counter()
    for k in range(0, count, size):
        read = stream.at(range(k, min(k + size, count)))
        for pictures in read.pictures.values():
            torch.from_numpy(pictures).movedim(-1, -3).float().div_(255)
        torch.from_numpy(read.states), torch.from_numpy(read.actions)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    """Of this process alone: the figure of getrusage begins at what its parent held when it was forked."""
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _memory(folder: Path, small: Path, moments: int) -> dict[str, Any]:
    """Peak memory of reading the same number of moments in batches from four times the episodes, pictures in tables."""
    large = folder / "large"
    episodes = 4 * len(LeRobotDataset(small).episodes)
    record_demonstrations(large, episodes=episodes, noise=0.05, workers=2, cameras=CAMERAS, images=True)
    return {
        name: {"frames": len(LeRobotDataset(root)), "peak_mib": _ask_self(root, moments, 0, 32)["peak_mib"]}
        for name, root in (("small", small), ("large", large))
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time"]:
        _time(*sys.argv[2:])
    else:
        tyro.cli(main)
