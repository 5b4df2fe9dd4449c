"""Numbers of a data set by numpy's own, and each thing that makes a training go wrong in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ornstein.cli import main
from ornstein.data.lerobot import DatasetSpec, LeRobotDataset, LeRobotWriter, RobotEpisode
from ornstein.data.lerobot_summary import StatisticsRow, statistics_rows, suspicions
from ornstein.simulation.tabletop import contract


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with LeRobotWriter(tmp_path / "data", DatasetSpec(contract({"front": 32, "wrist": 16}))) as writer:
        for k in range(3):
            states = rng.uniform(0.1, 0.5, (40, 7)).astype(np.float32)
            actions = rng.uniform(-0.02, 0.02, (40, 7)).astype(np.float32)
            actions[:, 3], actions[:, 6] = 0.0, rng.integers(0, 2, 40)
            actions[:, 0] *= 1e-4
            if k == 1:
                actions[7, 0] = 0.03  # a stray
            frames = {"front": np.full((40, 32, 32, 3), 60 * k, np.uint8), "wrist": np.full((40, 16, 16, 3), 200, np.uint8)}
            writer.add(RobotEpisode(f"task {k}", frames, {"observation.state": states, "action": actions}))
        writer.finish()
    return tmp_path / "data"


def test_every_number_is_counted_anew(folder: Path) -> None:
    data = LeRobotDataset(folder)
    rows = {row.name: row for row in statistics_rows(folder)}
    assert len(rows) == 14
    for name, column in (("observation.state.yaw", data.states[:, 5]), ("action.dz", data.actions[:, 2])):
        row, values = rows[name], column.astype(np.float64)
        assert (row.mean, row.std) == pytest.approx((values.mean(), values.std()))
        assert (row.minimum, row.q01, row.q99, row.maximum) == pytest.approx(tuple(np.quantile(values, [0, 0.01, 0.99, 1])))
    assert (rows["action.dz"].low, rows["action.dz"].high) == (-0.03, 0.03)


def test_what_looks_wrong_is_said(folder: Path) -> None:
    found = "; ".join(suspicions(statistics_rows(folder)))
    assert "action.droll is always 0" in found
    assert "action.dx lies within" in found
    assert found.count(";") == 1


def test_another_unit_is_suspected() -> None:
    """Centimetres where metres belong go beyond the bounds, kilometres use a thousandth of them."""
    kilometres = StatisticsRow("action.dx", 0.0, 1e-5, -3e-5, -3e-5, 3e-5, 3e-5, low=-0.03, high=0.03)
    centimetres = StatisticsRow("action.dx", 0.0, 1.0, -3.0, -3.0, 3.0, 3.0, low=-0.03, high=0.03)
    metres = StatisticsRow("action.dx", 0.0, 1e-2, -0.03, -0.02, 0.02, 0.03, low=-0.03, high=0.03)
    (said,) = suspicions([kilometres])
    assert said == "action.dx uses 0.10% of its contract's range -0.03 … 0.03: in other units?"
    assert "its contract from" in suspicions([centimetres])[0]
    assert not suspicions([metres])


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "statistics", str(folder)) == 0
    said = capsys.readouterr().out
    assert "action.gripper" in said
    assert "look at this: action.droll" in said
    assert _run("data", "statistics", str(folder), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 14
    assert _run("data", "inspect", str(folder), "--sheet", str(tmp_path / "first.png")) == 0
    sheet = np.asarray(Image.open(tmp_path / "first.png").convert("RGB"))
    found = {level for level in (0, 60, 120, 200) if (np.abs(sheet.astype(int) - level).max(-1) < 4).sum() > 500}
    assert found == {0, 60, 120, 200}
    assert _run("data", "inspect", str(folder), "--sheet", str(tmp_path / "first.bmp")) == 2
    assert "--sheet takes a .png" in capsys.readouterr().err
