"""How long does `ornstein --help` take, and loading each shipped model? Writes benchmarks/results/startup.json."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import RESULTS, write

from ornstein.hub import bundled_names


def seconds(*command: str, repeats: int = 7) -> dict[str, float]:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return {"median": statistics.median(times), "min": min(times), "max": max(times), "repeats": repeats}


if __name__ == "__main__":
    program = str(Path(sys.executable).with_name("ornstein"))
    measured = {"help": seconds(program, "--help"), "import": seconds(sys.executable, "-c", "import ornstein")}
    # Beyond torch's own import, which both pay.
    measured["import torch"] = seconds(sys.executable, "-c", "import torch")
    measured["import ornstein.diffusion"] = seconds(sys.executable, "-c", "import ornstein.diffusion")
    for name in bundled_names():
        measured[f"load {name}"] = seconds(sys.executable, "-c", f"import ornstein; ornstein.load({name!r})", repeats=3)
    write(RESULTS / "startup.json", measured)
