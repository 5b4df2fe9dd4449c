"""Two processes under torchrun with gloo against one: the same samples, the same averaged gradient, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

_PROGRAM = """
import importlib.util, sys
from pathlib import Path
import torch.distributed as dist
specification = importlib.util.spec_from_file_location("tiny_run", {tiny!r})
tiny = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tiny)
model = tiny.initialise(tiny.TinyNetwork, int(__import__("os").environ["RANK"]))  # the second starts elsewhere
model.norm, model.dropout = tiny.nn.Identity(), tiny.nn.Identity()  # which depend on the local batch
def loss_fn(model, batch, rng):
    return tiny.deterministic_loss(model, batch, rng), {{"first": batch["x"][0, 0, 0, 0], "rank": float(dist.get_rank())}}
result = tiny.run(Path({out!r}), tiny.settings(), model=model, loss_fn=loss_fn)
print(f"rank {{dist.get_rank()}} of {{dist.get_world_size()}} done", flush=True)
"""


def test_two_processes_train_like_one(tmp_path: Path, tiny: ModuleType) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM.format(tiny=str(tiny.__file__), out=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rank 0 of 2 done" in done.stdout
    assert "rank 1 of 2 done" in done.stdout

    model = tiny.network()
    model.norm, model.dropout = tiny.nn.Identity(), tiny.nn.Identity()
    tiny.run(tmp_path / "one", model=model, loss_fn=tiny.deterministic_loss)
    one, two = tiny.final_state(tmp_path / "one"), tiny.final_state(tmp_path / "two")
    assert set(one) == set(two)
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-4, atol=1e-6, err_msg=name)

    rows = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("one", "two")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]  # one process writes
    for mine, theirs in zip(*rows, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert theirs["gradient_norm"] == pytest.approx(mine["gradient_norm"], rel=1e-4)
    assert {row["rank"] for row in rows[1]} == {0.5}  # what is logged is the mean over the processes


_STOPPED = """
import os, signal
signalled = iter(range(1, 1000))
def noisy(model, batch, rng):
    if next(signalled) == 3 and os.environ["RANK"] == "1":  # one of them alone, far from any line of the log
        os.kill(os.getpid(), signal.SIGTERM)
    return tiny.deterministic_loss(model, batch, rng)
model = tiny.network()
model.norm, model.dropout = tiny.nn.Identity(), tiny.nn.Identity()
try:
    tiny.run(Path({out!r}), tiny.settings(log_every=100), model=model, loss_fn=noisy)
except SystemExit as stop:
    print(f"rank {{os.environ['RANK']}} stopped with {{stop.code}}", flush=True)
"""


def test_all_stop_at_the_step_at_which_one_is_told_to(tmp_path: Path, tiny: ModuleType) -> None:
    program = tmp_path / "program.py"
    loading = _PROGRAM.split("model = tiny.initialise", maxsplit=1)[0]
    program.write_text((loading + _STOPPED).format(tiny=str(tiny.__file__), out=str(tmp_path / "run")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "rank 0 stopped with 130" in done.stdout, done.stderr[-3000:]
    assert "rank 1 stopped with 130" in done.stdout
    assert "step-0000003" in [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
