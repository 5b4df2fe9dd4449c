from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ornstein.core import Camera, ContractError, EmbodimentContract, TrainingError, read_checkpoint
from ornstein.training import Batch

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "channels_last": {"channels_last": True},
    "linear decay": {"decay": "linear", "final_learning_rate_fraction": 0.1},
}


def _interrupting(tiny: ModuleType, at: int, number: signal.Signals) -> Callable[..., Any]:
    """The noisy loss; the process receives a signal in the middle of step `at`, counted from 1."""
    calls = iter(range(1, 1000))

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> Any:
        if next(calls) == at:
            os.kill(os.getpid(), number)
        return tiny.noisy_loss(model, batch, rng)

    return loss_fn


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("at", [1, 7])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, tiny: ModuleType, name: str, at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    optimization = tiny.settings(**VARIANTS[name])
    straight = tiny.run(tmp_path / "straight", optimization)
    with pytest.raises(SystemExit) as stopped:
        tiny.run(tmp_path / "resumed", optimization, loss_fn=_interrupting(tiny, at, signal.SIGINT))
    assert stopped.value.code == 130
    assert f"stopped at step {at} of 12; go on with the same command and --resume" in capsys.readouterr().err
    assert not (tmp_path / "resumed" / "model").exists()
    resumed = tiny.run(tmp_path / "resumed", optimization, resume=True)
    assert f"resuming at step {at} of 12" in capsys.readouterr().err
    tiny.assert_same_bits(tiny.final_state(tmp_path / "straight"), tiny.final_state(tmp_path / "resumed"))
    exported = [read_checkpoint(result.model_path) for result in (straight, resumed)]
    assert exported[0].fingerprint == exported[1].fingerprint
    tiny.assert_same_bits(exported[0].tensors(), exported[1].tensors())
    # What was logged, too, all but the clock.
    logs = []
    for folder in ("straight", "resumed"):
        rows = [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in rows])
    assert logs[0] == logs[1]


def test_sigterm_is_as_good(tmp_path: Path, tiny: ModuleType) -> None:
    with pytest.raises(SystemExit):
        tiny.run(tmp_path, loss_fn=_interrupting(tiny, 7, signal.SIGTERM))
    assert read_checkpoint(tmp_path / "checkpoints" / "step-0000007")


def test_the_handlers_are_put_back(tmp_path: Path, tiny: ModuleType) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    tiny.run(tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, tiny: ModuleType) -> None:
    def impatient(model: nn.Module, batch: Batch, rng: torch.Generator) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        return tiny.noisy_loss(model, batch, rng)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tmp_path, loss_fn=impatient)
    assert time.monotonic() - started < 4


def test_it_trains_in_another_thread_too(tmp_path: Path, tiny: ModuleType) -> None:
    thread = threading.Thread(target=tiny.run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert read_checkpoint(tmp_path / "model")


def test_a_crash_costs_the_steps_since_the_last_checkpoint(tmp_path: Path, tiny: ModuleType) -> None:
    def crashing(indices: np.ndarray) -> Batch:
        if indices[0] >= 8 * 4:
            raise RuntimeError("power cut")
        return tiny.batch_of(indices)

    with pytest.raises(RuntimeError, match="power cut"):
        tiny.run(tmp_path, batch_of=crashing)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000005"]
    tiny.run(tmp_path, resume=True)
    tiny.run(tmp_path / "straight")
    tiny.assert_same_bits(tiny.final_state(tmp_path), tiny.final_state(tmp_path / "straight"))
    steps = [line.split(",")[0] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {k}' for k in (2, 4, 6, 8, 10, 12)]  # each once, in order


@pytest.mark.parametrize("delay", [0.0, 0.11, 0.27])
def test_killed_at_any_time_it_resumes_to_the_same_bits(tmp_path: Path, tiny: ModuleType, delay: float) -> None:
    command = [sys.executable, str(Path(tiny.__file__)), str(tmp_path / "killed"), "30"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 300
    # Not Path.glob, which fails where the folder goes while it looks.
    while not glob.glob(f"{checkpoints}/step-*") and time.monotonic() < deadline:  # noqa: PTH207
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    optimization = tiny.settings(steps=30, checkpoint_every=2, log_every=1)
    tiny.run(tmp_path / "killed", optimization, resume=True)
    tiny.run(tmp_path / "straight", optimization)
    tiny.assert_same_bits(tiny.final_state(tmp_path / "killed", 30), tiny.final_state(tmp_path / "straight", 30))
    assert [path for path in checkpoints.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path: Path, tiny: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.run(tmp_path / "straight")
    with pytest.raises(SystemExit):
        tiny.run(tmp_path / "damaged", loss_fn=_interrupting(tiny, 7, signal.SIGINT))
    weights = tmp_path / "damaged" / "checkpoints" / "step-0000007" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    tiny.run(tmp_path / "damaged", resume=True)
    out = capsys.readouterr().err
    assert "warning: passing over a damaged checkpoint" in out
    assert "resuming at step 5" in out
    tiny.assert_same_bits(tiny.final_state(tmp_path / "straight"), tiny.final_state(tmp_path / "damaged"))


def test_resuming_what_is_finished_only_exports_again(tmp_path: Path, tiny: ModuleType) -> None:
    first = tiny.run(tmp_path)
    fingerprint = read_checkpoint(first.model_path).fingerprint

    def never(*_: Any) -> Any:
        raise AssertionError("no step is left")

    again = tiny.run(tmp_path, resume=True, loss_fn=never)
    assert (again.steps, again.loss) == (12, first.loss)
    assert again.seconds == pytest.approx(first.seconds)
    assert read_checkpoint(again.model_path).fingerprint == fingerprint


def test_another_recipe_configuration_or_kind_is_refused(tmp_path: Path, tiny: ModuleType) -> None:
    with pytest.raises(SystemExit):
        tiny.run(tmp_path, loss_fn=_interrupting(tiny, 3, signal.SIGINT))
    with pytest.raises(TrainingError, match=r"another recipe: optimization.learning_rate is 0.02, was 0.01;"):
        tiny.run(tmp_path, tiny.settings(learning_rate=0.02), resume=True)
    with pytest.raises(TrainingError, match=r"config.width is 7, was 6"):
        tiny.run(tmp_path, config={"width": 7}, resume=True)
    with pytest.raises(TrainingError, match="of kind 'tiny', not 'other'"):
        tiny.run(tmp_path, kind="other", resume=True)
    with pytest.raises(TrainingError, match="does not fit the network: .*size mismatch"):
        model = tiny.network()
        model.head = nn.Linear(6, 4)
        tiny.run(tmp_path, model=model, resume=True)
    tiny.run(tmp_path, tiny.settings(log_every=3, keep_checkpoints=5), resume=True)


def test_another_embodiment_is_refused(tmp_path: Path, tiny: ModuleType) -> None:
    contract = EmbodimentContract("arm", (Camera("front", 8, 8),), (), (), "delta", "none", "none", 5.0, 1)
    with pytest.raises(SystemExit):
        tiny.run(tmp_path, loss_fn=_interrupting(tiny, 3, signal.SIGINT), contract=contract)
    with pytest.raises(ContractError, match=r"control_hz: 5.0 != 10.0"):
        tiny.run(tmp_path, contract=replace(contract, control_hz=10.0), resume=True)
    result = tiny.run(tmp_path, contract=contract, resume=True)
    assert read_checkpoint(result.model_path).contract == contract


def test_a_finished_model_cannot_be_resumed(tmp_path: Path, tiny: ModuleType) -> None:
    result = tiny.run(tmp_path / "a")
    target = tmp_path / "b" / "checkpoints" / "step-0000012"
    target.parent.mkdir(parents=True)
    result.model_path.rename(target)
    with pytest.raises(TrainingError, match="a finished model without a training state"):
        tiny.run(tmp_path / "b", resume=True)
