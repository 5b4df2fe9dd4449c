"""How D7 judges; its verdict is for `ornstein claims D7` to give."""

from __future__ import annotations

import pytest

from ornstein.claims.comparison import Comparison
from ornstein.claims.exam import CONTROL, DISTANCE, DIVERSITY, NAMED, RECALL, RIGHT
from ornstein.claims.guidance import DROPS, MAIN, SCALES, at, judge_parts
from ornstein.claims.outcome import Measure

Curve = dict[float, float]
N, NAMES = 240, 40
PARTS = (
    "w = 0 ignores the caption",
    "w = 1 is nearest to the law of real pictures",
    "w = 7 follows the caption more closely than w = 1",
    "w = 7 is less diverse than w = 1",
    "7 to 15 is best by what is right",
    "7 to 15 is best by kernel distance",
    "dropping 10 to 20 % beats dropping none",
)
# As the field says: more right with w up to 10, farther from w = 1 on but for nearer at 7, less diverse.
RISING = {0: 0.0, 1: 0.5, 2: 0.6, 4: 0.7, 7: 0.8, 10: 0.9, 15: 0.85}
LAW = {0: 50.0, 1: 10.0, 2: 20.0, 4: 30.0, 7: 40.0, 10: 50.0, 15: 60.0}
FALLING = {0: 9.0, 1: 8.0, 2: 7.0, 4: 6.0, 7: 5.0, 10: 4.0, 15: 3.0}


def _table(
    right: Curve = RISING,
    distance: Curve = LAW,
    apart: Curve = FALLING,
    *,
    undropped: Curve | None = None,
    noise: float = 0.01,
    ignoring: float = 0.02,
    control: float = 0.002,
) -> dict[str, Comparison]:
    """Three seeds, whose curves differ by a share `noise` up and down, each in its own places."""
    table = {
        figure: Comparison("in all", figure, Measure("floor", 0.0), 3, more_is_better=figure != DISTANCE)
        for figure in (RIGHT, NAMED, CONTROL, DISTANCE, DIVERSITY, RECALL)
    }
    for drop in DROPS:
        curves = {RIGHT: right, DISTANCE: distance, DIVERSITY: apart, NAMED: right | {0: ignoring}}
        curves[CONTROL] = dict.fromkeys(SCALES, control)
        if drop == 0:
            curves[RIGHT] = undropped or dict.fromkeys(SCALES, 0.4)
        for figure, curve in curves.items():
            for k, w in enumerate(SCALES):
                for seed in range(3):
                    table[figure].add(at(drop, w), curve[w] * (1 + noise * ((seed + k) % 3 - 1)))
    return table


def _judged(table: dict[str, Comparison]) -> dict[str, str]:
    return dict(judge_parts(table, NAMES, N))


def test_each_statement_is_judged_by_itself() -> None:
    assert _judged(_table()) == dict.fromkeys(PARTS, "supported") | {PARTS[5]: "refuted"}
    falling = {w: 1 - value for w, value in RISING.items()}
    far = {w: 100 - value for w, value in LAW.items()}
    rising = {w: 12 - value for w, value in FALLING.items()}
    better = dict.fromkeys(SCALES, 1.5)
    judged = _judged(_table(falling, far, rising, undropped=better, ignoring=0.2))
    assert judged == dict.fromkeys(PARTS, "refuted") | {PARTS[5]: "supported"}


def test_what_the_seeds_do_not_tell_is_left_open() -> None:
    judged = _judged(_table(noise=0.6, undropped=RISING, ignoring=0.05))
    assert set(judged.values()) == {"cannot tell"}


def test_one_of_the_usual_scales_must_beat_all_of_the_lower_ones() -> None:
    level = {0: 0.0, 1: 0.5, 2: 0.8, 4: 0.9, 7: 0.9, 10: 0.6, 15: 0.4}
    assert _judged(_table(level))[PARTS[4]] == "cannot tell"
    assert _judged(_table(level | {4: 0.95}))[PARTS[4]] == "refuted"
    assert _judged(_table(level | {7: 0.95}))[PARTS[4]] == "supported"


def test_each_drop_rate_is_judged_where_most_is_right() -> None:
    """Without dropping that is at w = 1: guidance leads away from a branch that was never trained."""
    untrained = dict.fromkeys(SCALES, 0.1) | {0: 0.99}
    assert _judged(_table(undropped=untrained | {1: 0.95}))[PARTS[6]] == "refuted"
    assert _judged(_table(undropped=untrained | {1: 0.85}))[PARTS[6]] == "supported"


def test_an_exam_that_any_caption_passes_says_nothing() -> None:
    assert set(_judged(_table(control=0.3)).values()) == {"cannot tell"}


def test_a_run_that_diverged_leaves_open_what_it_was_to_show() -> None:
    table = _table()
    for comparison in table.values():
        for w in SCALES:
            comparison.scores[at(0.0, w)] = []
    judged = _judged(table)
    assert judged[PARTS[6]] == "cannot tell"
    assert judged[PARTS[0]] == "supported"
    for comparison in table.values():
        for w in SCALES:
            comparison.scores[at(MAIN, w)] = []
    assert set(_judged(table).values()) == {"cannot tell"}


@pytest.mark.parametrize(
    ("a", "b", "better", "worse"),
    [
        ([1.0, 2.0, 3.0], [2.0, 3.1, 3.9], True, False),  # far apart among themselves, but each pair by one
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], False, False),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], True, False),  # no spread at all
        ([1.0, 2.0, 3.0], [2.0, 1.0, 3.5], False, False),
        ([1.0, 2.0], [2.0, 3.0, 4.0], False, False),  # no pairs
        ([], [], False, False),
    ],
)
def test_pairs_tell_what_means_do_not(a: list[float], b: list[float], better: bool, worse: bool) -> None:
    found = Comparison("here", "distance", Measure("floor", 0.0), 3, {"a": a, "b": b})
    assert found.beats_in_pairs("a", "b", 0.05) is better
    assert found.beats_in_pairs("b", "a", 0.05) is worse
    found.more_is_better = True
    assert found.beats_in_pairs("b", "a", 0.05) is better
