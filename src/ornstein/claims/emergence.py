"""V7: what a vision-language model knew before it acted: five kinds of tasks that no robot data show, asked of RT-1 and of RT-2 in the same scenes.

Published (Zitkovich et al. 2023, "RT-2", §4.2): on symbols, reasoning and recognition together 60 % where RT-1 did 17 %. RT-1 hears the same sentence
encoder here as it was trained with, which knows some of the world too: how far that goes is its rate. What questions taught is told from what a
robot's data taught by RT-2s that never saw a question, and by things and marks that neither shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ornstein.claims.comparison import over_runs_and_scenes
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.claims.rates import rate_measure, twice
from ornstein.claims.rt2_trainings import CO_FINE_TUNED, EMERGENT, FINE_TUNED, SCRATCH, SEEDS, taught
from ornstein.claims.speaking_policy import RT1, RT2
from ornstein.claims.tabletop_trials import fingerprint, solved
from ornstein.data.pictures import contact_sheet
from ornstein.evaluation import mcnemar_exact
from ornstein.simulation.tabletop import SUITES, Replay, sample_scene

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict
    from ornstein.claims.rt2_trainings import Taught

EVALUATION_SEED = 4_650_000
PUBLISHED = {RT1: 0.17, RT2: 0.60}
PLANNING = f"{RT2}, which plans first"
IN_NEITHER = "held-out-objects"
_LEVEL = 0.05
_TIMES = 2.0


def emergent_abilities(folder: Path, quick: bool) -> Outcome:
    """V7. Two shipped policies, and RT-2s of other trainings, in the same scenes of every ability."""
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + (1 if quick else 100))
    abilities = dict(list(EMERGENT.items())[: 1 if quick else None])

    def tried(player: str, suite: str, control: str = "none", *, think: bool = False) -> NDArray[np.bool_]:
        title = f"{player}{', planning' * think}, {suite}"
        return solved(title, player, SUITES[suite].variation, seeds, folder, control, think)  # type: ignore[arg-type]  # one of them

    right = {
        RT1: {ability: tried(RT1, suite) for ability, suite in abilities.items()},
        RT2: {ability: tried(RT2, suite) for ability, suite in abilities.items()},
        PLANNING: {ability: tried(RT2, suite, think=True) for ability, suite in abilities.items()},
    }
    blank = {ability: tried(RT2, suite, "blank") for ability, suite in abilities.items()}
    neither = {player: tried(player, IN_NEITHER) for player in (RT1, RT2)}
    ways = taught((CO_FINE_TUNED, FINE_TUNED, SCRATCH), folder.parent.parent / "rt2-trainings", quick=quick)
    parts = judge_parts(right, blank, ways)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items()),
        (
            *(
                rate_measure(f"solved, {player}, {ability}", of)
                for player, found in right.items()
                for ability, of in found.items()
            ),
            *(rate_measure(f"solved, {player}, all abilities", _all(found)) for player, found in right.items()),
            rate_measure(f"control, no instruction: solved, {RT2}, all abilities", _all(blank)),
            *(
                rate_measure(f"control, things that neither data show: solved, {player}", found)
                for player, found in neither.items()
            ),
            *(_of_way(way, one) for way, one in ways.items()),
            *(Measure(f"published, {player}", 100 * value, unit="%") for player, value in PUBLISHED.items()),
        ),
        (EVALUATION_SEED, *SEEDS),
        {"One scene of each: " + "; ".join(_told(suite) for suite in abilities.values()): _scenes(tuple(abilities.values()))},
        {"scenes": len(seeds), "checkpoints": {player: fingerprint(player) for player in (RT1, RT2)}},
    )


def judge_parts(
    right: dict[str, dict[str, NDArray[np.bool_]]], blank: dict[str, NDArray[np.bool_]], ways: dict[str, Taught]
) -> dict[str, Verdict]:
    """By ability on the same scenes, 5 % shared among them; together against RT-1; and whether it is the questions that it comes from."""
    abilities = right[RT2]
    best = PLANNING if _all(right[PLANNING]).sum() > _all(right[RT2]).sum() else RT2
    parts: dict[str, Verdict] = {
        f"{ability}, better than RT-1": _better(right[best][ability], right[RT1][ability], _LEVEL / len(abilities))
        for ability in abilities
    }
    parts["together at least twice as often as RT-1"] = twice(_all(right[best]), _all(right[RT1]), _TIMES)
    chained = EMERGENT.keys() - set(list(EMERGENT)[:-1])
    for ability in chained & abilities.keys():
        parts["a plan helps where two descriptions come in turn"] = _better(right[PLANNING][ability], right[RT2][ability], _LEVEL)
    low, high = over_runs_and_scenes(ways[CO_FINE_TUNED].emergent, ways[FINE_TUNED].emergent)
    parts["questions beside the robot's data keep it"] = _sign(low, high)
    low, high = over_runs_and_scenes(ways[CO_FINE_TUNED].emergent, ways[SCRATCH].emergent)
    parts["it comes from what the model knew before"] = _sign(low, high)
    follows = mcnemar_exact(_all(right[RT2]), _all(blank)) < _LEVEL and _all(blank).sum() < _all(right[RT2]).sum()
    parts["it follows the words"] = "supported" if follows else "cannot tell"
    return parts


def _all(found: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.concatenate(list(found.values()))


def _better(mine: NDArray[np.bool_], theirs: NDArray[np.bool_], level: float) -> Verdict:
    if mcnemar_exact(mine, theirs) >= level:
        return "cannot tell"
    return "supported" if mine.sum() > theirs.sum() else "refuted"


def _sign(low: float, high: float) -> Verdict:
    return "supported" if low > 0 else "refuted" if high < 0 else "cannot tell"


def _of_way(way: str, one: Taught) -> Measure:
    found = one.emergent
    low, high = over_runs_and_scenes(found, np.zeros_like(found))
    return Measure(
        f"solved, all abilities, in one short training, {way}",
        100 * float(found.mean()),
        (100 * low, 100 * high),
        found.size,
        "%",
    )


def _told(suite: str) -> str:
    return f"“{sample_scene(EVALUATION_SEED, SUITES[suite].variation).instruction}”"


def _scenes(suites: tuple[str, ...]) -> NDArray[np.uint8]:
    replay = Replay(image_size=192)
    try:
        first = [replay.still(sample_scene(EVALUATION_SEED, SUITES[name].variation)) for name in suites]
    finally:
        replay.close()
    return np.asarray(contact_sheet(np.stack(first), columns=3))
