from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ornstein.training.export as export_module
from ornstein.core import TrainingError, read_checkpoint
from ornstein.training import export_model
from ornstein.training.export import describe, machine, source_commit


def _export(folder: Path, model: nn.Module, **changes: Any) -> Any:
    arguments = {"kind": "k", "config": {"w": 1}, "provenance": {"recipe": "tiny"}, "card": "# tiny"}
    return export_model(folder, model, **{**arguments, **changes})


def test_matrices_are_halved_and_vectors_kept(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model.register_buffer("tiny_scale", torch.tensor([1e-9]))
    tensors = _export(tmp_path / "m", model).tensors()
    assert set(tensors) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        expected = tensor.numpy().astype(np.float16) if tensor.ndim >= 2 else tensor.numpy()
        assert tensors[name].dtype == expected.dtype
        np.testing.assert_array_equal(tensors[name], expected)
    assert tensors["tiny_scale"] == np.float32(1e-9)  # in float16 it would be 0


def test_extra_files_and_an_older_export(tmp_path: Path) -> None:
    _export(tmp_path / "m", nn.Linear(2, 2), extra_files={"words.txt": b"a b"})
    checkpoint = _export(tmp_path / "m", nn.Linear(3, 3), extra_files={"words.txt": b"c"})
    assert checkpoint.read_bytes("words.txt") == b"c"
    assert read_checkpoint(tmp_path / "m").tensors()["weight"].shape == (3, 3)


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (7e4, "float16's largest")]
)
def test_weights_that_cannot_be_stored(tmp_path: Path, value: float, words: str) -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 1] = value
    with pytest.raises(TrainingError, match=f"weight .*{words}"):
        _export(tmp_path / "m", model)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_reads_back_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = export_module.write_checkpoint

    def losing_a_bit(folder: Path, *, tensors: dict[str, torch.Tensor], **rest: Any) -> None:
        real(folder, tensors={name: tensor + 1 for name, tensor in tensors.items()}, **rest)

    monkeypatch.setattr(export_module, "write_checkpoint", losing_a_bit)
    with pytest.raises(TrainingError, match="does not read back"):
        _export(tmp_path / "m", nn.Linear(2, 2))


def test_the_card() -> None:
    provenance = {"recipe": "tiny", "steps": 10, "loss": 0.123456789, "hyper_parameters": {"a": 1}}
    assert describe(provenance, "rt1", "Trained on 10 episodes.") == (
        "# tiny\n\nA checkpoint of kind `rt1`, trained by `ornstein train tiny`.\n\nTrained on 10 episodes.\n\n"
        "| | |\n|---|---|\n| recipe | tiny |\n| steps | 10 |\n| loss | 0.1235 |\n"
    )


def test_the_machine_in_words() -> None:
    assert f"torch {torch.__version__}" in machine()
    assert "threads" in machine()


def _git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(("git", *identity, *words), cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_says_whether_the_source_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ornstein"
    (package / "training").mkdir(parents=True)
    source = package / "__init__.py"
    source.write_text("x = 1\n")
    monkeypatch.setattr(export_module, "__file__", str(package / "training" / "export.py"))
    assert source_commit() == "unknown"  # no repository
    _git(tmp_path, "init", "-q")
    (tmp_path / "theirs").write_text("")
    _git(tmp_path, "add", "theirs")
    _git(tmp_path, "commit", "-qm", "another's")
    assert source_commit() == "unknown"  # installed inside another's repository
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "ours")
    head = _git(tmp_path, "rev-parse", "HEAD")
    assert source_commit() == head
    (tmp_path / "theirs").write_text("edited")
    assert source_commit() == head  # the package is what counts
    source.write_text("x = 2\n")
    assert source_commit() == head + "-modified"
