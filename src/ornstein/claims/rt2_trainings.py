"""RT-2s taught in several ways within one budget, and what each can do: shared by the claims that compare them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.claims.jobs import run_each
from ornstein.evaluation.trials import load_player, trials
from ornstein.simulation.tabletop import suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.recipes.rt2_tabletop import RT2TabletopRecipe

BASE = "vlm-emoji"
EVALUATION_SEED = 4_700_000
#: Lessons of the validation stream from which questions are asked.
FIRST_LESSON = 4_700_000
SEEDS = (0, 1, 2)
SEEN, UNSEEN = "all", "unseen-objects"
#: Suites of what no robot data teach, by the ability that each asks for (Zitkovich et al. 2023, §4.2 and §4.4).
EMERGENT = {
    "symbols": "symbols",
    "reasoning": "reasons",
    "arithmetic": "sums",
    "visual categories": "categories",
    "two descriptions in turn": "described-chains",
}
CO_FINE_TUNED, FINE_TUNED, FROZEN, ADAPTERS, SCRATCH = (
    "co-fine-tuned",
    "fine-tuned on the robot alone",
    "frozen, with an action head",
    "adapters of low rank",
    "from scratch",
)
EXTENDED = "with tokens added instead of overwritten"
#: What differs from the recipe.
WAYS: dict[str, dict[str, Any]] = {
    CO_FINE_TUNED: {},
    FINE_TUNED: {"robot_share": 1.0},
    FROZEN: {"learning": "new"},
    ADAPTERS: {"learning": "adapters"},
    SCRATCH: {"start": "scratch"},
    EXTENDED: {"action_tokens": "extend"},
    **{f"{share:.0%} of the robot": {"robot_share": share} for share in (0.25, 0.5, 0.85)},
}


@dataclass(frozen=True)
class Budget:
    """Of one training and of its trial. episodes, stills: to learn from. speech, arm: steps of each stage. scenes: of each suite. lessons: that are asked
    about."""

    episodes: int = 1500
    stills: int = 6000
    speech: int = 800
    arm: int = 4000
    scenes: int = 50
    lessons: int = 300


QUICK = Budget(episodes=4, stills=4, speech=2, arm=2, scenes=1, lessons=2)


@dataclass(frozen=True)
class Taught:
    """What came of one way: by suite, (seeds, scenes), which were solved; shares of questions that were answered rightly, one a seed."""

    solved: dict[str, NDArray[np.bool_]]
    answers: NDArray[np.float64]

    @property
    def emergent(self) -> NDArray[np.float64]:
        """(seeds, scenes): the share of the abilities' scenes of one number that were solved."""
        return np.mean([self.solved[name] for name in EMERGENT.values() if name in self.solved], axis=0)


def taught(ways: Sequence[str], folder: Path, *, quick: bool) -> dict[str, Taught]:
    """Every way, once a seed, in `folder`; what is done there already is not done again."""
    from ornstein.hub import fingerprint_of

    budget, seeds = (QUICK, SEEDS[:1]) if quick else (Budget(), SEEDS)
    suites = [SEEN, UNSEEN, *list(EMERGENT.values())[: 1 if quick else None]]
    shared = {"folder": str(folder), "budget": vars(budget), "base": fingerprint_of(BASE), "suites": suites}
    prepared(folder, budget)
    jobs = [{"way": way, "seed": seed, **shared} for way in ways for seed in seeds]
    found = run_each(teach_and_try, jobs, folder / "found", "RT-2s", 1 if quick else os.cpu_count() or 1)
    by_way = {way: found[k * len(seeds) : (k + 1) * len(seeds)] for k, way in enumerate(ways)}
    return {
        way: Taught(
            {name: np.array([run["solved"][name] for run in runs]) for name in suites}, np.array([run["answers"] for run in runs])
        )
        for way, runs in by_way.items()
    }


def teach_and_try(way: str, seed: int, folder: str, budget: dict[str, int], base: str, suites: list[str]) -> dict[str, Any]:
    """One training.

    Args:
        base: fingerprint of what it begins with, so that results are never taken for those of another.

    Returns:
        solved: of each suite, which scenes, paired by number. answers: the share of questions that it still answers rightly.
    """
    allowed = Budget(**budget)
    shared = Path(folder)
    recipe = _recipe(way, seed, shared, allowed)
    run = shared / "runs" / f"{way.replace(' ', '-')}-{seed}-{base}"
    if not (run / "model" / "config.json").exists():
        from ornstein.recipes.rt2_tabletop import train_rt2_tabletop
        from ornstein.training import RunFolder

        train_rt2_tabletop(recipe, run, resume=RunFolder(run / "speech").begun)
    player = load_player(str(run))
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + allowed.scenes)
    solved = {
        name: [one.success for one in sorted(trials(player, str(run), suite(name), seeds), key=lambda one: one.seed)]
        for name in suites
    }
    return {"solved": solved, "answers": answered(str(run), allowed.lessons)}


def answered(source: str, lessons: int) -> float:
    """The share of questions about so many pictures that a model answers rightly."""
    import ornstein
    from ornstein.data.questions import Lessons
    from ornstein.evaluation.answers import examine

    model = ornstein.load(source, expect="vision-language")
    asked = Lessons(seed=EVALUATION_SEED, split="validation")
    return examine(model, asked, range(FIRST_LESSON, FIRST_LESSON + lessons))["all"].rate


def prepared(folder: Path, budget: Budget) -> None:
    """Record, draw and decode what all of them learn from, before several read it."""
    from ornstein.policies import RT1Config
    from ornstein.recipes.rt1_examples import RT1Examples
    from ornstein.recipes.rt2_tabletop import plan_of

    RT1Examples.prepare(plan_of(_recipe(CO_FINE_TUNED, 0, folder, budget), RT1Config()), folder)


def _recipe(way: str, seed: int, folder: Path, budget: Budget) -> RT2TabletopRecipe:
    from ornstein.recipes.rt2_tabletop import RT2TabletopRecipe

    plan = RT2TabletopRecipe()

    def short(optimization: Any, steps: int) -> Any:
        return replace(
            optimization,
            seed=seed,
            steps=steps,
            warmup_steps=min(optimization.warmup_steps, steps // 4),
            checkpoint_every=max(1, steps // 4),
            preview_every=steps,
        )

    return replace(
        plan,
        base=BASE,
        speech=short(plan.speech, budget.speech),
        optimization=short(plan.optimization, budget.arm),
        scenes=(),
        data=folder / "data",
        cache=folder / "cache",
        episodes=budget.episodes,
        views=budget.stills,
        preview_episodes=1,
        **WAYS[way],
    )
