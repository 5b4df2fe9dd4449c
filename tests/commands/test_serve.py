"""`ornstein serve` as robots and their keepers meet it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ornstein
from ornstein.cli import main
from ornstein.core.errors import OrnsteinError
from ornstein.data.lerobot import LeRobotDataset
from ornstein.evaluation.trials import limits_of
from ornstein.safety import ShieldedPolicy
from ornstein.serving.client import PolicyClient
from ornstein.simulation.tabletop import TabletopEnv


@contextmanager
def serving(*words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "ornstein", "serve", *words, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def test_a_served_policy_moves_the_robot_as_it_would_in_process(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    env = TabletopEnv(cameras={"front": 128})
    try:
        alone = ShieldedPolicy(ornstein.load("modular-tabletop"), limits_of(env))
        folder = tmp_path / "kept"
        with serving("modular-tabletop", "--key-file", str(tmp_path / "key"), "--record", str(folder)) as (address, process):
            with pytest.raises(OrnsteinError, match="401"):
                PolicyClient(address, alone.contract)
            with PolicyClient(address, alone.contract, key="s3cret") as robot:
                assert robot.metadata["policy"] == "modular-tabletop"
                assert robot.metadata["shield"] is True
                observation, _ = env.reset(seed=11)
                sent = []
                for _ in range(8):
                    action = robot.act(observation)  # type: ignore[arg-type]
                    sent.append(action)
                    np.testing.assert_array_equal(action, alone.act(observation))  # type: ignore[arg-type]
                    observation, *_ = env.step(action)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert process.stdout is not None
            assert process.stdout.read() == f"{folder}: 1 episodes\n"
            np.testing.assert_array_equal(LeRobotDataset(folder).actions, np.stack(sent))
            log = process.stderr.read()
            assert "robot 127.0.0.1 connected" in log
            assert "Traceback" not in log
            assert "s3cret" not in log
    finally:
        env.close()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("modular-tabletop", "--host", "0.0.0.0"), "there is no key"),
        (("text-to-image",), "is no policy"),
        (("modular-tabletop", "--think"), "an RT-2 does"),
        (("modular-tabletop", "--key-file", "nowhere"), "cannot read a key"),
        (("modular-tabletop", "--tls-key", "nowhere"), "needs both"),
        (("modular-tabletop", "--tls-key", "nowhere", "--tls-certificate", "nowhere"), "no certificate with its key"),
        (("modular-tabletop", "--rate", "0"), "rate and jerk"),
        (("modular-tabletop", "--workspace", "0", "0", "0", "1", "0", "1"), "low below"),
        (("modular-tabletop", "--clients", "0"), "at least one client"),
        (("modular-tabletop", "--host", "203.0.113.7", "--anyone"), "cannot listen on 203.0.113.7"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORNSTEIN_API_KEY", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["serve", *words, "--port", "0"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert complaint in error
