"""V1's rules: what counts as better, on paired scenes, and what a failed control does to the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ornstein.claims.pipeline_or_policy import CONDITIONS, EVALUATION_SEED, Condition, Tried, judge_parts
from ornstein.evaluation import FIRST_SEEDS
from ornstein.simulation.tabletop import Variation, sample_scene


def tried(learned: int, pipeline: int, n: int = 200, judged: str = "part") -> Tried:
    solved = {"learned": np.arange(n) < learned, "pipeline": np.arange(n) < pipeline, "expert": np.ones(n, bool)}
    return Tried(Condition("somewhere", Variation(), judged), solved)


@pytest.mark.parametrize(
    ("learned", "pipeline", "verdict"),
    [(190, 150, "supported"), (150, 190, "refuted"), (190, 188, "cannot tell"), (0, 0, "cannot tell")],
)
def test_better_means_beyond_chance_on_the_same_scenes(learned: int, pipeline: int, verdict: str) -> None:
    assert tried(learned, pipeline).verdict(0.01) == verdict


def test_pairs_are_compared_not_totals() -> None:
    """Equal totals on opposite scenes tell nothing; six scenes solved by one alone do, at 5 % and not at 1 %."""
    opposite = Tried(CONDITIONS[5], {"learned": np.arange(200) < 100, "pipeline": np.arange(200) >= 100})
    assert opposite.verdict(0.05) == "cannot tell"
    six = tried(106, 100)
    assert stats.binomtest(6, 6).pvalue < 0.05
    assert (six.verdict(0.05), six.verdict(0.01)) == ("supported", "cannot tell")


def test_the_level_is_shared_among_what_is_judged() -> None:
    """p = 0.031 is enough alone, not as one of two."""
    assert judge_parts([tried(106, 100)]) == {"part": "supported"}
    assert judge_parts([tried(106, 100, judged="one"), tried(5, 5, judged="other")])["one"] == "cannot tell"
    assert judge_parts([tried(106, 100), tried(0, 200, judged="")]) == {"part": "supported"}


def test_figures_are_percentages_with_intervals() -> None:
    rate, lead = tried(150, 100).rate("learned"), tried(150, 100).lead()
    assert (rate.value, lead.value, rate.n) == (75.0, 25.0, 200)
    low, high = stats.binomtest(150, 200).proportion_ci(method="wilson")
    assert rate.interval == pytest.approx((100 * low, 100 * high))
    assert lead.interval is not None
    assert lead.interval[0] < 25 < lead.interval[1]


def test_scenes_are_nobodys_and_conditions_change_what_they_name() -> None:
    assert all(not first <= EVALUATION_SEED < first + 1_000_000 for first in FIRST_SEEDS.values())
    for k, condition in enumerate(CONDITIONS[:5], 1):
        scenes = [sample_scene(EVALUATION_SEED + i, condition.variation) for i in range(8)]
        assert {len(scene.blocks) for scene in scenes if not (scene.bowl or scene.mats or scene.cabinet)} == {k}
    usual = sample_scene(EVALUATION_SEED, CONDITIONS[5].variation)
    for condition in CONDITIONS[6:]:
        scene = sample_scene(EVALUATION_SEED, condition.variation)
        assert (scene.blocks, scene.mats, scene.tasks) == (usual.blocks, usual.mats, usual.tasks)
        assert (scene.look, scene.instruction) != (usual.look, usual.instruction)
