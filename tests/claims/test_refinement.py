"""How D9 judges; its verdict is for `ornstein claims D9` to give."""

from __future__ import annotations

import numpy as np
import pytest

from ornstein.claims.comparison import Comparison
from ornstein.claims.outcome import Measure
from ornstein.claims.refinement import STEPS, Student, judge_refinement, judge_students
from ornstein.images import Estimate


def _distances(by_steps: dict[int, list[float]], gan: list[float]) -> Comparison:
    found = Comparison("on icons", "distance", Measure("floor", 0.0), 3)
    scores = {k: by_steps.get(k, [50.0, 51.0, 52.0]) for k in STEPS}
    found.scores |= {f"diffusion, {k} step{'s' * (k > 1)}": scores[k] for k in STEPS}
    found.scores["modern GAN, one step by nature"] = gan
    return found


@pytest.mark.parametrize(
    ("one", "fifty", "gan", "expected"),
    [
        ([300.0, 310, 305], [8.0, 9, 10], [150.0, 160, 155], ["supported"] * 3),
        ([5.0, 6, 5.5], [90.0, 91, 92], [50.0, 51, 52], ["refuted"] * 3),
        ([8.0, 200, 100], [9.0, 150, 120], [100.0, 101, 300], ["cannot tell"] * 3),
        # It is the network alone, not its refinement, that beats the GAN.
        ([20.0, 21, 22], [8.0, 9, 10], [150.0, 160, 155], ["supported", "supported", "refuted"]),
    ],
)
def test_refinement_is_the_reason_only_where_its_loss_loses(
    one: list[float], fifty: list[float], gan: list[float], expected: list[str]
) -> None:
    assert list(judge_refinement(_distances({1: one, 50: fifty}, gan)).values()) == expected


def _drawn(right: int, of: int = 400) -> Student:
    outcomes = np.arange(of) < right
    return Student(outcomes, Estimate(0.0, 1.0), 1.0, 7.0, 0.1, np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize(("right", "verdict"), [(380, "supported"), (365, "supported"), (352, "cannot tell"), (300, "refuted")])
def test_a_student_keeps_what_the_teacher_gets_right_within_five_in_a_hundred(right: int, verdict: str) -> None:
    """The pictures that it has right are among the teacher's 370 (or more): the interval of the loss is a binomial's."""
    parts = judge_students({"teacher, 50 steps": _drawn(370), "teacher, 4 steps": _drawn(0), "student, 4 steps": _drawn(right)})
    assert list(parts.values()) == [verdict]
    low, high = _drawn(right).loss(_drawn(370))
    share = (370 - right) / 400
    half = 1.96 * np.sqrt(abs(share) * (1 - abs(share)) / 400)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.004)
