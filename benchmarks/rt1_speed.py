"""How fast the full-size RT-1 decides: `python benchmarks/rt1_speed.py [THREADS]`. The paper's robot ran at 3 Hz.

One decision is one new picture of 300 pixels with five older ones kept as tokens, by `RT1Policy.act`; random weights. Also without keeping
them, to show what that saves. Medians of interleaved turns; results in `benchmarks/results/rt1_speed.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ornstein.policies import PaperRT1, RT1Policy
from ornstein.simulation.tabletop import contract

OUT = Path(__file__).parent / "results" / "rt1_speed.json"
TURNS, STEPS = 5, 6


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = PaperRT1().eval()
    ways = {
        "as trained": network,
        "for acting, fp32": network.for_acting(),
        "for acting, bf16": network.for_acting("bf16"),
    }
    body = contract({"front": 300})
    policies = {name: RT1Policy(made, body) for name, made in ways.items()}
    rng = np.random.default_rng(0)

    def observation() -> dict[str, object]:
        picture = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        return {"pixels": {"front": picture}, "agent_pos": np.zeros(7, np.float32), "instruction": "pick up the red apple"}

    for policy in policies.values():  # fill the history
        for _ in range(network.config.history):
            policy.act(observation())  # type: ignore[arg-type]
    spent: dict[str, list[float]] = {name: [] for name in (*ways, "as trained, all six pictures looked at again")}
    window = torch.rand(1, 6, 3, 300, 300)
    for _ in range(TURNS):
        for name, policy in policies.items():
            for _ in range(STEPS):
                seen = observation()
                began = time.perf_counter()
                policy.act(seen)  # type: ignore[arg-type]
                spent[name].append(time.perf_counter() - began)
        with torch.inference_mode():
            began = time.perf_counter()
            network(window, torch.zeros(1, 1, 512))
            spent["as trained, all six pictures looked at again"].append(time.perf_counter() - began)
    rows = {
        name: {"milliseconds": 1000 * statistics.median(times), "hertz": 1 / statistics.median(times)}
        for name, times in spent.items()
    }
    for name, row in rows.items():
        print(f"{name:45} {row['milliseconds']:7.1f} ms  {row['hertz']:5.1f} Hz")
    OUT.write_text(
        json.dumps({"threads": threads, "torch": torch.__version__, "n": TURNS * STEPS, "ways": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
