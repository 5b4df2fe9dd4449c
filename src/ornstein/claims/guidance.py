"""D7: classifier-free guidance. What its scale w brings and costs, and how often the condition must be dropped in training.

Nine small models (drop rates 0, 0.1 and 0.2, three seeds each, trained alike) draw the same captions from the same noise at seven scales;
then the shipped model does so, once. The statement is several; each is judged by itself, by rules that were written before any run:

    w = 0 ignores the caption     the share named right is not above twice the chance (Wilson's interval, all seeds together)
    w = 1 is nearest to the law   its kernel distance to real pictures beats that of each w > 1
    w = 7 follows it more closely than w = 1, and is less diverse
    7 to 15 is best               one of 7, 10, 15 beats each of 1, 2, 4: by what is right, and by kernel distance
    dropping 10 to 20 % is better the better of 0.1 and 0.2 beats 0, each at the w where most is right

"Beats" is a paired test over the seeds, one-sided, 5 % shared among the rivals. What is beaten instead is refuted. The shipped model's
table and the remedies (an interval of guided times, rescaling) are shown and judge nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from ornstein.claims.comparison import Comparison, unless_diverged
from ornstein.claims.drawing import plot
from ornstein.claims.exam import CONTROL, DISTANCE, DIVERSITY, NAMED, RECALL, RIGHT, Exam, floors
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.claims.small_text_to_image import (
    QUICK,
    Setting,
    Space,
    Way,
    cut_off,
    draw,
    latents,
    through,
    trained,
    training_data,
)
from ornstein.data.pictures import contact_sheet
from ornstein.evaluation import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from ornstein.claims.outcome import Verdict
    from ornstein.diffusion import Prediction

SEEDS = (0, 1, 2)
EVALUATION_SEED = 4_000_007
SCALES = (0.0, 1.0, 2.0, 4.0, 7.0, 10.0, 15.0)
USUAL, LOWER = (7.0, 10.0, 15.0), (1.0, 2.0, 4.0)
DROPS = (0.0, 0.1, 0.2)
#: The drop rate that the statements about w are judged at: the field's.
MAIN = 0.1
REMEDIES = {
    "w = 7 at t = 200 to 800": Way(7.0, interval=(200, 800)),
    "w = 7, rescaled by φ = 0.7": Way(7.0, rescale=0.7),
}
_LEVEL = 0.05
#: Less than this many times as much right as by another's caption, and the exam says nothing.
_WORKS = 10.0
#: Named right beyond this many times the chance is no longer ignoring the caption.
_IGNORES = 2.0
CLIPPED = "numbers cut off, share"
_LESS_IS_BETTER = (DISTANCE, CLIPPED)
#: Shown for every drop rate; the rest for the main one.
_FOR_ALL = (RIGHT, DISTANCE, DIVERSITY)


def at(drop: float, way: float | str) -> str:
    """What a cell of the table is called."""
    return f"drop {drop:g}, {_called(way)}"


def _called(way: float | str) -> str:
    return way if isinstance(way, str) else f"w = {way:g}"


def guidance_and_dropping(folder: Path, quick: bool) -> Outcome:
    """D7."""
    setting, seeds = (QUICK, SEEDS[:2]) if quick else (Setting(), SEEDS)
    space = latents(setting)
    data = training_data(setting, space, encoded=True)
    exam = Exam.small(setting, seed=EVALUATION_SEED, quick=quick)
    table, diverged = _table(exam, space, len(seeds)), 0
    sheets: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for drop in DROPS:
        for seed in seeds:
            fit = partial(trained, space, data, setting, folder, drop=drop, seed=seed, batch=setting.batch, steps=setting.steps)
            kept = unless_diverged(fit)
            diverged += kept is None
            rows = _sweep(exam, table, space, None if kept is None else kept[max(kept)], drop, seed, quick)
            if rows:
                sheets.setdefault(f"Drop {drop:g}", rows)
    shipped, sheets["The shipped model"] = _shipped(quick)
    parts = judge_parts(table, setting.names, len(exam.asked))
    return Outcome(
        combined(parts),
        f"{'; '.join(f'{part}: {verdict}' for part, verdict in parts.items())}; {_best(table)}",
        (
            *(m for comparison in table.values() for m in comparison.measures() if not m.name.startswith("runs that diverged")),
            Measure("trainings that diverged", float(diverged), n=len(DROPS) * len(seeds)),
            *shipped,
        ),
        seeds,
        _figures(table) | {f"{name}, from top to bottom: {', '.join(rows)}": _sheet(rows) for name, rows in sheets.items()},
        {
            "evaluation_seed": EVALUATION_SEED,
            "pictures_a_cell": len(exam.asked),
            "of_one_caption_a_cell": len(exam.open_names),
            "sampler": f"DDIM, {Way(1.0).steps} steps",
            "features": f"{exam.real.extractor}; {exam.real.resize}",
            "kernel": f"Gaussian, σ = {exam.bandwidth:.4g}",
            "scores": {figure: comparison.scores for figure, comparison in table.items()},
        },
    )


def judge_parts(table: dict[str, Comparison], names: int, n: int) -> dict[str, Verdict]:
    """The statements of this module's head.

    Args:
        table: a comparison a figure, its methods named by `at`. names: how many there are to choose from. n: pictures a cell.
    """
    distance, correct, apart = (table[figure] for figure in (DISTANCE, RIGHT, DIVERSITY))
    ignoring = [round(share * n) for share in table[NAMED].scores[at(MAIN, 0.0)]]
    low, high = Rate(sum(ignoring), n * len(ignoring)).interval if ignoring else (0.0, 1.0)
    beyond = _IGNORES / names
    peaks = {drop: at(drop, _peak(table, drop)) for drop in DROPS}
    dropped = max((peaks[drop] for drop in DROPS if drop), key=lambda cell: _mean(correct, cell))
    one, seven = at(MAIN, 1.0), at(MAIN, 7.0)
    parts: dict[str, Verdict] = {
        "w = 0 ignores the caption": "supported" if high <= beyond else "refuted" if low > beyond else "cannot tell",
        "w = 1 is nearest to the law of real pictures": _over(distance, [one], [at(MAIN, w) for w in SCALES if w > 1]),
        "w = 7 follows the caption more closely than w = 1": _over(correct, [seven], [one]),
        "w = 7 is less diverse than w = 1": _over(apart, [one], [seven]),
        "7 to 15 is best by what is right": _over(correct, [at(MAIN, w) for w in USUAL], [at(MAIN, w) for w in LOWER]),
        "7 to 15 is best by kernel distance": _over(distance, [at(MAIN, w) for w in USUAL], [at(MAIN, w) for w in LOWER]),
        "dropping 10 to 20 % beats dropping none": _over(correct, [dropped], [peaks[0.0]]),
    }
    works = bool(ignoring) and _mean(correct, peaks[MAIN]) >= _WORKS * _mean(table[CONTROL], peaks[MAIN])
    return parts if works else dict.fromkeys(parts, "cannot tell")


def _over(comparison: Comparison, these: list[str], those: list[str]) -> Verdict:
    """Supported where one of these beats each of those, refuted where one of those beats each of these."""

    def wins(side: list[str], other: list[str]) -> bool:
        return any(all(comparison.beats_in_pairs(a, b, _LEVEL / len(other)) for b in other) for a in side)

    return "supported" if wins(these, those) else "refuted" if wins(those, these) else "cannot tell"


def _mean(comparison: Comparison, cell: str) -> float:
    """Minus infinity where no run finished."""
    scores = comparison.scores[cell]
    return float(np.mean(scores)) if scores else -np.inf


def _peak(table: dict[str, Comparison], drop: float) -> float:
    """The scale, of those that heed the caption, at which most is right."""
    return max(SCALES[1:], key=lambda w: _mean(table[RIGHT], at(drop, w)))


class Cell(NamedTuple):
    """What one way of drawing brings, and a picture of each of twelve captions."""

    figures: dict[str, Measure]
    row: NDArray[np.uint8]


def _cell(exam: Exam, space: Space, network: nn.Module, way: Way, name: str) -> Cell:
    """The noise of picture k is the same in every cell."""
    drawn = draw(space, network, exam.captions, range(len(exam.captions)), way, seed=EVALUATION_SEED + 3, name=name)
    numbers = range(len(exam.open_names))
    of_one = draw(space, network, exam.open_captions, numbers, way, seed=EVALUATION_SEED + 4, name=f"{name}, of one caption")
    cut = Measure(CLIPPED, drawn.clipped, n=len(drawn.pictures))
    figures = exam.score(drawn.pictures) | exam.score_of_one(of_one.pictures) | {CLIPPED: cut}
    return Cell(figures, drawn.pictures[:12])


def _table(exam: Exam, space: Space, runs: int) -> dict[str, Comparison]:
    """A comparison a figure, empty yet, with what fresh real pictures score; cut off: what the autoencoder makes of them."""
    again, free = exam.fresh(seed=EVALUATION_SEED + 1)
    cut = Measure(CLIPPED, cut_off(space.decode(space.encode(again[:64]))), n=len(again[:64]))
    floor = floors(exam.score(again) | exam.score_of_one(free) | {CLIPPED: cut})
    return {
        figure: Comparison("in all", figure, measure, runs, more_is_better=figure not in _LESS_IS_BETTER)
        for figure, measure in floor.items()
    }


def _sweep(
    exam: Exam, table: dict[str, Comparison], space: Space, network: nn.Module | None, drop: float, seed: int, quick: bool
) -> dict[str, NDArray[np.uint8]]:
    """Every way of one model into the table (None: its training diverged); returns a row of pictures for each."""
    ways: list[tuple[float | str, Way]] = [(w, Way(w)) for w in SCALES]
    if drop == MAIN:
        ways += REMEDIES.items()
    rows = {}
    for name, way in ways:
        chosen = way._replace(steps=2) if quick else way
        cell = None if network is None else _cell(exam, space, network, chosen, f"{at(drop, name)}, seed {seed}")
        for figure in table if drop == MAIN else _FOR_ALL:
            table[figure].add(at(drop, name), None if cell is None else cell.figures[figure].value)
        if cell is not None:
            rows[_called(name)] = cell.row
    return rows


def _shipped(quick: bool) -> tuple[list[Measure], dict[str, NDArray[np.uint8]]]:
    """The same sweep of the shipped model; intervals are over pictures."""
    import ornstein

    pipeline = ornstein.load("text-to-image", expect="text-to-image")
    exam = Exam.shipped(seed=EVALUATION_SEED + 5, quick=quick)
    network, prediction = pipeline.denoiser, cast("Prediction", pipeline.config.prediction)
    coding = through(pipeline.autoencoder)
    space = Space("shipped", lambda: network, pipeline.latent_shape, prediction, *coding, {}, schedule=pipeline.schedule)
    found, rows = [], {}
    for w in SCALES:
        way, name = (Way(w, steps=2) if quick else Way(w)), f"the shipped model, {_called(w)}"
        cell = _cell(exam, space, network, way, name)
        found += [replace(measure, name=f"{figure}, {name}") for figure, measure in cell.figures.items()]
        rows[_called(w)] = cell.row
    return found, rows


def _sheet(rows: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    whole = np.concatenate(list(rows.values()))
    return np.asarray(contact_sheet(whole, columns=len(whole) // len(rows)))


def _best(table: dict[str, Comparison]) -> str:
    """The scales that came out best on average, at the main drop rate."""
    distances = table[DISTANCE].scores
    near = min(SCALES[1:], key=lambda w: np.mean(distances[at(MAIN, w)] or [np.inf]))
    return f"most is right at w = {_peak(table, MAIN):g}, nearest to real pictures are those of w = {near:g}"


def _figures(table: dict[str, Comparison]) -> dict[str, NDArray[np.uint8]]:
    """Alignment and diversity at the main drop rate; what is right and how far, for each drop rate. Bands: the seeds' range."""
    one_rate = {
        name: (table[figure], MAIN, scale)
        for name, figure, scale in (
            (RIGHT, RIGHT, 1.0),
            ("diversity of one caption / real", DIVERSITY, table[DIVERSITY].floor.value),
            ("recall / real", RECALL, table[RECALL].floor.value),
        )
    }
    by_rate = {figure: {f"drop {drop:g}": (table[figure], drop, 1.0) for drop in DROPS} for figure in (RIGHT, DISTANCE)}
    return {
        f"Alignment and diversity against w, drop {MAIN:g}": _plot(one_rate, "share"),
        "Everything right against w by drop rate": _plot(by_rate[RIGHT], RIGHT),
        f"{DISTANCE} against w by drop rate": _plot(by_rate[DISTANCE], DISTANCE),
    }


def _plot(lines: Mapping[str, tuple[Comparison, float, float]], y: str) -> NDArray[np.uint8]:
    """lines: by label, the comparison, the drop rate and the unit of the values."""
    curves, bands = {}, {}
    for label, (comparison, drop, unit) in lines.items():
        scores = [np.array(comparison.scores[at(drop, w)] or [np.nan]) / unit for w in SCALES]
        curves[label] = (np.array(SCALES), np.array([values.mean() for values in scores]))
        bands[label] = (np.array([values.min() for values in scores]), np.array([values.max() for values in scores]))
    return plot(curves, x="w", y=y, bands=bands)
