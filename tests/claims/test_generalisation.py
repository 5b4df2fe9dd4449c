"""V2's rules; its verdict is for `ornstein claims V2` to give."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ornstein.claims.generalisation import ELSEWHERE, EVALUATION_SEED, SEEN, SEEN_BLOCKS, VARIATIONS, judge_parts
from ornstein.claims.rates import ratio_interval
from ornstein.evaluation import FIRST_SEEDS
from ornstein.simulation.tabletop import SUITES

N = 200


def rate(share: float) -> NDArray[np.bool_]:
    return np.arange(N) < round(share * N)


def judged(seen: float, there: float, blank: float = 0.05) -> dict[str, str]:
    right = {SEEN: rate(seen), SEEN_BLOCKS: rate(seen), **{kind.suite: rate(there) for kind in ELSEWHERE}}
    return judge_parts(right, {"blank": rate(blank), "shuffled": rate(blank)})


@pytest.mark.parametrize(("seen", "verdict"), [(0.99, "supported"), (0.95, "cannot tell"), (0.9, "refuted"), (1.0, "supported")])
def test_seen_tasks_are_held_against_97_percent(seen: float, verdict: str) -> None:
    assert judged(seen, 0.8)["as many seen tasks as published"] == verdict


@pytest.mark.parametrize(("there", "verdict"), [(0.99, "supported"), (0.80, "cannot tell"), (0.4, "refuted")])
def test_what_remains_is_compared_not_what_is_reached(there: float, verdict: str) -> None:
    """83 of 97 % are 86 %: at a success of 95 % on seen tasks that is 81 %; at 50 %, 43 %, which 60 % are beyond."""
    part = "among distractors as much remains as published"
    assert judged(0.95, there)[part] == verdict
    assert judged(0.5, 0.6)[part] == "supported"


def test_a_policy_that_does_as_well_without_words_follows_none() -> None:
    assert judged(0.95, 0.95)["it follows the words"] == "supported"
    assert judged(0.95, 0.95, blank=0.95)["it follows the words"] == "cannot tell"


def test_scenes_are_nobodys_and_suites_exist() -> None:
    assert all(not first <= EVALUATION_SEED < first + 1_000_000 for first in FIRST_SEEDS.values())
    assert {kind.suite for kind in ELSEWHERE} <= set(SUITES)
    for kind in ELSEWHERE:  # what is kept is kept of scenes of the same skills
        assert VARIATIONS[kind.suite].skills == VARIATIONS[kind.seen].skills


def test_a_share_of_all_or_nothing_still_has_an_interval() -> None:
    for seen, there in ((1.0, 1.0), (1.0, 0.0)):
        low, high = ratio_interval(rate(there), rate(seen))
        assert low < there / seen + 0.01
        assert high > there / seen - 0.01
        assert 0.001 < high - low < 0.1
