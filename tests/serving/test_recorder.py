"""What served robots saw and did, read back as any data set; a kill loses no episode that had ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving.test_server import BODY, Counting, observation, served

from ornstein.core.errors import DataError
from ornstein.data.lerobot import LeRobotDataset
from ornstein.safety import ShieldLimits
from ornstein.serving.client import PolicyClient
from ornstein.serving.recorder import Recording


def _seen(step: int) -> Any:
    picture = np.full((16, 16, 3), 10 * step, np.uint8)
    return {**observation("close"), "pixels": {"front": picture}, "agent_pos": np.full(7, step / 10, np.float32)}


def test_what_was_seen_and_went_out_is_what_is_read_back(tmp_path: Path) -> None:
    """Two robots at once, one that says that it succeeded and one that just leaves; the shield's actions, not the policy's."""
    out = tmp_path / "data"
    with Recording(out, BODY, job={"policy": "counting"}) as recording:
        with served(Counting(), ShieldLimits.of(BODY, rate=0.5), recording=recording) as (address, _):
            with PolicyClient(address, BODY) as one, PolicyClient(address, BODY, robot="b") as other:
                sent = [one.act(_seen(step)) for step in range(3)]
                other.act(_seen(9))
                one.end(success=True)
                assert recording.episodes == 1
                one.act(_seen(7))
                one.reset()
                assert recording.episodes == 2
            deadline = time.perf_counter() + 10
            while recording.episodes < 3 and time.perf_counter() < deadline:
                time.sleep(0.02)
        assert recording.finish() == out
    data = LeRobotDataset(out)
    assert [len(range(episode.start, episode.stop)) for episode in data.episodes] == [3, 1, 1]
    np.testing.assert_array_equal(data.actions[:3], np.stack(sent))
    np.testing.assert_allclose(data.states[:3, 0], [0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_array_equal(data.column("next.success").ravel(), [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(data.column("shielded").ravel(), [1, 0, 0, 1, 1])
    assert {episode.task for episode in data.episodes} == {"close"}
    assert data.contract is not None
    assert data.contract.fingerprint == BODY.fingerprint


def test_a_sentence_that_changes_begins_the_next_episode(tmp_path: Path) -> None:
    with Recording(tmp_path / "data", BODY, most_steps=3) as recording:
        recorded = recording.episode()
        for sentence in ("a", "a", "b", "b", "b", "b", "b"):
            recorded.note(observation(sentence), np.zeros(7, np.float32), shielded=False)
        recorded.end()
        recorded.end()
        assert recording.episodes == 3
        recording.finish()
    assert [(one.task, one.stop - one.start) for one in LeRobotDataset(tmp_path / "data").episodes] == [
        ("a", 2),
        ("b", 3),
        ("b", 2),
    ]


def test_nothing_recorded_makes_no_data_set(tmp_path: Path) -> None:
    with Recording(tmp_path / "data", BODY) as recording:
        assert recording.finish() is None
    assert not (tmp_path / "data").exists()
    with pytest.raises(DataError, match="at least one step"):
        Recording(tmp_path / "other", BODY, most_steps=0)


_KILLED = """
import sys, numpy as np
from pathlib import Path
from ornstein.serving.recorder import Recording
from tests.serving.test_server import BODY, observation
recording = Recording(Path(sys.argv[1]), BODY)
for number in range(1000):
    recorded = recording.episode()
    for step in range(3):
        recorded.note(observation("close"), np.full(7, number / 1000, np.float32), shielded=False)
    recorded.end()
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_kill_loses_no_episode_that_had_ended(tmp_path: Path, after: int) -> None:
    out = tmp_path / "data"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(out)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    ended = [int(process.stdout.readline()) for _ in range(after + 1)]
    time.sleep(0.01 * after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    assert not out.exists()
    with Recording(out, BODY) as recording:
        assert recording.episodes >= len(ended)
        recording.finish()
    found = LeRobotDataset(out).actions[::3, 0]
    np.testing.assert_allclose(found[: len(ended)], np.array(ended) / 1000, atol=1e-6)
