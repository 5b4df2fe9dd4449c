from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from ornstein.core import (
    Camera,
    Channel,
    Checkpoint,
    CheckpointError,
    EmbodimentContract,
    read_checkpoint,
    write_checkpoint,
)

CONTRACT = EmbodimentContract(
    "arm", (Camera("front", 8, 8),), (), (Channel("dx", "m", -0.1, 0.1),), "delta", "none", "none", 5.0, 1
)
EXTRA: dict[str, Any] = {
    "training_state/progress.json": b'{"step": 7}',
    "training_state/moments.safetensors": {"w/step": np.float32(7.0)},
}


def write(folder: Path, fill: float = 1.0, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "kind": "rt1",
        "config": {"width": 3, "sizes": (1, 2)},
        "tensors": {"w": np.full((2, 3), fill, np.float32), "b": np.arange(3, dtype=np.float16)},
        "provenance": {"recipe": "tiny", "seed": 0},
        "card": "# tiny\n",
        "contract": CONTRACT,
        "extra_files": EXTRA,
    }
    write_checkpoint(folder, **{**arguments, **changes})


def fill_of(checkpoint: Checkpoint) -> float:
    return float(checkpoint.tensors()["w"][0, 0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "models" / "tiny")
    return tmp_path / "models" / "tiny"


def test_what_is_written_is_read(folder: Path) -> None:
    checkpoint = read_checkpoint(folder, expect_kind="rt1")
    assert checkpoint.path == folder
    assert checkpoint.config == {"width": 3, "sizes": [1, 2]}
    assert checkpoint.provenance == {"recipe": "tiny", "seed": 0}
    assert checkpoint.contract == CONTRACT
    np.testing.assert_array_equal(checkpoint.tensors()["w"], np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(checkpoint.tensors()["b"], np.arange(3, dtype=np.float16))
    assert checkpoint.tensors("training_state/moments.safetensors")["w/step"] == 7.0
    assert checkpoint.read_bytes("training_state/progress.json") == b'{"step": 7}'
    assert (folder / "card.md").read_text() == "# tiny\n"


def test_the_folder_holds_what_the_design_says(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "contract.json", "card.md", *EXTRA}
    data = json.loads((folder / "config.json").read_text())
    assert (data["format"], data["version"], data["kind"]) == ("ornstein-checkpoint", 1, "rt1")
    assert set(data["sha256"]) == files - {"config.json", "card.md"}
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]  # no temporary folder stays
    assert os.stat(folder / "model.safetensors").st_mode & 0o044 == os.stat(folder / "card.md").st_mode & 0o044


def test_the_weights_are_plain_safetensors(folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"w": (2, 3), "b": (3,)}


NUMBERS = st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
ARRAYS = NUMBERS.flatmap(lambda kind: st_numpy.arrays(kind, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.text("abc.", min_size=1, max_size=5), ARRAYS, max_size=3), st.booleans())
def test_any_array_comes_back_bit_for_bit(tmp_path: Path, arrays: dict[str, np.ndarray], as_torch: bool) -> None:
    # Transposed: what lies in memory is not what is meant.
    meant = {name: array.T for name, array in arrays.items()}
    tensors = {name: torch.from_numpy(array.copy()).T if array.ndim == 2 else torch.from_numpy(array.T.copy())
               for name, array in arrays.items()} if as_torch else meant  # fmt: skip
    write(tmp_path / "any", tensors=tensors)
    found = read_checkpoint(tmp_path / "any").tensors()
    assert set(found) == set(meant)
    for name, array in meant.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_torch_tensors_of_any_layout(tmp_path: Path) -> None:
    convolution = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    shared = torch.arange(6.0)
    tensors = {
        "channels_last": convolution.to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(shared),
        "view": shared[2:4],
        "tied": shared,
    }
    write(tmp_path / "torch", tensors=tensors)
    found = read_checkpoint(tmp_path / "torch").tensors()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'w'.*float16 or float32"):
        write(tmp_path / "bf16", tensors={"w": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(CheckpointError, match="'w' is of type <U1"):
        write(tmp_path / "text", tensors={"w": np.array(["a"])})
    with pytest.raises(CheckpointError, match="'w' is of type object"):  # which only pickle could write
        write(tmp_path / "object", tensors={"w": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


# ---- damage ----


def test_any_flipped_bit_is_noticed(folder: Path) -> None:
    names = ["model.safetensors", "contract.json", "config.json", *EXTRA]
    generator = np.random.default_rng(0)
    for name in names:
        whole = (folder / name).read_bytes()
        for bit in generator.choice(8 * len(whole), size=min(150, 8 * len(whole)), replace=False):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << (bit % 8)
            (folder / name).write_bytes(damaged)
            with pytest.raises(CheckpointError):
                read_checkpoint(folder)
        (folder / name).write_bytes(whole)
    read_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "contract.json", *EXTRA])
def test_a_truncated_or_missing_file_is_named_with_the_remedy(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=rf"{name} has {len(whole) - 1} bytes, expected {len(whole)}.*again"):
        read_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"lacks its file {name}.*again"):
        read_checkpoint(folder)


def test_a_flipped_bit_of_the_weights_is_said_in_one_line(folder: Path) -> None:
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[-1] ^= 1
    (folder / "model.safetensors").write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"damaged \(its sha256 does not match\): fetch or train it again") as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2 .* reads 1: update ornstein"),
        ({"format": "other"}, "another program"),
        ({"kind": "text-to-image"}, "checksum"),
        ({"surplus": 1}, "checksum"),
    ],
)
def test_another_format_version_or_edited_field(folder: Path, change: dict[str, Any], words: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_configuration_that_is_not_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"damaged|another program"):
        read_checkpoint(folder)


def test_no_checkpoint_where_one_was_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*nowhere \(no folder\)"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="a folder without config.json"):
        read_checkpoint(tmp_path)


def test_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of kind 'rt1', expected 'text-to-image'"):
        read_checkpoint(folder, expect_kind="text-to-image")


def test_a_file_that_it_does_not_have(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"has no ema\.safetensors; it has model\.safetensors"):
        checkpoint.tensors("ema.safetensors")
    with pytest.raises(CheckpointError, match=r"has no notes\.txt"):
        checkpoint.read_bytes("notes.txt")


def test_the_card_may_be_edited(folder: Path) -> None:
    before = read_checkpoint(folder).fingerprint
    (folder / "card.md").write_text("# measured since: 81 %\n")
    assert read_checkpoint(folder).fingerprint == before


def test_the_fingerprint_is_of_what_the_model_computes(tmp_path: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        write(tmp_path / "x", **changes)
        return read_checkpoint(tmp_path / "x").fingerprint

    same = fingerprint()
    assert fingerprint(card="other", provenance={"seed": 1}, extra_files={}) == same
    assert len({same, fingerprint(kind="other"), fingerprint(config={"width": 4}), fingerprint(fill=2.0)}) == 4


# ---- writing: all or nothing ----


@pytest.mark.parametrize("name", ["config.json", "card.md", "model.safetensors", "contract.json", "/etc/x", "../x", ""])
def test_an_extra_file_cannot_displace_another_or_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="extra file"):
        write(tmp_path / "x", extra_files={name: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", [{"x": float("nan")}, {"x": object()}, {"x": {1, 2}}])
def test_a_configuration_must_be_json(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="JSON"):
        write(tmp_path / "x", config=config)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*file is not a folder"):
        write(tmp_path / "file" / "x")
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*: not a directory"):
        write(tmp_path / "file" / "x" / "y")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint /proc/x"):
        write(Path("/proc/x"))


def test_when_the_system_refuses_bytes_the_old_one_stays(
    folder: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    with largest_file(10_000), pytest.raises(CheckpointError, match="file too large; what was there before is unchanged"):
        write(folder, fill=2.0, tensors={"w": np.zeros(100_000, np.float32)})
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert fill_of(read_checkpoint(folder)) == 1.0


@pytest.mark.parametrize("failing", range(12))
def test_a_disk_that_fills_up_at_any_write(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    calls = iter(range(100))
    real_write, real_sync = Path.write_bytes, os.fsync

    def full(*_: Any) -> None:
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", lambda self, data: (real_write(self, data[: len(data) // 2]), full(), real_write(self, data))[2])  # fmt: skip
    monkeypatch.setattr(os, "fsync", lambda descriptor: (full(), real_sync(descriptor))[1])
    with pytest.raises(CheckpointError, match="no space left on device"):
        write(folder, fill=2.0)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert fill_of(read_checkpoint(folder)) == 1.0


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rename_that_fails_brings_the_old_one_back(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    calls, real = iter(range(100)), os.rename

    def rename(source: Path, target: Path) -> None:
        if next(calls) == failing:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CheckpointError, match="operation not permitted"):
        write(folder, fill=2.0)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert fill_of(read_checkpoint(folder)) == 1.0


def _write_and_die_at(folder: Path, call: int) -> bool:
    """In a child process, die at the given system call without any clean-up; whether it got that far."""
    child = os.fork()
    if child == 0:
        calls = iter(range(100))
        for name in ("rename", "fsync", "mkdir", "rmdir"):
            real = getattr(os, name)

            def dying(*arguments: Any, real: Any = real, **named: Any) -> Any:
                if next(calls) == call:
                    os._exit(9)
                return real(*arguments, **named)

            setattr(os, name, dying)
        with suppress(BaseException):
            write(folder, fill=2.0)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_whoever_dies_when_a_whole_checkpoint_is_there(folder: Path) -> None:
    outcomes = []
    for call in range(100):
        shutil.rmtree(folder.parent)
        write(folder, fill=1.0)
        if not _write_and_die_at(folder, call):
            break
        try:
            outcomes.append(fill_of(read_checkpoint(folder)))
        except CheckpointError as error:  # between the two renames: the message says where the predecessor is
            aside = Path(str(error).split(" is whole in ")[1].split(": rename that to ")[0])
            outcomes.append(fill_of(read_checkpoint(aside)))
        write(folder, fill=3.0)  # and what it left behind disturbs nobody
        assert fill_of(read_checkpoint(folder)) == 3.0
    assert len(outcomes) > 15
    assert set(outcomes) == {1.0, 2.0}
    assert outcomes == sorted(outcomes)  # the old one up to some call, the new one from then on


def test_it_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path; from ornstein.core import *\n"
        f"p = Path({str(tmp_path / 'x')!r})\n"
        "write_checkpoint(p, kind='k', config={}, tensors={'w': np.ones(2)}, provenance={}, card='')\n"
        "read_checkpoint(p).tensors(); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
