"""Does rt1-tabletop know when it will fail, and when what it is asked for is not there?

.venv/bin/python benchmarks/doubt.py    # writes benchmarks/results/doubt.json

The chance of success is read off its doubt by a logistic curve that is fitted on validation scenes, and held against what happens in test scenes.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import RESULTS, share, write
from scipy import optimize, stats

POLICY = "rt1-tabletop"
#: Fixed before looking; validation scenes that no preview tries.
FITTED, TRIED = range(2_100_000, 2_100_300), range(1_000_000, 1_000_500)
FIRST_STEPS = 15
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
_GROUPS = 5


def episodes(seeds: range) -> list[tuple[bool, float, float]]:
    """For each scene: solved; mean doubt over its first steps, and over all."""
    import torch

    import ornstein
    from ornstein.evaluation.trials import world_for
    from ornstein.simulation.tabletop import suite

    torch.set_num_threads(1)
    policy = ornstein.load(POLICY, expect="rt1")
    env, found = world_for(policy.contract, suite("all")), []
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        policy.reset()
        doubts, over = [], False
        while not over:
            action = policy.act(observation)
            doubts.append(policy.doubt)
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        found.append((bool(info["is_success"]), float(np.mean(doubts[:FIRST_STEPS])), float(np.mean(doubts))))
    env.close()
    return found


def presence(seeds: range) -> list[tuple[float, float]]:
    """For each scene about a block: `found` at its first picture, for its own instruction, and for one that asks for a drawing that is not there."""
    import torch

    import ornstein
    from ornstein.evaluation.trials import world_for
    from ornstein.simulation.tabletop import suite
    from ornstein.simulation.tabletop.instructions import instruct
    from ornstein.simulation.tabletop.splits import words

    torch.set_num_threads(1)
    policy = ornstein.load(POLICY, expect="rt1")
    env, said = world_for(policy.contract, suite("all")), []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        scene, rng = env.scene, np.random.default_rng([seed, 71])
        assert scene is not None
        (task,) = scene.tasks
        if task.block is None:
            continue
        away = sorted(set(words("seen").objects) - {block.name for block in scene.blocks})
        wrong = task.block if task.reference is None or rng.random() < 0.5 else task.reference
        blocks = [replace(b, name=str(rng.choice(away))) if k == wrong else b for k, b in enumerate(scene.blocks)]
        pair = []
        for sentence in (scene.instruction, instruct([task], blocks, list(scene.mats), rng)):
            policy.reset()
            policy.act({**observation, "instruction": sentence})
            pair.append(policy.found)
        said.append((pair[0], pair[1]))
    env.close()
    return said


def measured() -> dict[str, Any]:
    """Everything, on two processes."""
    import ornstein

    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        fitted, tried = (np.concatenate([*pool.map(episodes, _halves(seeds))]) for seeds in (FITTED, TRIED))
        pairs = np.concatenate([*pool.map(presence, _halves(TRIED))])
    return {
        "checkpoint": ornstein.load(POLICY).fingerprint,
        "fitted_on": {"first_seed": FITTED.start, "scenes": len(fitted), "solved": int(fitted[:, 0].sum())},
        "tried_on": {"first_seed": TRIED.start, **share(int(tried[:, 0].sum()), len(tried))},
        "doubt": {
            name: _reliability(fitted[:, [0, k]], tried[:, [0, k]])
            for k, name in ((1, f"of the first {FIRST_STEPS} steps"), (2, "of the whole episode"))
        },
        "presence": {
            "pairs": len(pairs),
            "auroc": _auroc(pairs[:, 0], pairs[:, 1]),
            "thresholds": {
                str(threshold): {
                    "false_alarms": share(int((pairs[:, 0] < threshold).sum()), len(pairs)),
                    "caught": share(int((pairs[:, 1] < threshold).sum()), len(pairs)),
                }
                for threshold in THRESHOLDS
            },
        },
    }


def _halves(seeds: range) -> list[range]:
    return [seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]]


def _reliability(fitted: NDArray[np.float64], tried: NDArray[np.float64]) -> dict[str, Any]:
    """Fifths of the test scenes by predicted chance: predicted and observed; the expected calibration error, and Brier's score beside that of the
    mean alone."""
    low, spread = fitted[:, 1].mean(), fitted[:, 1].std()

    def chance(weights: NDArray[np.float64], doubt: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-(weights[0] + weights[1] * (doubt - low) / spread)))

    def cost(weights: NDArray[np.float64]) -> float:
        p = np.clip(chance(weights, fitted[:, 1]), 1e-9, 1 - 1e-9)
        return float(-(np.where(fitted[:, 0] > 0, np.log(p), np.log1p(-p))).mean())

    weights = optimize.minimize(cost, np.zeros(2)).x
    predicted, right = chance(weights, tried[:, 1]), tried[:, 0]
    groups = np.array_split(np.argsort(predicted), _GROUPS)
    curve = [{"predicted": float(predicted[g].mean()), **share(int(right[g].sum()), len(g))} for g in groups]
    return {
        "auroc_of_failure": _auroc(tried[right == 0, 1], tried[right == 1, 1]),
        "reliability": curve,
        "expected_calibration_error": float(
            sum(len(g) * abs(predicted[g].mean() - right[g].mean()) for g in groups) / len(right)
        ),
        "brier": float(((predicted - right) ** 2).mean()),
        "brier_of_the_mean": float(((fitted[:, 0].mean() - right) ** 2).mean()),
    }


def _auroc(higher: NDArray[np.float64], lower: NDArray[np.float64]) -> float | None:
    """The chance that one of the first is above one of the second."""
    if not len(higher) or not len(lower):
        return None
    return float(stats.mannwhitneyu(higher, lower).statistic / (len(higher) * len(lower)))


if __name__ == "__main__":
    write(RESULTS / "doubt.json", measured())
