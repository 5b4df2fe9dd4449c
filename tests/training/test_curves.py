from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ornstein.training.curves import draw_losses


def _log(folder: Path, rows: list[dict[str, object]]) -> Path:
    log = folder / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return log


def _colors(path: Path) -> int:
    """How many strong colours a plot has: one for each curve that is not black."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    strong = pixels[np.ptp(pixels, axis=1) > 60]
    return len({tuple(row // 48) for row in strong})


def test_the_loss_and_its_bands_are_drawn(tmp_path: Path) -> None:
    rows = [
        {"step": k, "loss": 1 / k, "learning_rate": 0.1, "loss_band_1_of_2": 0.5 / k, "loss_band_2_of_2": 1.5 / k}
        for k in (1, 2, 3)
    ]
    assert draw_losses(_log(tmp_path, rows), tmp_path / "loss.png")
    assert Image.open(tmp_path / "loss.png").size == (840, 480)
    banded = _colors(tmp_path / "loss.png")
    assert draw_losses(_log(tmp_path, [{"step": row["step"], "loss": row["loss"]} for row in rows]), tmp_path / "loss.png")
    assert banded > _colors(tmp_path / "loss.png") == 0
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == ["loss.png"]


def test_gaps_negative_losses_and_a_single_row(tmp_path: Path) -> None:
    assert not draw_losses(_log(tmp_path, [{"step": 1, "loss": 0.5}]), tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
    rows = [{"step": 1, "loss": -0.5, "loss_a": None}, {"step": 2, "loss": None, "loss_a": None}, {"step": 3, "loss": 0.25}]
    assert draw_losses(_log(tmp_path, rows), tmp_path / "loss.png")


def test_a_plot_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    log = _log(tmp_path, [{"step": k, "loss": 1.0} for k in range(2)])
    with pytest.raises(OSError):
        draw_losses(log, tmp_path / "missing" / "loss.png")
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
