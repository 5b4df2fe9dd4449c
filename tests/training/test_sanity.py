"""One batch again and again."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torch import nn

from ornstein.core import TrainingError, read_checkpoint
from ornstein.training import overfitting_one_batch


def test_it_sees_the_first_batch_alone_learns_it_and_says_so(
    tmp_path: Path, tiny: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []

    def batch_of(indices: np.ndarray) -> object:
        drawn.append(indices.tolist())
        return tiny.batch_of(indices)

    def model() -> nn.Module:
        network = tiny.network()
        network.dropout = nn.Identity()
        return network

    settings = tiny.settings(steps=150, checkpoint_every=150, preview_every=150)
    with overfitting_one_batch():
        alone = tiny.run(tmp_path / "one", settings, model=model(), loss_fn=tiny.deterministic_loss, batch_of=batch_of)
    assert drawn == [[0, 1, 2, 3]] * 150
    assert "one batch again and again: loss" in capsys.readouterr().err
    drawn.clear()
    everything = tiny.run(tmp_path / "all", settings, model=model(), loss_fn=tiny.deterministic_loss, batch_of=batch_of)
    assert drawn[-1] == [596, 597, 598, 599]
    assert "again" not in capsys.readouterr().err
    assert alone.loss < 1e-3 < everything.loss


def test_what_it_leaves_says_so_and_is_no_training_to_go_on_with(tmp_path: Path, tiny: ModuleType) -> None:
    with overfitting_one_batch():
        result = tiny.run(tmp_path, tiny.settings(steps=5))
    assert read_checkpoint(result.model_path).provenance["hyper_parameters"]["overfit_one_batch"] is True
    with pytest.raises(TrainingError, match="overfit_one_batch"):
        tiny.run(tmp_path, tiny.settings(steps=5), resume=True)
    with overfitting_one_batch():
        tiny.run(tmp_path, tiny.settings(steps=5), resume=True)
