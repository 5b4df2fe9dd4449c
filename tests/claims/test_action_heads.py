"""V4's plane, rules and arms; its verdict is for `ornstein claims V4` to give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ornstein.claims.action_heads import REGRESSION, TOKENS, Found, judge_parts, rounding_error, walk
from ornstein.claims.arms import placement_errors
from ornstein.claims.jobs import run_each
from ornstein.claims.two_right_answers import PLANE, STEPS, Plane
from ornstein.evaluation.trials import EXPERT, load_player, trials
from ornstein.simulation.tabletop import suite
from ornstein.simulation.tabletop.model import MAT_HALF

PARTS = (
    "tokens learn at more learning rates than regression",
    "tokens find both of two right answers",
    "tokens solve more on the tabletop than regression",
)


def stepwise(*right: float, above: float | None = 0.5) -> Found:
    return [{"right": [0.0, share], "above": above} for share in right]


def learned(good: int, n: int = 12) -> Found:
    return [{"likeliest": 0.9 if k < good else 0.5} for k in range(n)]


def arms(solved: int, n: int = 100) -> Found:
    return [{"solved": [k < solved for k in range(n)]} for _ in range(3)]


def judged(
    mine: tuple[Found, Found, Found] = (stepwise(0.9, 0.91, 0.92), learned(6), arms(50)),
    theirs: tuple[Found, Found, Found] = (stepwise(0.5, 0.51, 0.52), learned(6), arms(50)),
) -> dict[str, str]:
    (a, b, c), (d, e, f) = mine, theirs
    return judge_parts({TOKENS: a, REGRESSION: d}, {TOKENS: b, REGRESSION: e}, {TOKENS: c, REGRESSION: f})


@pytest.mark.parametrize(
    ("mine", "theirs", "verdict"), [(12, 6, "supported"), (6, 12, "refuted"), (12, 9, "cannot tell"), (12, 12, "cannot tell")]
)
def test_more_learning_rates_means_beyond_chance(mine: int, theirs: int, verdict: str) -> None:
    some = stepwise(0.9, 0.91, 0.92), stepwise(0.5, 0.51, 0.52)
    found = judged((some[0], learned(mine), arms(5)), (some[1], learned(theirs), arms(5)))
    assert found[PARTS[0]] == verdict
    p = stats.fisher_exact([[mine, 12 - mine], [theirs, 12 - theirs]]).pvalue
    assert (p < 0.05) == (verdict != "cannot tell")


@pytest.mark.parametrize(
    ("mine", "verdict"),
    [
        (stepwise(0.9, 0.91, 0.92), "supported"),
        (stepwise(0.9, 0.91, 0.92, above=0.9), "refuted"),  # one way alone
        (stepwise(0.9, 0.91, 0.92, above=0.1), "refuted"),
        (stepwise(0.1, 0.11, 0.12), "refuted"),
        (stepwise(0.5, 0.9, 0.1), "cannot tell"),
        (stepwise(0.9), "cannot tell"),  # one training shows nothing
        (stepwise(0.5, 0.51, 0.52), "cannot tell"),
    ],
)
def test_both_answers_means_right_and_in_balance(mine: Found, verdict: str) -> None:
    assert judged((mine, learned(6), arms(50)))[PARTS[1]] == verdict


@pytest.mark.parametrize(("solved", "verdict"), [(80, "supported"), (20, "refuted"), (50, "cannot tell")])
def test_arms_are_compared_scene_by_scene(solved: int, verdict: str) -> None:
    assert judged((stepwise(0.9, 0.91, 0.92), learned(6), arms(solved)))[PARTS[2]] == verdict


def test_scores_without_any_spread_tell_nothing() -> None:
    perfect = stepwise(1.0, 1.0, 1.0), learned(6), arms(50)
    assert judged(perfect, perfect)[PARTS[1]] == "cannot tell"


def test_a_lead_that_one_training_of_three_makes_is_none() -> None:
    """On every scene one of three runs is better: over scenes alone the interval would not hold zero."""
    lucky = [{"solved": [True] * 60}, {"solved": [False] * 60}, {"solved": [False] * 60}]
    unlucky = [{"solved": [False] * 60} for _ in range(3)]
    assert (
        judged((stepwise(0.9, 0.91, 0.92), learned(6), lucky), (stepwise(0.5, 0.51, 0.52), learned(6), unlucky))[PARTS[2]]
        == "cannot tell"
    )


def test_demonstrations_go_around_and_the_mean_of_both_does_not() -> None:
    plane = Plane.sample(300, np.random.default_rng(0))
    above, below = (plane.demonstrations(np.full(300, side)) for side in (True, False))
    assert not plane.blocked(above).any()
    assert not plane.blocked(below).any()
    assert plane.blocked((above + below) / 2).all()
    assert np.abs(np.diff(above, axis=1)).max() <= PLANE.action_high[0]


def test_rounding_alone_misses_by_half_a_bin_a_step() -> None:
    """All steps along the plane are an eighth of it, which lies on an edge of bins: eight errors of half a bin each, one way."""
    width = float(PLANE.action_high[0] - PLANE.action_low[0]) / 64
    assert rounding_error(64) == pytest.approx(1000 * STEPS * width / 2, rel=0.1)


def test_one_answer_is_learned_and_told_by_the_likeliest_path() -> None:
    found = walk(REGRESSION, whole=True, seed=0, above=1.0, rate=2e-3, num_bins=256, stops=[1, 800])
    assert found["likeliest"] > 0.95
    assert found["error_mm"] < 30
    assert found["right"][0] < found["right"][1]
    assert found["above"] == 1.0


def test_placement_is_where_the_block_lies_in_the_end() -> None:
    """The expert's successes end on the mat, which is as wide as the rule of success says; a block that never moved is where it began."""
    player, placed = load_player(EXPERT), suite("place-on-mat")
    tried = list(trials(player, EXPERT, placed, range(4_300_000, 4_300_003)))
    assert all(trial.success for trial in tried)
    assert max(placement_errors(tried)) < 1000 * MAT_HALF * np.sqrt(2)
    for trial in tried:
        task, scene = trial.scene.tasks[0], trial.scene
        block, mat = scene.blocks[task.block or 0], scene.mats[task.mat or 0]
        del trial.film[1:]
        assert placement_errors([trial])[0] == pytest.approx(1000 * np.hypot(block.x - mat.x, block.y - mat.y), abs=1)


def _square(number: int, folder: str) -> dict[str, int]:
    with open(f"{folder}/calls", "a") as file:
        file.write(f"{number}\n")
    return {"square": number**2}


@pytest.mark.parametrize("workers", [1, 2])
def test_each_job_runs_once_and_results_keep_their_order(workers: int, tmp_path) -> None:
    def run(numbers: range) -> list[int]:
        jobs = [{"number": k, "folder": str(tmp_path)} for k in numbers]
        return [one["square"] for one in run_each(_square, jobs, tmp_path / "kept", "squares", workers)]

    assert run(range(3)) == [0, 1, 4]
    assert run(range(5)) == [0, 1, 4, 9, 16]
    calls = (tmp_path / "calls").read_text().split()
    assert sorted(calls) == ["0", "1", "2", "3", "4"]
