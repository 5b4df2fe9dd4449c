"""What this machine has and lacks, and the command that mends it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ornstein.core.checkpoint import read_checkpoint
from ornstein.core.errors import OrnsteinError

if TYPE_CHECKING:
    from collections.abc import Callable

Status = Literal["ok", "warn", "fail"]

_GL_PACKAGES = "libegl1 libopengl0 libgl1-mesa-dri libosmesa6"
# What everything else here does, in a process of its own: the backend that our own choice falls on must draw, not just any.
_RENDER = (
    "import os; from ornstein.simulation.tabletop import TabletopEnv; env = TabletopEnv(cameras={'front': 32}); env.reset(seed=0);"
    "assert env.render().max() > 0; env.close(); print(os.environ.get('MUJOCO_GL', 'the system'))"
)
_RENDER_SECONDS = 60
_DISK_NEEDED_GB = 2.0
_MEMORY_NEEDED_GB = 4.0


@dataclass(frozen=True)
class Check:
    """One finding. remedy: what to type, empty where nothing needs mending."""

    name: str
    status: Status
    finding: str
    remedy: str = ""


def run_doctor(*, as_json: bool = False) -> int:
    """Run every check, print them, and return 1 if any failed."""
    checks = examine()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        _print(checks)
    return int(any(check.status == "fail" for check in checks))


def examine() -> list[Check]:
    """All checks. One that breaks is itself a finding: the others still run."""
    examinations: list[Callable[[], Check]] = [
        check_python,
        check_packages,
        check_torch,
        check_rendering,
        check_video,
        check_language,
        check_checkpoints,
        check_disk,
        check_memory,
    ]
    found = []
    for examination in examinations:
        try:
            found.append(examination())
        except Exception as error:
            name = examination.__name__.removeprefix("check_")
            found.append(Check(name, "fail", f"{type(error).__name__}: {error}", "make setup"))
    return found


def check_python() -> Check:
    """Which Python this is; an older one than 3.11 could not have imported this file."""
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def check_packages() -> Check:
    """Every package that ornstein requires, in a version that it accepts."""
    from packaging.requirements import Requirement

    problems = []
    needed = [Requirement(text) for text in metadata.requires("ornstein") or []]
    needed = [requirement for requirement in needed if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, needs {requirement.specifier}")
    if problems:
        return Check("packages", "fail", "; ".join(problems), "make setup")
    return Check("packages", "ok", f"all {len(needed)} required packages fit")


def check_torch() -> Check:
    """torch's build, its threads, and whether this processor multiplies bfloat16 natively."""
    import torch

    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    speed = "native bfloat16 (fast)" if native else "no native bfloat16: networks run in float32, several times slower"
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    finding = f"{torch.__version__}, {torch.get_num_threads()} threads, {accelerator}, CPU has {speed}"
    return Check("torch", "ok", finding)


def check_rendering() -> Check:
    """One frame off screen, in a process of its own: a broken driver may crash it."""
    chosen = os.environ.get("MUJOCO_GL")
    install = f"sudo apt-get update && sudo apt-get install -y {_GL_PACKAGES}"
    remedy = f"unset MUJOCO_GL   (it is set to {chosen!r}); if that is not enough: {install}" if chosen else install
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RENDER], capture_output=True, text=True, timeout=_RENDER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("rendering", "fail", f"the GL did not answer in {_RENDER_SECONDS} s", remedy)
    if done.returncode == 0:
        return Check("rendering", "ok", f"headless through {done.stdout.strip().splitlines()[-1]}")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Check("rendering", "fail", f"no headless GL ({last[:160]})", remedy)


def check_video() -> Check:
    """The H.264 encoder that data sets and evaluation videos are written with."""
    import av

    try:
        av.Codec("libx264", "w")
    except av.codec.codec.UnknownCodecError:
        return Check("video", "fail", f"PyAV {av.__version__} has no libx264 encoder", "pip install --force-reinstall av")
    return Check("video", "ok", f"H.264 through PyAV {av.__version__}")


def check_language() -> Check:
    """The sentence encoder loads and gives unit vectors."""
    import numpy as np

    from ornstein.language import UniversalSentenceEncoder

    length = float(np.linalg.norm(UniversalSentenceEncoder().encode(["pick up the apple"])))
    if abs(length - 1) > 1e-3:
        return Check("language", "fail", f"a sentence vector has length {length:.3f}", "make setup")
    return Check("language", "ok", "Universal Sentence Encoder, 512 numbers a sentence")


def check_checkpoints() -> Check:
    """Every shipped model is there and whole, by its sha256."""
    from ornstein.hub import BUNDLED, SHIPPED, bundled_names

    damaged = [f"{name} is missing" for name in SHIPPED if name not in bundled_names()]
    for name in bundled_names():
        try:
            read_checkpoint(BUNDLED / name)
        except OrnsteinError as error:
            damaged.append(str(error))
    if damaged:
        return Check("checkpoints", "fail", "; ".join(damaged), "git checkout -- src/ornstein/checkpoints")
    return Check("checkpoints", "ok", ", ".join(bundled_names()))


def check_disk() -> Check:
    """Room for a data set and a training run."""
    free = {str(place): shutil.disk_usage(place).free / 1e9 for place in (Path.cwd(), Path(tempfile.gettempdir()))}
    finding = ", ".join(f"{room:.1f} GB free in {place}" for place, room in free.items())
    if min(free.values()) < _DISK_NEEDED_GB:
        return Check("disk", "warn", finding, f"free at least {_DISK_NEEDED_GB:g} GB before training")
    return Check("disk", "ok", finding)


def check_memory() -> Check:
    """Cores and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    finding = f"{os.cpu_count()} cores, {memory:.1f} GB of memory"
    if memory < _MEMORY_NEEDED_GB:
        return Check("machine", "warn", finding, f"training needs about {_MEMORY_NEEDED_GB:g} GB")
    return Check("machine", "ok", finding)


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table

    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "finding"):
        table.add_column(title, overflow="fold")
    for check in checks:
        table.add_row(marks[check.status], check.name, check.finding)
    console = Console()
    console.print(table)
    for check in checks:
        if check.remedy:
            console.print(f"{check.name}: {check.remedy}", markup=False, highlight=False, soft_wrap=True)
