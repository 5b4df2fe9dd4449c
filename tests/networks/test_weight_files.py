from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ornstein.core.errors import CheckpointError
from ornstein.networks.weight_files import read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5, -2.0])}


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must not run",))


def test_both_kinds_of_file_give_back_what_was_saved(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    torch.save(WEIGHTS, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        found = read_weights(tmp_path / name)
        assert found.keys() == WEIGHTS.keys()
        assert all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


def test_files_that_are_no_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(WEIGHTS, tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-4])
    torch.save(WEIGHTS, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:300])
    torch.save({"a": _Runs()}, tmp_path / "runs.pth")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model": WEIGHTS}, tmp_path / "nested.pt")
    (tmp_path / "w.h5").write_bytes(b"x")
    for name, message in {
        "none.pth": "there is no file",
        "cut.safetensors": "is damaged",
        "cut.pth": "is damaged",
        "runs.pth": "holds more than tensors",
        "list.pt": "does not hold a state dict",
        "nested.pt": "does not hold a state dict",
        "w.h5": "neither a .safetensors",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path / name)
    assert "must not run" not in capsys.readouterr().out
