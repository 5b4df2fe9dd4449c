"""The `lerobot` package's side of `beside_lerobot.py`; run by the interpreter of its own environment, without ornstein.

    python lerobot_peer.py read ROOT OUT.npz              every frame, as its dataset class gives it
    python lerobot_peer.py windows ROOT OUT.npz ABOUT     moments with past and future, as `delta_timestamps` gives them
    python lerobot_peer.py write ROOT FRAMES.npz ABOUT    a data set of these frames, as its dataset class writes it
    python lerobot_peer.py convert PARENT NAME            a v2.1 data set in PARENT/NAME becomes v3.0 in its place
    python lerobot_peer.py time ROOT ABOUT                seconds of reading moments in random order

ABOUT is JSON. What is said goes to the last line of standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

NAME = "local/data"


def _bytes(picture: torch.Tensor) -> np.ndarray:
    """(…, 3, H, W) in [0, 1] → uint8 (…, H, W, 3)."""
    return (picture * 255).round().to(torch.uint8).movedim(-3, -1).numpy()


def _array(value: Any) -> np.ndarray:
    return np.asarray(value)


def read(root: str, out: str) -> dict[str, Any]:
    data = LeRobotDataset(NAME, root=root)
    found: dict[str, list[np.ndarray]] = {}
    for k in range(len(data)):
        for key, value in data[k].items():
            found.setdefault(key, []).append(_bytes(value) if key in data.meta.camera_keys else _array(value))
    np.savez(out, **{key: np.stack(values) for key, values in found.items()})
    return {"frames": len(data), "decoder": data.video_backend, "statistics": _statistics(data)}


def _statistics(data: LeRobotDataset) -> dict[str, Any]:
    return {
        key: {name: np.asarray(value).ravel().tolist() for name, value in parts.items()} for key, parts in data.meta.stats.items()
    }


def windows(root: str, out: str, about: dict[str, Any]) -> dict[str, Any]:
    fps, history, chunk = about["fps"], about["history"], about["chunk"]
    past = [-k / fps for k in reversed(range(history))]
    deltas = dict.fromkeys(["observation.state", *about["cameras"]], past) | {"action": [k / fps for k in range(chunk)]}
    data = LeRobotDataset(NAME, root=root, delta_timestamps=deltas)
    found: dict[str, list[np.ndarray]] = {}
    for k in about["frames"]:
        item = data[k]
        for key in [*deltas, "observation.state_is_pad", "action_is_pad"]:
            value = item[key]
            found.setdefault(key, []).append(_bytes(value) if key in about["cameras"] else _array(value))
    np.savez(out, **{key: np.stack(values) for key, values in found.items()})
    return {}


def write(root: str, frames: str, about: dict[str, Any]) -> dict[str, Any]:
    given = np.load(frames)
    features = {key: feature | {"shape": tuple(feature["shape"])} for key, feature in about["features"].items()}
    data = LeRobotDataset.create(
        NAME, about["fps"], features, root=root, robot_type="arm", use_videos=about["videos"], vcodec="libsvtav1"
    )
    start = 0
    for length, task in zip(about["lengths"], about["tasks"], strict=True):
        for k in range(start, start + length):
            data.add_frame({key: given[key][k] for key in features} | {"task": task})
        data.save_episode()
        start += length
    data.finalize()
    return {}


def convert(parent: str, name: str) -> dict[str, Any]:
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    convert_dataset(name, root=parent, push_to_hub=False)
    return {}


def measure(root: str, about: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    data = LeRobotDataset(NAME, root=root)
    order = np.random.default_rng(about["seed"]).integers(0, len(data), about["warm_up"] + about["moments"])
    for k in order[: about["warm_up"]]:
        data[int(k)]
    began = time.perf_counter()
    for k in order[about["warm_up"] :]:
        data[int(k)]
    seconds = time.perf_counter() - began
    return {"seconds": seconds}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    settings = [json.loads(a) if a.startswith("{") else a for a in arguments]
    commands: dict[str, Any] = {"read": read, "windows": windows, "write": write, "convert": convert, "time": measure}
    print(json.dumps(commands[command](*settings)))
