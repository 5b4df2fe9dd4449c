"""V2: a small RT-1, from robot data alone, in scenes as it was taught and where words, things or combinations are others; beside the published figures.

The published network is in `ornstein.policies.rt1_paper`, counted and compared in tests; its ImageNet weights cannot be had offline, so what is
tried here is the small one that this project trains. Published: Brohan et al. 2022, "RT-1", table 2: seen tasks 97 %, unseen 76 %, with distractors
83 %, backgrounds 59 %. What can be compared across robots is what remains of the success on seen tasks. Tables do not count: this policy's demonstrations
show many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.claims.pipeline_or_policy import LEARNED
from ornstein.claims.rates import rate_measure, ratio_interval
from ornstein.claims.tabletop_trials import fingerprint, solved
from ornstein.data.pictures import contact_sheet
from ornstein.evaluation import mcnemar_exact, wilson_interval
from ornstein.simulation.tabletop import SUITES, Replay, Variation, sample_scene

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict

EVALUATION_SEED = 4_400_000
#: Seen tasks; and those of blocks alone, of which suites without drawers keep a share.
SEEN, SEEN_BLOCKS, PUBLISHED_SEEN = "all", "all, blocks alone", 0.97
_BLOCKS = SUITES["distractors"].variation.skills
VARIATIONS = {name: suite.variation for name, suite in SUITES.items()} | {SEEN_BLOCKS: Variation(_BLOCKS)}
_LEVEL = 0.05
_CONTROLS = ("blank", "shuffled")


class Elsewhere(NamedTuple):
    """A suite, what differs in it, the published success in scenes of that kind, None where there is none to compare with; and the seen scenes of
    the same skills."""

    suite: str
    what: str
    published: float | None
    seen: str = SEEN


ELSEWHERE = (
    Elsewhere("unseen-phrasing", "in unseen wordings", None),
    Elsewhere("held-out-pairs", "on unseen combinations of skill and thing", 0.76, SEEN_BLOCKS),
    Elsewhere("distractors", "among distractors", 0.83, SEEN_BLOCKS),
    Elsewhere("backgrounds", "on other tables", None),
    Elsewhere("unseen-objects", "with things of no robot data", None, SEEN_BLOCKS),
)


def small_rt1(folder: Path, quick: bool) -> Outcome:
    """V2. The shipped policy in fresh scenes of every kind; and told nothing, or about other things."""
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + (2 if quick else 200))
    kinds = ELSEWHERE[1:2] if quick else ELSEWHERE
    names = tuple(dict.fromkeys([SEEN, *(kind.seen for kind in kinds), *(kind.suite for kind in kinds)]))
    right = {name: solved(name, LEARNED, VARIATIONS[name], seeds, folder) for name in names}
    misled = {
        control: solved(SEEN, LEARNED, VARIATIONS[SEEN], seeds, folder, control)  # type: ignore[arg-type]  # one of them
        for control in (_CONTROLS[:1] if quick else _CONTROLS)
    }
    parts = judge_parts(right, misled)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items())
        + "; the network at its published size, with ImageNet's weights: not run here",
        (
            *(rate_measure(f"solved, {name}", found) for name, found in right.items()),
            *(rate_measure(f"control, {name} instruction: solved", found) for name, found in misled.items()),
            *(_retained(kind, right) for kind in kinds if right[kind.seen].any()),
            Measure("published, seen", 100 * PUBLISHED_SEEN, unit="%"),
            *(Measure(f"published, {kind.what}", 100 * kind.published, unit="%") for kind in kinds if kind.published is not None),
        ),
        (EVALUATION_SEED,),
        {"One scene of each: " + "; ".join(names): _scenes(names)},
        {"scenes": len(seeds), "checkpoint": fingerprint(LEARNED)},
    )


def judge_parts(right: dict[str, NDArray[np.bool_]], misled: dict[str, NDArray[np.bool_]]) -> dict[str, Verdict]:
    """Seen tasks and what remains elsewhere against the published figures, by 95 % intervals; whether it is the words that it follows."""
    _, high = wilson_interval(int(right[SEEN].sum()), len(right[SEEN]))
    low, _ = wilson_interval(int(right[SEEN].sum()), len(right[SEEN]))
    parts: dict[str, Verdict] = {
        "as many seen tasks as published": "refuted"
        if high < PUBLISHED_SEEN
        else "supported"
        if low > PUBLISHED_SEEN - _LEVEL
        else "cannot tell"
    }
    for kind in ELSEWHERE:
        if kind.suite in right and kind.published is not None:
            low, high = ratio_interval(right[kind.suite], right[kind.seen])
            kept = kind.published / PUBLISHED_SEEN
            parts[f"{kind.what} as much remains as published"] = (
                "supported" if low >= kept else "refuted" if high < kept else "cannot tell"
            )
    follows = all(mcnemar_exact(right[SEEN], found) < _LEVEL and found.sum() < right[SEEN].sum() for found in misled.values())
    parts["it follows the words"] = "supported" if follows else "cannot tell"
    return parts


def _retained(kind: Elsewhere, right: dict[str, NDArray[np.bool_]]) -> Measure:
    there, seen = right[kind.suite], right[kind.seen]
    low, high = ratio_interval(there, seen)
    share = 100 * float(there.mean() / seen.mean())
    return Measure(f"remains {kind.what}, of the success on seen tasks", share, (100 * low, 100 * high), len(there), "%")


def _scenes(names: tuple[str, ...]) -> NDArray[np.uint8]:
    replay = Replay(image_size=192)
    try:
        first = [replay.still(sample_scene(EVALUATION_SEED, VARIATIONS[name])) for name in names]
    finally:
        replay.close()
    return np.asarray(contact_sheet(np.stack(first), columns=3))
