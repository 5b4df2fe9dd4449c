"""V6 and V8: RT-2's recipe and what each of its steps is worth, on robots and in questions.

Every way has one budget of pictures, from the same start and robot data; three trainings each. Published (Zitkovich et al. 2023, "RT-2", figure 6), on
unseen tasks: from scratch 9 %, fine-tuned 42 %, co-fine-tuned 44 % with 5 billion numbers; fine-tuned 52 %, co-fine-tuned 63 % with 55.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ornstein.claims.comparison import over_runs_and_scenes
from ornstein.claims.drawing import plot
from ornstein.claims.outcome import Measure, Outcome, combined, mean_measure
from ornstein.claims.rt2_trainings import (
    ADAPTERS,
    BASE,
    CO_FINE_TUNED,
    EVALUATION_SEED,
    EXTENDED,
    FINE_TUNED,
    FROZEN,
    QUICK,
    SCRATCH,
    SEEDS,
    SEEN,
    UNSEEN,
    WAYS,
    Budget,
    Taught,
    answered,
    taught,
)
from ornstein.hub import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict

PUBLISHED = {SCRATCH: 0.09, FINE_TUNED: 0.42, CO_FINE_TUNED: 0.44}
#: What of the questions must still be answered for nothing to be forgotten, and by how many percentage points one may be worse.
_KEPT, _NEAR = 0.95, 0.05
_RECIPE = (CO_FINE_TUNED, SCRATCH, FINE_TUNED, EXTENDED)
_SHARES = ("25% of the robot", "50% of the robot", CO_FINE_TUNED, "85% of the robot", FINE_TUNED)


def recipe_of_four_steps(folder: Path, quick: bool) -> Outcome:
    """V6. Without the start, without the questions, with tokens made otherwise; and what the whole recipe keeps of both abilities."""
    ways = _ways(_RECIPE[:2] if quick else _RECIPE, folder, quick=quick)
    before = answered(BASE, (QUICK if quick else Budget()).lessons)
    return _outcome(judge_recipe(ways, before), ways, before, quick=quick)


def what_mixing_is_worth(folder: Path, quick: bool) -> Outcome:
    """V8. Frozen, fine-tuned, co-fine-tuned, and questions in several shares."""
    ways = _ways((CO_FINE_TUNED, FROZEN) if quick else (*_SHARES, FROZEN, ADAPTERS, SCRATCH), folder, quick=quick)
    before = answered(BASE, (QUICK if quick else Budget()).lessons)
    return _outcome(judge_mixing(ways, before), ways, before, quick=quick, mixed=not quick)


def judge_recipe(ways: dict[str, Taught], before: float) -> dict[str, Verdict]:
    """V6, by 95 % intervals over trainings and scenes."""
    whole = ways[CO_FINE_TUNED]
    parts = {"a start that knows pictures and words helps on unseen things": _lead(whole, ways[SCRATCH], _unseen)}
    if EXTENDED in ways:
        low, high = over_runs_and_scenes(_seen(whole), _seen(ways[EXTENDED]))
        alike: Verdict = "supported" if low > -2 * _NEAR and high < 2 * _NEAR else "cannot tell"
        parts["tokens added or overwritten make no difference beyond ten points"] = alike
    parts["both abilities are kept: the questions"] = _kept(whole, before)
    return parts


def judge_mixing(ways: dict[str, Taught], before: float) -> dict[str, Verdict]:
    """V8, likewise."""
    whole = ways[CO_FINE_TUNED]
    parts = {
        "co-fine-tuned better than frozen, on seen tasks": _lead(whole, ways[FROZEN], _seen),
        "on unseen things": _lead(whole, ways[FROZEN], _unseen),
    }
    if FINE_TUNED in ways:
        alone = ways[FINE_TUNED]
        parts["questions beside the robot's data help on unseen things"] = _lead(whole, alone, _unseen)
        parts["they keep what was known"] = _kept(whole, before)
        parts["without them it is forgotten"] = "supported" if _share(alone, before)[1] < _KEPT else "refuted"
    return parts


def _ways(names: tuple[str, ...], folder: Path, *, quick: bool) -> dict[str, Taught]:
    return taught(names, folder.parent.parent / "rt2-trainings", quick=quick)


def _seen(one: Taught) -> NDArray[np.float64]:
    return one.solved[SEEN].astype(np.float64)


def _unseen(one: Taught) -> NDArray[np.float64]:
    return one.solved[UNSEEN].astype(np.float64)


def _emergent(one: Taught) -> NDArray[np.float64]:
    return one.emergent


def _lead(mine: Taught, theirs: Taught, of: Callable[[Taught], NDArray[np.float64]]) -> Verdict:
    low, high = over_runs_and_scenes(of(mine), of(theirs))
    return "supported" if low > 0 else "refuted" if high < 0 else "cannot tell"


def _kept(one: Taught, before: float) -> Verdict:
    low, high = _share(one, before)
    return "supported" if low >= _KEPT else "refuted" if high < _KEPT else "cannot tell"


def _share(one: Taught, before: float) -> tuple[float, float]:
    """Interval of what is still answered, as a share of what was, over the trainings."""
    shares = one.answers / before if before else np.ones_like(one.answers)
    if len(shares) < 2:
        return float(shares.min()), float(shares.max())
    found = mean_measure("", shares).interval
    assert found is not None
    return found


def _outcome(parts: dict[str, Verdict], ways: dict[str, Taught], before: float, *, quick: bool, mixed: bool = False) -> Outcome:
    measured = {"seen tasks": _seen, "unseen things": _unseen, "emergent abilities": _emergent}
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items()),
        (
            *(_rate(f"{what} solved, {way}", of(one)) for what, of in measured.items() for way, one in ways.items()),
            *(_answers(way, one) for way, one in ways.items()),
            Measure(f"floor: questions answered rightly before, {BASE}", 100 * before, unit="%"),
            *(
                Measure(f"published, unseen tasks, {way}", 100 * value, unit="%")
                for way, value in PUBLISHED.items()
                if way in ways
            ),
        ),
        (EVALUATION_SEED, *SEEDS),
        {"Solved and answered, in per cent, by the robot's share of the pictures": _by_share(ways)}
        if mixed
        else {"What each way can do": _bars(ways)},
        {**vars(QUICK if quick else Budget()), "base": fingerprint_of(BASE)},
    )


def _rate(name: str, found: NDArray[np.float64]) -> Measure:
    low, high = over_runs_and_scenes(found, np.zeros_like(found))
    return Measure(name, 100 * float(found.mean()), (100 * low, 100 * high), found.size, "%")


def _answers(way: str, one: Taught) -> Measure:
    name = f"questions answered rightly, {way}"
    return (
        mean_measure(name, 100 * one.answers, "%")
        if len(one.answers) > 1
        else Measure(name, 100 * float(one.answers[0]), n=1, unit="%")
    )


def _by_share(ways: dict[str, Taught]) -> NDArray[np.uint8]:
    shares = np.array([100 * float(WAYS[way].get("robot_share", _whole_share())) for way in _SHARES])
    curves = {
        "seen tasks": [float(_seen(ways[way]).mean()) for way in _SHARES],
        "unseen things": [float(_unseen(ways[way]).mean()) for way in _SHARES],
        "emergent abilities": [float(_emergent(ways[way]).mean()) for way in _SHARES],
        "questions": [float(ways[way].answers.mean()) for way in _SHARES],
    }
    return plot(
        {name: (shares, 100 * np.array(values)) for name, values in curves.items()},
        x="share of the robot's pictures (%)",
        y="(%)",
    )


def _whole_share() -> float:
    from ornstein.recipes.rt2_tabletop import RT2TabletopRecipe

    return RT2TabletopRecipe().robot_share


def _bars(ways: dict[str, Taught]) -> NDArray[np.uint8]:
    places = np.arange(1.0, 5.0)
    return plot(
        {
            way: (places, 100 * np.array([_seen(one).mean(), _unseen(one).mean(), _emergent(one).mean(), one.answers.mean()]))
            for way, one in ways.items()
        },
        x="1 seen tasks, 2 unseen things, 3 emergent abilities, 4 questions",
        y="(%)",
    )
