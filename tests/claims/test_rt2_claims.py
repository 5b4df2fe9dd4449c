"""The rules of V3, V6, V7 and V8; their verdicts are for `ornstein claims` to give."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ornstein.claims import co_fine_tuning, emergence, rt2_trainings, speaking_policy
from ornstein.claims.rt2_trainings import CO_FINE_TUNED, EMERGENT, EXTENDED, FINE_TUNED, FROZEN, SCRATCH, SEEN, UNSEEN, Taught
from ornstein.evaluation import FIRST_SEEDS
from ornstein.simulation.tabletop import SUITES


def rate(share: float, n: int = 200) -> NDArray[np.bool_]:
    return np.random.default_rng(0).permutation(np.arange(n) < round(share * n))


def runs(share: float) -> NDArray[np.bool_]:
    return np.stack([np.random.default_rng(seed).random(50) < share for seed in range(3)])


def way(seen: float, unseen: float, emergent: float, answers: float) -> Taught:
    solved = {SEEN: runs(seen), UNSEEN: runs(unseen), **{name: runs(emergent) for name in EMERGENT.values()}}
    return Taught(solved, answers + np.array([-0.002, 0.0, 0.002]))


@pytest.mark.parametrize(("mine", "verdict"), [(0.9, "supported"), (0.95, "supported"), (0.75, "refuted")])
def test_seen_tasks_are_held_against_rt1s_own(mine: float, verdict: str) -> None:
    right = {
        speaking_policy.RT1: {SEEN: rate(0.9), UNSEEN: rate(0.2)},
        speaking_policy.RT2: {SEEN: rate(mine), UNSEEN: rate(0.7)},
    }
    parts = speaking_policy.judge_parts(right, {"blank": rate(0.05)})
    assert parts["on seen tasks as good as RT-1, to three points"] == verdict
    assert parts["better on things that only questions showed"] == "supported"
    assert parts["by as much as published"] == "supported"
    assert parts["it follows the words"] == "supported"
    right[speaking_policy.RT2][UNSEEN] = rate(0.2)
    parts = speaking_policy.judge_parts(right, {"blank": right[speaking_policy.RT2][SEEN]})
    assert parts["better on things that only questions showed"] == "cannot tell"
    assert parts["by as much as published"] == "refuted"
    assert parts["it follows the words"] == "cannot tell"


def test_abilities_are_judged_one_by_one_and_by_where_they_come_from() -> None:
    def found(share: float) -> dict[str, NDArray[np.bool_]]:
        return {ability: rate(share, 100) for ability in EMERGENT}

    chained = list(EMERGENT)[-1]
    right = {emergence.RT1: found(0.2), emergence.RT2: found(0.7), emergence.PLANNING: {**found(0.7), chained: rate(0.95, 100)}}
    ways = {CO_FINE_TUNED: way(0.8, 0.6, 0.6, 0.9), FINE_TUNED: way(0.8, 0.2, 0.2, 0.3), SCRATCH: way(0.5, 0.5, 0.6, 0.4)}
    parts = emergence.judge_parts(right, found(0.05), ways)
    assert {parts[f"{ability}, better than RT-1"] for ability in EMERGENT} == {"supported"}
    assert parts["together at least twice as often as RT-1"] == "supported"
    assert parts["a plan helps where two descriptions come in turn"] == "supported"
    assert parts["questions beside the robot's data keep it"] == "supported"
    assert parts["it comes from what the model knew before"] == "cannot tell"
    assert parts["it follows the words"] == "supported"
    assert emergence.judge_parts({**right, emergence.RT1: found(0.5)}, found(0.7), ways) | {
        "together at least twice as often as RT-1": "refuted",
        "it follows the words": "cannot tell",
    } == emergence.judge_parts({**right, emergence.RT1: found(0.5)}, found(0.7), ways)


def test_what_is_forgotten_is_told_by_the_questions() -> None:
    ways = {CO_FINE_TUNED: way(0.8, 0.6, 0.5, 0.88), FROZEN: way(0.4, 0.3, 0.3, 0.9), FINE_TUNED: way(0.8, 0.2, 0.1, 0.2)}
    parts = co_fine_tuning.judge_mixing(ways, 0.9)
    assert set(parts.values()) == {"supported"}
    forgotten = co_fine_tuning.judge_mixing(
        {**ways, CO_FINE_TUNED: way(0.8, 0.6, 0.5, 0.7), FINE_TUNED: way(0.8, 0.9, 0.1, 0.89)}, 0.9
    )
    assert forgotten["they keep what was known"] == "refuted"
    assert forgotten["without them it is forgotten"] == "refuted"
    assert forgotten["questions beside the robot's data help on unseen things"] == "refuted"


def test_the_recipes_parts() -> None:
    ways = {CO_FINE_TUNED: way(0.8, 0.6, 0.5, 0.88), SCRATCH: way(0.7, 0.2, 0.3, 0.5), EXTENDED: way(0.8, 0.6, 0.5, 0.88)}
    assert set(co_fine_tuning.judge_recipe(ways, 0.9).values()) == {"supported"}
    other = co_fine_tuning.judge_recipe({**ways, EXTENDED: way(0.5, 0.6, 0.5, 0.88)}, 0.9)
    assert other["tokens added or overwritten make no difference beyond ten points"] == "cannot tell"


def test_scenes_are_nobodys_and_suites_exist() -> None:
    firsts = (speaking_policy.EVALUATION_SEED, emergence.EVALUATION_SEED, rt2_trainings.EVALUATION_SEED)
    for first in firsts:
        assert all(not split <= first < split + 1_000_000 for split in FIRST_SEEDS.values())
    assert len({first // 1000 for first in firsts}) == 3
    assert {SEEN, UNSEEN, emergence.IN_NEITHER, *EMERGENT.values()} <= set(SUITES)
