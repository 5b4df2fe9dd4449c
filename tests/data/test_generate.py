from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core import DataError
from ornstein.data.generate import Picking, generate_dataset
from ornstein.data.lerobot import DatasetSpec, LeRobotDataset, LeRobotWriter, validate_dataset
from ornstein.data.lerobot_staging import staging_folder
from ornstein.data.recording import (
    EXTRA_COLUMNS,
    FIRST_EVALUATION_SEED,
    Generated,
    Recorder,
    as_robot_episode,
    first_successes,
)
from ornstein.simulation import PickExpert, TabletopEnv, contract, generate_episode

SEED, NOISE, SIZE, EPISODES = 40, 0.3, 64, 6
Limit = Callable[[int], AbstractContextManager[None]]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    out = tmp_path_factory.mktemp("generated") / "data"
    return generate_dataset(out, episodes=EPISODES, seed=SEED, noise=NOISE, workers=1, image_size=SIZE)


# ---- which scenes ----


@given(st.lists(st.booleans(), min_size=20, max_size=20), st.sets(st.integers(0, 12)), st.integers(1, 8), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_the_first_solvable_scenes_are_chosen_whatever_ends_first(
    drawn: list[bool], known: set[int], wanted: int, window: int
) -> None:
    solved = {100 + k: drawn[k % 20] or k % 2 == 0 for k in range(60)}
    done = {100 + k: solved[100 + k] for k in known}
    started: list[int] = []
    delays = random.Random(wanted)

    def work(seed: int, delay: float) -> bool:
        time.sleep(delay)
        return solved[seed]

    with ThreadPoolExecutor(4) as pool:

        def submit(seed: int) -> Future[bool]:
            started.append(seed)
            return pool.submit(work, seed, delays.random() * 2e-3)

        outcomes = list(first_successes(submit, done, 100, wanted, window))
    expected = [seed for seed, success in solved.items() if success][:wanted]
    assert sorted(seed for seed, success in outcomes if success) == expected
    # None is recorded in vain, twice, or though it was on disk already.
    assert sorted(seed for seed, _ in outcomes) == list(range(100, expected[-1] + 1))
    assert started == [seed for seed in range(100, expected[-1] + 1) if seed not in done]


def test_an_expert_that_mostly_fails_stops_the_recording() -> None:
    with pytest.raises(DataError, match="the expert failed in 21 of the first 21 scenes: use less noise"):
        list(first_successes(lambda seed: pytest.fail("all are known"), dict.fromkeys(range(100), False), 0, 5, 1))


# ---- the data ----


def test_the_data_are_the_experts_episodes(generated: Generated) -> None:
    data = LeRobotDataset(generated.folder)
    assert (len(data.episodes), len(data), data.fps) == (EPISODES, generated.frames, 5)
    assert data.contract is not None
    assert data.contract.differences(contract(SIZE)) == []
    assert data.provenance["seed"] == SEED
    assert data.provenance["failed_seeds"] == list(generated.failed_seeds)
    env = TabletopEnv(image_size=SIZE)
    try:
        for index in (0, EPISODES - 1):
            simulated = generate_episode(env, PickExpert(), data.episodes[index].seed, noise=NOISE)
            recorded = data.episode(index)
            assert recorded.instruction == simulated.instruction
            np.testing.assert_array_equal(recorded.actions, simulated.actions)
            np.testing.assert_array_equal(recorded.states, simulated.states)
            np.testing.assert_array_equal(recorded.columns["observation.target_pixel"], simulated.target_pixels)
            error = np.mean((recorded.frames["front"].astype(float) - simulated.frames["front"]) ** 2)
            assert 10 * np.log10(255**2 / error) > 42
    finally:
        env.close()
    validate_dataset(generated.folder)


def test_the_last_frame_of_an_episode_ends_it(generated: Generated) -> None:
    for episode in LeRobotDataset(generated.folder):
        last = np.arange(len(episode)) == len(episode) - 1
        np.testing.assert_array_equal(episode.columns["next.done"], last)
        np.testing.assert_array_equal(episode.columns["next.success"], last)
        np.testing.assert_array_equal(episode.columns["next.reward"], last.astype(np.float32))


def test_a_failed_episode_earns_nothing_and_is_left_out(tmp_path: Path) -> None:
    env = TabletopEnv(image_size=32, max_steps=3)
    spec = DatasetSpec(contract(32), EXTRA_COLUMNS)
    try:
        columns = as_robot_episode(generate_episode(env, PickExpert(), 1)).columns
        with LeRobotWriter(tmp_path / "data", spec) as writer:
            assert not Recorder(writer.folder, spec, Picking(0.0, 32)).record(env, 1)
            assert writer.staged() == {1: False}
            with pytest.raises(DataError, match="at least one"):
                writer.finish()
    finally:
        env.close()
    assert columns["next.done"].tolist() == [False, False, True]
    assert not columns["next.success"].any()
    assert not columns["next.reward"].any()


# ---- workers and interruptions ----


def test_the_data_do_not_depend_on_the_number_of_workers(generated: Generated, tmp_path: Path) -> None:
    again = generate_dataset(tmp_path / "data", episodes=EPISODES, seed=SEED, noise=NOISE, workers=2, image_size=SIZE)
    assert files(again.folder) == files(generated.folder)
    assert (again.episodes, again.frames, again.failed_seeds) == (EPISODES, generated.frames, generated.failed_seeds)


def command(out: Path) -> list[str]:
    call = f"generate_dataset(Path({str(out)!r}), episodes={EPISODES}, seed={SEED}, noise={NOISE}, workers=2, image_size={SIZE})"
    # A suite that runs in the background of a shell has Ctrl-C ignored, and its children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return [
        sys.executable,
        "-c",
        f"{heed}; from pathlib import Path; from ornstein.data.generate import generate_dataset; {call}",
    ]


def recorded(out: Path) -> set[str]:
    place = staging_folder(out) / "episodes"
    return {path.name for path in place.iterdir() if path.name[0] != "."} if place.exists() else set()


def interrupted(out: Path, how: signal.Signals) -> tuple[subprocess.Popen[str], str]:
    """A recording that got the signal midway. On a busy machine it may be through before: then once more."""
    for _ in range(10):
        process = subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True, start_new_session=True)
        deadline = time.monotonic() + 60
        while not recorded(out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(how)
        _, said = process.communicate(timeout=30)
        if not out.exists() and 1 <= len(recorded(out)) < EPISODES:
            return process, said
        for rest in (out, staging_folder(out)):
            shutil.rmtree(rest, ignore_errors=True)
    raise AssertionError("ten recordings were through before the signal came")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_recording_goes_on(generated: Generated, tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "data"
    process, said = interrupted(out, how)
    before = recorded(out)
    if how == signal.SIGINT:
        assert "the same command goes on from there" in said
    deadline = time.monotonic() + 60
    while _alive(process.pid) and time.monotonic() < deadline:  # its workers leave too
        time.sleep(0.01)
    assert not _alive(process.pid)
    stamps = {name: (staging_folder(out) / "episodes" / name).stat().st_mtime_ns for name in recorded(out)}
    with pytest.raises(DataError, match=r"other settings \(job\.noise: 0\.3 before, 0\.0 now; job\.seed: 40 before, 41 now\)"):
        generate_dataset(out, episodes=EPISODES, seed=SEED + 1, noise=0.0, workers=1, image_size=SIZE)
    assert stamps.keys() >= before
    generate_dataset(out, episodes=EPISODES, seed=SEED, noise=NOISE, workers=1, image_size=SIZE)
    assert files(out) == files(generated.folder)
    assert not staging_folder(out).exists()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# ---- bad input ----


def test_a_full_disk_is_said_and_nothing_poses_as_finished(generated: Generated, tmp_path: Path, largest_file: Limit) -> None:
    out = tmp_path / "data"
    with largest_file(3000), pytest.raises(DataError, match=r"cannot write .*data\.incomplete/episodes/.*: File too large"):
        generate_dataset(out, episodes=EPISODES, seed=SEED, noise=NOISE, workers=1, image_size=SIZE)
    assert not out.exists()
    generate_dataset(out, episodes=EPISODES, seed=SEED, noise=NOISE, workers=1, image_size=SIZE)
    assert files(out) == files(generated.folder)


def test_places_and_numbers_that_cannot_be(tmp_path: Path, generated: Generated) -> None:
    with pytest.raises(DataError, match="exists already"):
        generate_dataset(generated.folder, episodes=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*Not a directory"):
        generate_dataset(tmp_path / "file" / "data", episodes=1)
    for arguments, message in (
        ({"episodes": 0}, "at least 1"),
        ({"episodes": 1, "workers": 0}, "at least 1"),
        ({"episodes": 1, "seed": -1}, "seed ≥ 0"),
        ({"episodes": 1, "image_size": 8}, "at least 16 pixels"),
        ({"episodes": 1, "noise": 1.5}, "noise is a probability"),
        ({"episodes": 10, "seed": FIRST_EVALUATION_SEED - 20}, "belong to evaluations"),
    ):
        with pytest.raises(DataError, match=message):
            generate_dataset(tmp_path / "data", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
