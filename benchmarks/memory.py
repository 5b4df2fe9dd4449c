"""How much memory does `ornstein sample` take, and does it grow with the number of pictures?

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/memory.py

Writes benchmarks/results/memory.json. Each run is a process of its own; its peak is what the system says when it has ended
(`ru_maxrss`, in MiB): Python, torch and the weights are in it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, write

PROMPT, STEPS, REPEATS = "a red apple on a yellow background", 2, 3
#: Pictures asked for, and how many are denoised together.
RUNS = ((1, 1), (8, 1), (64, 1), (256, 1), (64, 8))
_KIB_PER_MIB = 1024


def peak(num: int, batch: int) -> float:
    """MiB of one run."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "a.png")
        words = ["sample", PROMPT, "--steps", str(STEPS), "--num", str(num), "--batch", str(batch), "--out", out]
        process = subprocess.Popen(
            [sys.executable, "-m", "ornstein", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"ornstein sample ended with {process.returncode}")
        drawn = len(list(Path(folder).iterdir()))
        if drawn < num:
            raise RuntimeError(f"{num} pictures were asked for, {drawn} files are there")
    return usage.ru_maxrss / _KIB_PER_MIB


def main() -> None:
    """Measure and write."""
    rows: list[dict[str, Any]] = []
    for num, batch in RUNS:
        peaks = [peak(num, batch) for _ in range(REPEATS)]
        rows.append({"num": num, "batch": batch, "peak_mib": statistics.median(peaks), "peaks_mib": peaks})
    write(RESULTS / "memory.json", {"steps": STEPS, "prompt": PROMPT, "runs": rows})


if __name__ == "__main__":
    main()
