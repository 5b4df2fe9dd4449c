"""How well do the expert and the shipped policy pick? Writes benchmarks/results/robot.json.

    .venv/bin/python benchmarks/robot.py [--episodes 300] [--checkpoint rt1-tabletop]

The same test scenes for all: the scripted expert, the policy, and the policy with a blank instruction (which should fall to about
one over the number of blocks) or one that names another block (which a policy that listens lifts: it should fall to nothing).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import tyro
from ornstein.evaluation.rollouts import Control
from record import RESULTS, share, write

import ornstein
from ornstein.core.progress import track
from ornstein.evaluation import TEST_SEED, evaluate_policy, mcnemar_exact
from ornstein.simulation import PickExpert, TabletopEnv, generate_episode


def expert(episodes: int, noise: float) -> dict[str, Any]:
    env, started = TabletopEnv(), time.perf_counter()
    try:
        seeds = track(range(TEST_SEED, TEST_SEED + episodes), episodes, f"expert, disturbance {noise:g}")
        done = [generate_episode(env, PickExpert(), seed, noise=noise) for seed in seeds]
    finally:
        env.close()
    return {
        **share(sum(episode.success for episode in done), episodes),
        "failed_seeds": [episode.seed for episode in done if not episode.success],
        "mean_steps": sum(map(len, done)) / episodes,
        "episodes_per_second": episodes / (time.perf_counter() - started),
    }


def policy(checkpoint: str, episodes: int, control: Control, workers: int) -> dict[str, Any]:
    loaded = ornstein.load(checkpoint, expect="rt1")
    with tempfile.TemporaryDirectory() as folder:
        record = evaluate_policy(
            loaded, episodes=episodes, out=Path(folder) / "r", instruction_control=control, workers=workers
        ).record
    return {
        **share(record["successes"], episodes),
        "chance": record["chance"],
        "lifted_the_named_block": record["lifted_the_named_block"],
        "lifted_another_block": record["lifted_another_block"],
        **{key: record[key] for key in ("checkpoint", "training_data", "contract", "split", "first_seed")},
        "episodes_per_second": episodes / record["seconds"],
        "solved": [int(episode["success"]) for episode in record["per_episode"]],
    }


def main(
    episodes: int = 300,
    checkpoint: str = "rt1-tabletop",
    workers: int = 2,
    out: Annotated[Path, tyro.conf.arg(help="results file")] = RESULTS / "robot.json",
) -> None:
    """Measure the scripted expert and the shipped policy."""
    measured: dict[str, Any] = {"first_seed": TEST_SEED}
    for noise in (0.0, 0.15):
        measured[f"expert_disturbed_{noise:g}"] = expert(episodes, noise)
    for control in get_args(Control):
        measured[f"policy_instruction_{control}"] = policy(checkpoint, episodes, control, workers)
    given = np.array(measured["policy_instruction_none"]["solved"], dtype=bool)
    for control in ("blank", "shuffled"):  # the same scenes: a paired test
        against = measured[f"policy_instruction_{control}"]
        against["mcnemar_p_against_the_instruction"] = mcnemar_exact(given, np.array(against["solved"], dtype=bool))
    write(out, measured)


if __name__ == "__main__":
    tyro.cli(main)
