"""Arms of every action head behind the same eyes on the tabletop: one data set, one budget, paired scenes."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.evaluation.trials import load_player, trials
from ornstein.simulation.tabletop import suite
from ornstein.simulation.tabletop.world import TabletopWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ornstein.evaluation.trials import Trial

EYES = "rt1-tabletop"
CHUNK, EXECUTE = 8, 4
EVALUATION_SEED = 4_200_000
_WARM_UP, _ROUNDS = 2, 15


def train_and_try(head: str, seed: int, num_bins: int, folder: str, budget: dict[str, int], eyes: str) -> dict[str, Any]:
    """One arm: which scenes of all skills it solved, and how far from the middle of the mat it put blocks in scenes of that skill [mm].

    Args:
        folder: of the demonstrations, shared, and of the runs of one budget. budget: `episodes`, `steps`, `scenes` and `placements`.
        eyes: fingerprint of the policy whose eyes they are, so that results are never taken for those of others.

    Returns:
        solved, one for each scene, paired by number; error_mm, one for each scene of "place on a mat"; run, where its model is.
    """
    run = _trained(head, seed, num_bins, Path(folder) / f"{budget['episodes']}-episodes-{budget['steps']}-steps-{eyes}", budget)
    player = load_player(str(run))
    found = {
        name: sorted(
            trials(player, str(run), suite(name), range(EVALUATION_SEED, EVALUATION_SEED + n)), key=lambda trial: trial.seed
        )
        for name, n in (("all", budget["scenes"]), ("place-on-mat", budget["placements"]))
    }
    return {
        "solved": [trial.success for trial in found["all"]],
        "error_mm": placement_errors(found["place-on-mat"]),
        "run": str(run),
    }


def _trained(head: str, seed: int, num_bins: int, folder: Path, budget: dict[str, int]) -> Path:
    """The run's folder, trained there unless it is there already."""
    from ornstein.recipes.diffusion_policy_tabletop import DiffusionPolicyTabletopRecipe, train_diffusion_policy_tabletop
    from ornstein.training import RunFolder

    plan = DiffusionPolicyTabletopRecipe()
    steps = budget["steps"]
    recipe = replace(
        plan,
        eyes=EYES,
        action_head=head,  # type: ignore[arg-type]  # one of `HEADS`
        num_bins=num_bins,
        chunk=CHUNK,
        execute=EXECUTE,
        optimization=replace(
            plan.optimization,
            seed=seed,
            steps=steps,
            batch_size=min(plan.optimization.batch_size, 64 * steps),
            warmup_steps=min(plan.optimization.warmup_steps, steps // 10),
            checkpoint_every=max(1, steps // 4),
            preview_every=steps,
        ),
        data=folder / "data",
        cache=folder / "cache",
        episodes=budget["episodes"],
        preview_episodes=1,
    )
    out = folder / "runs" / f"{head}-{num_bins}-{seed}"
    if not (out / "model" / "config.json").exists():
        train_diffusion_policy_tabletop(recipe, out, resume=RunFolder(out).begun)
    return out


def placement_errors(tried: Sequence[Trial]) -> list[float]:
    """How far over the table each trial's block ended from the middle of its mat [mm]."""
    world, found = TabletopWorld(), []
    for trial in tried:
        task = trial.scene.tasks[0]
        assert task.block is not None
        assert task.mat is not None
        world.build(trial.scene)
        world.pose(trial.film[-1])
        mat = trial.scene.mats[task.mat]
        away = world.moment().positions[task.block][:2] - (mat.x, mat.y)
        found.append(1000 * float(np.hypot(*away)))
    return found


def milliseconds_a_chunk(runs: dict[str, str], *, quick: bool) -> dict[str, float]:
    """Of each head, for one context on one thread: the least of several, taken in turns."""
    import torch

    from ornstein.networks.threads import one_thread
    from ornstein.recipes.rt1_practice import loaded

    heads = {name: loaded(run).eval().head for name, run in runs.items()}
    least = dict.fromkeys(heads, np.inf)
    with one_thread(), torch.inference_mode():
        for turn in range(3 if quick else _WARM_UP + _ROUNDS):
            for name, head in heads.items():
                draw = partial(head.sample, torch.zeros(1, head.context_size), torch.Generator().manual_seed(turn))
                began = time.perf_counter()
                draw(greedy=True)
                if turn >= _WARM_UP:
                    least[name] = min(least[name], 1000 * (time.perf_counter() - began))
    return least
