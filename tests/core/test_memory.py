"""What is freed and needed again is not asked of the kernel again; who waits sleeps, unless somebody said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ornstein.core.memory import wait_asleep

_ASKING = """
import resource, sys
import numpy as np
from ornstein.core.memory import keep_freed_memory

if sys.argv[1] == "keep":
    print(keep_freed_memory())
np.ones(40_000_000)  # more than is ever kept by default
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(40_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_that_was_freed_is_used_again() -> None:
    """By the kernel's own count of pages that it had to find."""
    told, kept = _run("keep")
    if told != "True":
        pytest.skip("another C library")
    (given_back,) = _run("give back")
    assert int(given_back) > 1000
    assert int(kept) < int(given_back) / 20


def _run(how: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", _ASKING, how], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("said", "then"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_wait_as_they_were_told_to(said: dict[str, str], then: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    wait_asleep()
    assert os.environ.get("GOMP_SPINCOUNT") == then
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
