from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ornstein import doctor, hub
from ornstein.core.checkpoint import write_checkpoint


def test_this_machine_is_fit_to_run_the_tests() -> None:
    failed = [check for check in doctor.examine() if check.status == "fail"]
    assert not failed


def test_no_headless_gl_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(doctor, "_RENDER", "raise ImportError('Cannot initialize a EGL device display')")
    check = doctor.check_rendering()
    assert check.status == "fail"
    assert "EGL device display" in check.finding
    assert "apt-get install -y libegl1" in check.remedy
    assert "unset MUJOCO_GL" in check.remedy
    monkeypatch.delenv("MUJOCO_GL")
    assert "unset" not in doctor.check_rendering().remedy


def test_a_damaged_shipped_model_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    write_checkpoint(tmp_path / "toy", kind="autoencoder", config={}, tensors={"w": np.ones(3)}, provenance={}, card="")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    monkeypatch.setattr(hub, "SHIPPED", ("toy",))
    assert (doctor.check_checkpoints().status, doctor.check_checkpoints().finding) == ("ok", "toy")
    weights = tmp_path / "toy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    check = doctor.check_checkpoints()
    assert check.status == "fail"
    assert "sha256" in check.finding
    monkeypatch.setattr(hub, "SHIPPED", ("toy", "lost"))
    check = doctor.check_checkpoints()
    assert check.status == "fail"
    assert "lost is missing" in check.finding
    assert check.remedy.startswith("git checkout")


def test_a_wrong_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "4.0.0" if name == "mujoco" else real(name))
    check = doctor.check_packages()
    assert check.status == "fail"
    assert "mujoco is 4.0.0, needs ==3.3.0" in check.finding


def test_a_check_that_breaks_is_a_finding_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_disk() -> doctor.Check:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(doctor, "check_disk", check_disk)
    for slow in ("check_rendering", "check_language", "check_torch"):
        monkeypatch.setattr(doctor, slow, doctor.check_python)
    assert doctor.run_doctor(as_json=True) == 1
    (failed,) = (c for c in json.loads(capsys.readouterr().out) if c["status"] == "fail")
    assert failed["name"] == "disk"
    assert "disk on fire" in failed["finding"]


def test_too_little_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**12, 10**12 - 10**9, 10**9)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage)
    assert doctor.check_disk().status == "warn"
