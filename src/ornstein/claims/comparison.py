"""Methods compared under one budget over a few seeds: who is better beyond chance, and what a run that diverged counts for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import stats

from ornstein.claims.outcome import Measure, mean_measure
from ornstein.core.errors import DivergenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Found = TypeVar("Found")


def unless_diverged(run: Callable[[], Found]) -> Found | None:
    """What a run found, or None where it diverged."""
    try:
        return run()
    except DivergenceError:
        return None


@dataclass
class Comparison:
    """Scores by method, one a run that finished.

    where: the task, as a sentence goes on ("on pictures"). quality: what a score is. floor: what the data themselves score.
    runs: how many each method had; the others diverged. more_is_better: as for a coverage; for a distance less is.
    """

    where: str
    quality: str
    floor: Measure
    runs: int
    scores: dict[str, list[float]] = field(default_factory=dict)
    more_is_better: bool = False

    def add(self, method: str, score: float | None) -> None:
        """One run: its score, None where it diverged."""
        finished = self.scores.setdefault(method, [])
        if score is not None:
            finished.append(score)

    def measures(self) -> list[Measure]:
        """The methods' means with intervals, the floor, and the runs that diverged. A mean of one run has no interval."""
        found = []
        for method, scores in self.scores.items():
            name = f"{self.quality}, {method}"
            if len(scores) > 1:
                found.append(mean_measure(name, scores))
            elif scores:
                found.append(Measure(name, scores[0], n=1))
        diverged = sum(self.runs - len(scores) for scores in self.scores.values())
        return [*found, self.floor, Measure(f"runs that diverged, {self.where}", float(diverged), n=self.runs * len(self.scores))]

    def beats(self, a: str, b: str, level: float) -> bool:
        """Whether a is better than b beyond chance: Welch's test, one-sided, over the runs.

        A method with a run that diverged beats none: its finished runs are a selection. One that never finished is beaten by any
        that always did; one that finished once cannot be told.
        """
        mine, theirs = self.scores[a], self.scores[b]
        if len(mine) < self.runs:
            return False
        if not theirs:
            return True
        if min(len(mine), len(theirs)) < 2:
            return False
        size = float(np.abs([*mine, *theirs]).max())
        if max(np.ptp(mine), np.ptp(theirs)) <= 1e-9 * size:  # no spread but rounding: the test would divide by it
            return mine[0] > theirs[0] if self.more_is_better else mine[0] < theirs[0]
        alternative = "greater" if self.more_is_better else "less"
        return bool(stats.ttest_ind(mine, theirs, equal_var=False, alternative=alternative).pvalue < level)

    def beats_in_pairs(self, a: str, b: str, level: float) -> bool:
        """The same where run k of a and run k of b are of one seed, or one model drawn in two ways: the paired test, one-sided.

        Both need all their runs, two at least, or there are no pairs.
        """
        mine, theirs = np.array(self.scores[a]), np.array(self.scores[b])
        if not len(mine) == len(theirs) == self.runs or self.runs < 2:
            return False
        gain = mine - theirs if self.more_is_better else theirs - mine
        if np.ptp(gain) <= 1e-9 * np.abs([mine, theirs]).max():  # no spread but rounding: the test would divide by it
            return bool(gain.mean() > 1e-9 * np.abs([mine, theirs]).max())
        return bool(stats.ttest_1samp(gain, 0.0, alternative="greater").pvalue < level)


def over_runs_and_scenes(a: NDArray[np.float64], b: NDArray[np.float64], resamples: int = 5000) -> tuple[float, float]:
    """95 % interval of the mean of a − b, (runs, scenes) each, in the same scenes: runs of each and scenes drawn again, for another training
    would have been another policy."""
    rng, means = np.random.default_rng(0), np.empty(resamples)
    for k in range(resamples):
        scenes = rng.integers(a.shape[1], size=a.shape[1])
        mine, theirs = (one[rng.integers(len(one), size=len(one))].mean(0) for one in (a, b))
        means[k] = (mine - theirs)[scenes].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
