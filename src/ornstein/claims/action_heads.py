"""V4: nine ways to say an action: on a task with two right answers, over learning rates, by number of bins, and on the tabletop.

The plane (`two_right_answers`) shows what each head can express, where every outcome can be told; the tabletop what that is worth to a robot, with
every head behind the same eyes, on the same demonstrations, for as many steps.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from scipy import stats

from ornstein.actions import HEADS, HeadName, UniformBins
from ornstein.claims.arms import CHUNK, EVALUATION_SEED, EXECUTE, EYES, milliseconds_a_chunk, train_and_try
from ornstein.claims.comparison import Comparison, over_runs_and_scenes
from ornstein.claims.drawing import plot
from ornstein.claims.jobs import run_each
from ornstein.claims.outcome import Measure, Outcome, combined, mean_measure
from ornstein.claims.tabletop_trials import fingerprint
from ornstein.claims.two_right_answers import PLANE, Plane, Walker
from ornstein.evaluation import wilson_interval
from ornstein.training import initialise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict

SEEDS = (0, 1, 2)
BINS = (16, 32, 64, 128, 256, 512, 1024)
#: Of the tabletop, which costs minutes each; 256 is among the heads.
_BINS_OF_ARMS = (16, 64, 1024)
_PLANE_SEED = 4_100_004
_PLANE_STOPS = (250, 500, 1000, 2000, 4000)
_RATES = (5e-4, 2e-3, 8e-3, 3.2e-2)
_PATHS = 500
#: A walker has learned the plane where this share of its paths is right; modes are in balance where the lesser has 30 % of the right ones.
_LEARNED, _LESSER = 0.8, 0.3
_LEVEL = 0.05
_BUDGET = {"episodes": 1500, "steps": 2000, "scenes": 100, "placements": 40}
_QUICK = {"episodes": 4, "steps": 2, "scenes": 1, "placements": 1}
TOKENS: HeadName = "uniform-bins"
REGRESSION: HeadName = "regression-l2"
Found = list[dict[str, Any]]
_T = TypeVar("_T")


def walk(head: str, whole: bool, seed: int, above: float, rate: float, num_bins: int, stops: list[int]) -> dict[str, Any]:
    """One training on the plane and what comes of it, in shares of the same paths.

    Returns:
        right: of paths that are drawn, at each stop; likeliest: of those that take the likeliest actions, at the end. above: of the right
        ones that are drawn. error_mm: the likeliest paths' median distance from the goal.
    """
    plane = Plane.sample(_PATHS, np.random.default_rng(_PLANE_SEED))
    build = partial(Walker, head, whole=whole, seed=seed, above=above, num_bins=num_bins)  # type: ignore[arg-type]  # one of `HEADS`
    walker = initialise(build, seed)
    right = []
    for _ in walker.learn(stops[-1], seed, rate=rate, stops=stops):
        drawn = walker.walk(plane, seed)
        right.append(float(drawn.right.mean()))
    likeliest = walker.walk(plane, seed, greedy=True)
    return {
        "right": right,
        "likeliest": float(likeliest.right.mean()),
        "above": float(drawn.above[drawn.right].mean()) if drawn.right.any() else None,
        "error_mm": float(np.median(likeliest.error)),
    }


class OnThePlane(NamedTuple):
    """Three trainings each. stepwise, chunked: two right answers, step by step and whole ways; learned: one right answer at all learning
    rates, together; fine: whole ways by number of bins."""

    stops: list[int]
    stepwise: dict[str, Found]
    chunked: dict[str, Found]
    learned: dict[str, Found]
    fine: dict[int, Found]


def heads_compared(folder: Path, quick: bool) -> Outcome:
    """V4. On the plane three trainings of every head and setting; on the tabletop three arms of every head."""
    seeds, workers = (SEEDS[:1], 1) if quick else (SEEDS, os.cpu_count() or 1)
    heads = (TOKENS, REGRESSION) if quick else tuple(HEADS)
    plane = _plane(folder / "plane", heads, seeds, workers, quick=quick)
    arms = _arms(folder / "tabletop", heads, seeds, workers, quick=quick)
    runs: dict[str, str] = {name: found[0]["run"] for name, found in arms.items() if name in heads}
    times = milliseconds_a_chunk(runs, quick=quick)
    parts = judge_parts(plane.stepwise, plane.learned, arms)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items()),
        (
            Measure("control, untrained: right of what is drawn, step by step", 100 * _untrained(), n=_PATHS, unit="%"),
            *_plane_measures(plane.stepwise, "step by step", plane.stops),
            *_plane_measures(plane.chunked, "whole ways", plane.stops),
            *(_learned_measure(head, found) for head, found in plane.learned.items()),
            *(
                _over_seeds(f"miss on the plane, {n} bins", [one["error_mm"] for one in found], "mm")
                for n, found in plane.fine.items()
            ),
            *(Measure(f"floor: miss that rounding alone makes, {n} bins", rounding_error(n), unit="mm") for n in plane.fine),
            *(measure for name, found in arms.items() for measure in _arm_measures(name, found)),
            *(Measure(f"time a chunk, {name}", value, unit="ms") for name, value in times.items()),
        ),
        tuple(seeds),
        _pictures(plane),
        {
            "plane": {"paths": _PATHS, "seed": _PLANE_SEED, "learning_rates": list(_RATES)},
            "tabletop": {**(_QUICK if quick else _BUDGET), "first_scene": EVALUATION_SEED, "chunk": CHUNK, "executed": EXECUTE},
        },
    )


def _untrained() -> float:
    walker = initialise(partial(Walker, TOKENS, whole=False, seed=0), 0)
    return float(walker.walk(Plane.sample(_PATHS, np.random.default_rng(_PLANE_SEED)), 0).right.mean())


def _plane(folder: Path, heads: tuple[str, ...], seeds: tuple[int, ...], workers: int, *, quick: bool) -> OnThePlane:
    stops = [1, 2] if quick else list(_PLANE_STOPS)
    rates, bins = (_RATES[1:2], BINS[:1]) if quick else (_RATES, BINS)
    usual = {"above": 0.5, "rate": 2e-3, "num_bins": 256, "stops": stops}

    def each(title: str, kinds: Sequence[dict[str, Any]]) -> list[Found]:
        """One training a seed of each kind."""
        jobs = [{**usual, **kind, "seed": seed} for kind in kinds for seed in seeds]
        return _grouped(run_each(walk, jobs, folder, title, workers), len(seeds))

    def by_head(title: str, *, whole: bool) -> dict[str, Found]:
        return dict(zip(heads, each(title, [{"head": head, "whole": whole} for head in heads]), strict=True))

    one = {"whole": False, "above": 1.0, "stops": stops[:4]}
    learned = each("plane, by learning rate", [{**one, "head": head, "rate": rate} for head in heads for rate in rates])
    fine = each("plane, by bins", [{"head": TOKENS, "whole": True, "above": 1.0, "num_bins": n} for n in bins])
    return OnThePlane(
        stops,
        by_head("plane, step by step", whole=False),
        by_head("plane, whole ways", whole=True),
        {head: list(chain(*some)) for head, some in zip(heads, _grouped(learned, len(rates)), strict=True)},
        dict(zip(bins, fine, strict=True)),
    )


def _grouped(flat: Sequence[_T], size: int) -> list[list[_T]]:
    return [list(flat[k : k + size]) for k in range(0, len(flat), size)]


def rounding_error(num_bins: int) -> float:
    """The median distance from the goal [mm] of demonstrations whose steps are rounded to bins. Steps along the plane are all alike, so their
    errors add up."""
    plane = Plane.sample(_PATHS, np.random.default_rng(_PLANE_SEED))
    steps = np.diff(plane.demonstrations(np.ones(_PATHS, bool)), axis=1).astype(np.float32)
    bins = UniformBins.from_contract(PLANE, num_bins)
    rounded = bins.decode(bins.encode(steps)[0])
    return 1000 * float(np.median(np.linalg.norm((rounded - steps).sum(1), axis=-1)))


def _arms(folder: Path, heads: tuple[str, ...], seeds: tuple[int, ...], workers: int, *, quick: bool) -> dict[str, Found]:
    """By head, and by "uniform-bins, 16 bins". The first alone records what all learn from."""
    kinds = {head: (head, 256) for head in heads}
    kinds |= {} if quick else {f"{TOKENS}, {n} bins": (TOKENS, n) for n in _BINS_OF_ARMS}
    jobs = [
        {
            "head": head,
            "seed": seed,
            "num_bins": n,
            "folder": str(folder),
            "budget": _QUICK if quick else _BUDGET,
            "eyes": fingerprint(EYES),
        }
        for head, n in kinds.values()
        for seed in seeds
    ]
    run_each(train_and_try, jobs[:1], folder, "the first arm", 1)
    return dict(zip(kinds, _grouped(run_each(train_and_try, jobs, folder, "arms", workers), len(seeds)), strict=True))


def judge_parts(stepwise: dict[str, Found], learned: dict[str, Found], arms: dict[str, Found]) -> dict[str, Verdict]:
    """Three statements, each of tokens against the mean that squared error learns; 5 % each."""
    return {
        "tokens learn at more learning rates than regression": _more_often(_runs(learned[TOKENS]), _runs(learned[REGRESSION])),
        "tokens find both of two right answers": _both(stepwise),
        "tokens solve more on the tabletop than regression": _solve_more(arms[TOKENS], arms[REGRESSION]),
    }


def _runs(found: Found) -> tuple[int, int]:
    """How many learned, of how many."""
    return sum(one["likeliest"] >= _LEARNED for one in found), len(found)


def _more_often(mine: tuple[int, int], theirs: tuple[int, int]) -> Verdict:
    """Fisher's exact test, either way."""
    table = [[mine[0], mine[1] - mine[0]], [theirs[0], theirs[1] - theirs[0]]]
    if stats.fisher_exact(table).pvalue >= _LEVEL:
        return "cannot tell"
    return "supported" if mine[0] * theirs[1] > theirs[0] * mine[1] else "refuted"


def _both(stepwise: dict[str, Found]) -> Verdict:
    """More of the paths are right than of regression's, and in every run each way has its share of them."""
    runs = len(stepwise[TOKENS])
    compared = Comparison("on the plane", "right", Measure("floor", 0.0), runs, more_is_better=True)
    for head in (TOKENS, REGRESSION):
        for one in stepwise[head]:
            compared.add(head, one["right"][-1])
    if compared.beats(REGRESSION, TOKENS, _LEVEL / 2):
        return "refuted"
    if not compared.beats(TOKENS, REGRESSION, _LEVEL / 2):
        return "cannot tell"
    balanced = all(one["above"] is not None and _LESSER <= one["above"] <= 1 - _LESSER for one in stepwise[TOKENS])
    return "supported" if balanced else "refuted"


def _solve_more(mine: Found, theirs: Found) -> Verdict:
    low, high = over_runs_and_scenes(_solved(mine), _solved(theirs))
    return "supported" if low > 0 else "refuted" if high < 0 else "cannot tell"


def _solved(found: Found) -> NDArray[np.float64]:
    """(runs, scenes)."""
    return np.array([one["solved"] for one in found], dtype=np.float64)


def _plane_measures(found: dict[str, Found], where: str, stops: list[int]) -> list[Measure]:
    measures = []
    for head, runs in found.items():
        drawn, likeliest = [100 * one["right"][-1] for one in runs], [100 * one["likeliest"] for one in runs]
        measures.append(_over_seeds(f"right of what is drawn, {where}, {head}", drawn, "%"))
        measures.append(_over_seeds(f"right of the likeliest, {where}, {head}", likeliest, "%"))
        above = [one["above"] for one in runs if one["above"] is not None]
        if above:
            lesser = [100 * min(one, 1 - one) for one in above]
            measures.append(_over_seeds(f"share of the rarer way, {where}, {head}", lesser, "%"))
        reached = [
            next((stop for stop, right in zip(stops, one["right"], strict=True) if right >= _LEARNED), None) for one in runs
        ]
        steps = [stop for stop in reached if stop is not None]
        if len(steps) == len(runs):
            measures.append(Measure(f"steps until 80 % are right, {where}, {head}", float(np.median(steps)), n=len(steps)))
    return measures


def _learned_measure(head: str, found: Found) -> Measure:
    good, n = _runs(found)
    low, high = wilson_interval(good, n)
    return Measure(f"trainings over all learning rates that learned, {head}", 100 * good / n, (100 * low, 100 * high), n, "%")


def _arm_measures(name: str, found: Found) -> list[Measure]:
    each = _solved(found)
    low, high = over_runs_and_scenes(each, np.zeros_like(each))
    errors = [float(np.median(one["error_mm"])) for one in found]
    solved = Measure(f"solved, {name}", 100 * float(each.mean()), (100 * low, 100 * high), each.size, "%")
    seeds = _over_seeds(f"solved, seed by seed, {name}", [100 * float(np.mean(one["solved"])) for one in found], "%")
    return [solved, seeds, _over_seeds(f"median distance from the mat's middle, {name}", errors, "mm")]


def _over_seeds(name: str, values: list[float], unit: str) -> Measure:
    return mean_measure(name, values, unit) if len(values) > 1 else Measure(name, values[0], n=1, unit=unit)


def _pictures(plane: OnThePlane) -> dict[str, NDArray[np.uint8]]:
    def curves(found: dict[str, Found]) -> NDArray[np.uint8]:
        return plot(
            {
                head: (np.array(plane.stops, dtype=np.float64), 100 * np.mean([one["right"] for one in runs], axis=0))
                for head, runs in found.items()
            },
            x="training steps",
            y="right of what is drawn (%)",
            log_x=True,
        )

    places = np.array(list(plane.fine), dtype=np.float64)
    return {
        "Two right answers, step by step: right of what is drawn, in per cent, as they train": curves(plane.stepwise),
        "The same for whole ways of eight steps at once": curves(plane.chunked),
        "Miss on the plane in mm, by number of bins": plot(
            {
                "the likeliest way": (
                    places,
                    np.array([np.mean([one["error_mm"] for one in runs]) for runs in plane.fine.values()]),
                ),
                "rounding alone": (places, np.array([rounding_error(n) for n in plane.fine])),
            },
            x="bins",
            y="miss (mm)",
            log=True,
            log_x=True,
        ),
    }
