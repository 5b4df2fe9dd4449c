"""V1: the scripted expert, the classical pipeline and a learned policy in the same scenes, as clutter, wordings and looks move away from the usual.

Perception, state estimation, planning and control of the pipeline are written by hand around one detector; the policy goes from picture and
sentence to action in one network. Both ship, both see the same front camera, and each scene is tried by all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ornstein.claims.drawing import plot
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.claims.tabletop_trials import fingerprint, solved
from ornstein.data.pictures import contact_sheet
from ornstein.evaluation import mcnemar_exact, newcombe_difference, wilson_interval
from ornstein.evaluation.trials import EXPERT
from ornstein.simulation.tabletop import Replay, Variation, sample_scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict
    from ornstein.evaluation.trials import Control

EVALUATION_SEED = 4_100_000
LEARNED, PIPELINE = "rt1-tabletop", "modular-tabletop"
PLAYERS = ("expert", "pipeline", "learned")
_LEVEL = 0.05


@dataclass(frozen=True)
class Condition:
    """name and the scenes; judged: the part of the statement that it decides, empty where it is a step on the way."""

    name: str
    variation: Variation
    judged: str = ""


#: Where a bowl, a drawer or mats happen to stand too, there may be room for fewer blocks.
_CLUTTER = tuple(
    Condition(f"{k} block{'s' * (k > 1)}", Variation(("pick", "push"), blocks=(k, k)), "in clutter" if k == 5 else "")
    for k in range(1, 6)
)
CONDITIONS: tuple[Condition, ...] = (
    *_CLUTTER,
    Condition("all skills, usual scenes", Variation(), "in usual scenes"),
    Condition("unseen wordings", Variation(phrasing="unseen"), "in wordings that neither has seen"),
    Condition("other tables", Variation(table=True), "on other tables"),
    Condition("other light", Variation(lights=True), "in other light"),
    Condition("camera moved", Variation(camera=True), "with the camera moved"),
)
_USUAL = CONDITIONS[5]


@dataclass(frozen=True)
class Tried:
    """Who solved which of the scenes of a condition: (n,) each, by player."""

    condition: Condition
    solved: dict[str, NDArray[np.bool_]]

    def rate(self, player: str) -> Measure:
        wins, n = int(self.solved[player].sum()), len(self.solved[player])
        return Measure(f"solved, {player}, {self.condition.name}", 100 * wins / n, _percent(wilson_interval(wins, n)), n, "%")

    def lead(self) -> Measure:
        """Of the learned policy over the pipeline; the verdict is McNemar's, on the pairs."""
        n = len(self.solved["learned"])
        wins = [int(self.solved[player].sum()) for player in ("learned", "pipeline")]
        interval = newcombe_difference((wins[0], n), (wins[1], n))
        return Measure(
            f"lead of the learned policy, {self.condition.name}", 100 * (wins[0] - wins[1]) / n, _percent(interval), n, "%"
        )

    def verdict(self, level: float) -> Verdict:
        """Whether the learned policy is better on the same scenes."""
        mine, theirs = self.solved["learned"], self.solved["pipeline"]
        if mcnemar_exact(mine, theirs) >= level:
            return "cannot tell"
        return "supported" if mine.sum() > theirs.sum() else "refuted"


def pipeline_or_policy(folder: Path, quick: bool) -> Outcome:
    """V1. The pipeline and the policy as they ship, and the expert, try the same fresh scenes of every condition."""
    n = 2 if quick else 200
    conditions = CONDITIONS[4:7] if quick else CONDITIONS
    sources = {"expert": EXPERT, "pipeline": PIPELINE, "learned": LEARNED}
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + n)

    def try_all(player: str, one: Condition, control: Control = "none") -> NDArray[np.bool_]:
        return solved(f"{player}, {one.name}", sources[player], one.variation, seeds, folder, control)

    found = [Tried(one, {player: try_all(player, one) for player in PLAYERS}) for one in conditions]
    hidden = {player: try_all(player, _USUAL, "blank") for player in ("pipeline", "learned")}
    usual = next(tried for tried in found if tried.condition is _USUAL)
    listens = {player: bool(mcnemar_exact(usual.solved[player], hidden[player]) < _LEVEL) for player in hidden}
    parts = judge_parts(found)
    return Outcome(
        combined(parts) if all(listens.values()) else "cannot tell",
        "the learned policy is better "
        + "; ".join(f"{part}: {verdict}" for part, verdict in parts.items())
        + ("" if all(listens.values()) else "; a control failed: hiding the sentence changed too little"),
        (
            *(tried.rate(player) for tried in found for player in PLAYERS),
            *(tried.lead() for tried in found if tried.condition.judged),
            *(
                replace(Tried(_USUAL, hidden).rate(player), name=f"control, no instruction: solved, {player}")
                for player in hidden
            ),
        ),
        (EVALUATION_SEED,),
        {
            "One scene of every condition: " + "; ".join(one.name for one in conditions): _scenes(conditions),
            **({} if quick else {"Solved, in per cent, as blocks are added": _clutter(found)}),
        },
        {"scenes": n, "checkpoints": {player: fingerprint(source) for player, source in sources.items() if source != EXPERT}},
    )


def judge_parts(found: list[Tried]) -> dict[str, Verdict]:
    """By condition that is judged; 5 % shared among them."""
    judged = [tried for tried in found if tried.condition.judged]
    return {tried.condition.judged: tried.verdict(_LEVEL / len(judged)) for tried in judged}


def _scenes(conditions: tuple[Condition, ...]) -> NDArray[np.uint8]:
    replay = Replay(image_size=192)
    try:
        first = [replay.still(sample_scene(EVALUATION_SEED, one.variation)) for one in conditions]
    finally:
        replay.close()
    return np.asarray(contact_sheet(np.stack(first), columns=5))


def _clutter(found: list[Tried]) -> NDArray[np.uint8]:
    steps = [tried for tried in found if tried.condition in _CLUTTER]
    places = np.arange(1.0, len(steps) + 1)

    def of(pick: Callable[[Measure], float], player: str) -> NDArray[np.float64]:
        return np.array([pick(tried.rate(player)) for tried in steps])

    return plot(
        {player: (places, of(lambda m: m.value, player)) for player in PLAYERS},
        x="blocks on the table",
        y="solved (%)",
        bands={
            player: (of(lambda m: (m.interval or (0.0, 0.0))[0], player), of(lambda m: (m.interval or (0.0, 0.0))[1], player))
            for player in PLAYERS
        },
    )


def _percent(interval: tuple[float, float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]
