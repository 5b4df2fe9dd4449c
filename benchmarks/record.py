"""What every benchmark writes down: where it ran, from which commit, and shares with their intervals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ornstein.evaluation.statistics import wilson_interval

RESULTS = Path(__file__).parent / "results"


def share(successes: int, n: int) -> dict[str, Any]:
    """k of n with its 95 % Wilson interval; nothing of nothing is null."""
    if n == 0:
        return {"successes": 0, "n": 0, "rate": None, "wilson95": None}
    low, high = wilson_interval(successes, n)
    return {"successes": successes, "n": n, "rate": successes / n, "wilson95": [low, high]}


def write(out: Path, measured: dict[str, Any]) -> None:
    """Write and print the measured figures with their origin."""
    from ornstein.training import origin

    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(origin(" ".join(["python", *sys.argv])) | measured, indent=1) + "\n", encoding="utf8")
    print(json.dumps(measured, indent=1))
    print(out)
