"""D6: the same transformer on latents and on pixels, and a U-Net on pixels, under one budget of arithmetic.

Same scenes, captions, objective, number of updates and seeds, parameters within 10 %; the pixel models' batches are what the latent
model's arithmetic pays (counted; encoding the scenes is in it, the autoencoder's own training is stated apart). The statement is several,
each judged by itself, by rules that were written before any run:

    about 50 times fewer numbers   between 45 and 55
    draws several times faster     at least twice as fast as each pixel model, sixteen pictures together, decoding included, in every
                                   round of a timing in turns
    learns several times faster    at least twice as fast to the kernel distance where a pixel model ends, for both and with every seed
    at least the same quality      its kernel distance beats that of each; refuted where one beats it (Welch's test over the seeds)
    slight artefacts               real pictures through the autoencoder are farther from real ones (they are there), and at most 5 % fewer
                                   of them are named right (they are slight), by 95 % intervals
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.claims.comparison import Comparison, unless_diverged
from ornstein.claims.drawing import plot
from ornstein.claims.exam import CONTROL, DISTANCE, NAMED, RECALL, RIGHT, Exam, floors
from ornstein.claims.latent_costs import Costs, autoencoder_training, measured_costs
from ornstein.claims.outcome import Measure, Outcome, combined, mean_measure
from ornstein.claims.pixel_rivals import rivals
from ornstein.claims.small_text_to_image import QUICK, Setting, Space, Way, draw, latents, trained, training_data
from ornstein.evaluation import paired_bootstrap
from ornstein.images import kernel_distance_change, psnr, to_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from ornstein.claims.outcome import Verdict
    from ornstein.images import Estimate

    Times = Mapping[str, Mapping[int, float]]

SEEDS = (0, 1, 2)
EVALUATION_SEED = 4_000_006
#: The latent models are those that D7 trains at this drop rate, where it ran into the same folder.
_DROP = 0.1
#: All are guided alike, at a scale that was fixed before any run.
WAY = Way(2.0)
_FEWER, _SEVERAL, _SLIGHT, _LEVEL = (45.0, 55.0), 2.0, 0.05, 0.05
_FIGURES = (RIGHT, NAMED, DISTANCE, RECALL)


def latent_or_pixels(folder: Path, quick: bool) -> Outcome:
    """D6."""
    setting, seeds = (QUICK, SEEDS[:2]) if quick else (Setting(), SEEDS)
    way = WAY._replace(steps=2) if quick else WAY
    latent, *others = spaces = [latents(setting), *rivals(setting)]
    encoded, whole = (training_data(setting, one, encoded=one is latent) for one in spaces[:2])
    costs = measured_costs(setting, spaces, encoded.pieces.shape[1], way, quick=quick)
    exam = Exam.small(setting, seed=EVALUATION_SEED, quick=quick)
    again, _ = exam.fresh(seed=EVALUATION_SEED + 1)
    artefacts = Artefacts.of(exam, latent, again)
    course = Course.of(exam, again, [one.name for one in spaces], len(seeds))
    for seed in seeds:
        for space in spaces:
            data, place = (encoded, folder.parent.parent / "D7" / "runs") if space is latent else (whole, folder)
            budget = {"batch": costs[space.name].batch, "steps": costs[space.name].steps}
            fit = partial(trained, space, data, setting, place, drop=_DROP, seed=seed, **budget)
            course.add(space, unless_diverged(fit), exam, way, seed)
    times = {one.name: {k: costs[one.name].seconds(k, setting.scenes) for k in course.steps(one.name)} for one in spaces}
    parts = judge_parts(course, costs, times, artefacts)
    return Outcome(
        combined(parts),
        f"{'; '.join(f'{part}: {verdict}' for part, verdict in parts.items())}; {_price(costs[latent.name])}",
        (
            *course.measures(times),
            *artefacts.measures(),
            *(measure for one in costs.values() for measure in one.measures()),
            *_ratios(costs, latent.name, [one.name for one in others]),
        ),
        seeds,
        {
            f"{DISTANCE} against seconds of training": course.plot(DISTANCE, times),
            "Everything right against seconds of training": course.plot(RIGHT, times),
            f"From top to bottom: real, through the autoencoder, {', '.join(course.rows)}": np.concatenate(
                [_row(again), _row(artefacts.pictures), *course.rows.values()]
            ),
        },
        {
            "evaluation_seed": EVALUATION_SEED,
            "pictures": len(exam.asked),
            "sampler": f"DDIM, {way.steps} steps, w = {way.scale:g}",
            "features": f"{exam.real.extractor}; {exam.real.resize}",
            "kernel": f"Gaussian, σ = {exam.bandwidth:.4g}",
            "course": {name: [{str(k): v for k, v in run.items()} for run in runs] for name, runs in course.runs.items()},
        },
    )


Figures = dict[str, float]


@dataclass
class Course:
    """How quality grows in training.

    runs: by model, of each run that did not diverge the figures after so many updates. ends: a comparison a figure, of the last ones.
    rows: pictures of the first run.
    """

    runs: dict[str, list[dict[int, Figures]]]
    ends: dict[str, Comparison]
    control: list[float] = field(default_factory=list)
    rows: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def of(cls, exam: Exam, again: NDArray[np.uint8], names: list[str], runs: int) -> Course:
        """Nothing yet; the floors are what fresh real pictures score."""
        floor = floors(exam.score(again))
        ends = {
            figure: Comparison("in all", figure, floor[figure], runs, more_is_better=figure != DISTANCE) for figure in _FIGURES
        }
        return cls({name: [] for name in names}, ends)

    def add(self, space: Space, kept: Mapping[int, nn.Module] | None, exam: Exam, way: Way, seed: int) -> None:
        """One training's snapshots, drawn and scored; None: it diverged."""
        if kept is None:
            for comparison in self.ends.values():
                comparison.add(space.name, None)
            return
        found: dict[int, Figures] = {}
        for step, network in kept.items():
            name, numbers = f"{space.name}, seed {seed}, step {step}", range(len(exam.asked))
            drawn = draw(space, network, exam.captions, numbers, way, seed=EVALUATION_SEED + 2, name=name)
            scored = exam.score(drawn.pictures)
            found[step] = {figure: scored[figure].value for figure in _FIGURES}
        self.runs[space.name].append(found)
        self.rows.setdefault(space.name, _row(drawn.pictures))
        self.control.append(scored[CONTROL].value)
        for figure, comparison in self.ends.items():
            comparison.add(space.name, found[max(found)][figure])

    def steps(self, name: str) -> list[int]:
        """After how many updates there are figures."""
        return sorted({step for run in self.runs[name] for step in run})

    def times_faster(self, name: str, rival: str, times: Times) -> list[float]:
        """By seed: the rival's whole training over the first time at which `name` is as near to real pictures as that ends; 0: never.

        It is looked at a few times only: so many times at least.
        """
        found = []
        for mine, theirs in zip(self.runs[name], self.runs[rival], strict=True):
            end = max(theirs)
            as_near = [times[name][step] for step, figures in mine.items() if figures[DISTANCE] <= theirs[end][DISTANCE]]
            found.append(times[rival][end] / min(as_near) if as_near else 0.0)
        return found

    def measures(self, times: Times) -> list[Measure]:
        found = [m for one in self.ends.values() for m in one.measures() if not m.name.startswith("runs that diverged")]
        total = next(iter(self.ends.values())).runs * len(self.runs)
        found.append(Measure("trainings that diverged", float(total - sum(map(len, self.runs.values()))), n=total))
        found.append(Measure(f"{CONTROL}, the most of all models", max(self.control, default=0.0)))
        first, *others = self.runs
        for rival in others:
            if self._complete(first, rival):
                fastest = min(self.times_faster(first, rival, times))
                found.append(Measure(f"times faster to the quality of {rival}, at least, least of the seeds", fastest))
        seconds = {name: max(by_step.values()) for name, by_step in times.items() if by_step}
        return found + [Measure(f"time of a training, {name}", value, unit="s") for name, value in seconds.items()]

    def _complete(self, *names: str) -> bool:
        runs = next(iter(self.ends.values())).runs
        return all(len(self.runs[name]) == runs for name in names)

    def plot(self, figure: str, times: Times) -> NDArray[np.uint8]:
        """Means over the seeds against seconds, and their range as a band."""
        curves, bands = {}, {}
        for name, runs in self.runs.items():
            values = np.array([[run[step][figure] for step in self.steps(name)] for run in runs])
            if len(values):
                curves[name] = (np.array([times[name][step] for step in self.steps(name)]), values.mean(0))
                bands[name] = (values.min(0), values.max(0))
        return plot(curves, x="seconds of training, one thread", y=figure, bands=bands, log_x=True)


class Artefacts(NamedTuple):
    """What the autoencoder does to real pictures.

    change: of the kernel distance to other real ones. lost: the share named right before and not after, with its 95 % interval.
    decibels: PSNR, a picture each. errors: power of the error over power of the picture, at fine and at coarse detail, a picture each.
    """

    pictures: NDArray[np.uint8]
    score: dict[str, Measure]
    change: Estimate
    lost: tuple[float, float, float]
    decibels: NDArray[np.float64]
    fine: NDArray[np.float64]
    coarse: NDArray[np.float64]

    @classmethod
    def of(cls, exam: Exam, latent: Space, real: NDArray[np.uint8]) -> Artefacts:
        through = to_pixels(latent.decode(latent.encode(real)))
        before, after = exam.extractor.extract(real), exam.extractor.extract(through)
        kept, left = (exam.right(features, shown).named * 1.0 for features, shown in ((before, real), (after, through)))
        lost = (float(kept.mean() - left.mean()), *paired_bootstrap(kept, left, np.random.default_rng(EVALUATION_SEED)))
        change = kernel_distance_change(exam.real, before, after, bandwidth=exam.bandwidth)
        return cls(through, exam.score(through), change, lost, psnr(real, through), *band_errors(real, through))

    def measures(self) -> list[Measure]:
        n, (low, high) = len(self.pictures), self.change.interval
        mean, *interval = self.lost
        return [
            *(replace(self.score[figure], name=f"{figure}, real through the autoencoder") for figure in _FIGURES),
            Measure(
                "farther from real pictures by the autoencoder, Gaussian kernel distance × 1000",
                1000 * self.change.value,
                (1000 * low, 1000 * high),
                n,
            ),
            Measure("named right no more after the autoencoder", mean, (interval[0], interval[1]), n),
            mean_measure("PSNR of the autoencoder", self.decibels, "dB"),
            mean_measure("error of the autoencoder in fine detail, of its power", self.fine),
            mean_measure("error of the autoencoder in coarse detail, of its power", self.coarse),
        ]


def band_errors(real: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power of (other − real) over power of real, a picture each: above half of the highest frequency, and below it, without the mean.

    Of the grey pictures; frequency is the distance from the origin in cycles a pixel, half of the highest along an axis is 1/4.
    """
    grey, error = real.mean(-1), other.mean(-1) - real.mean(-1)
    along = np.fft.fftfreq(grey.shape[-1])
    frequency = np.hypot(along[:, None], along[None])
    power, wrong = (np.abs(np.fft.fft2(one)) ** 2 for one in (grey, error))
    fine, coarse = frequency > 0.25, (frequency <= 0.25) & (frequency > 0)
    first, second = (wrong[:, band].sum(1) / power[:, band].sum(1) for band in (fine, coarse))
    return first, second


def judge_parts(course: Course, costs: Mapping[str, Costs], times: Times, artefacts: Artefacts) -> dict[str, Verdict]:
    """The statements of this module's head; the first model is the latent one."""
    first, *others = course.runs
    fewer = max(costs[name].numbers for name in others) / costs[first].numbers
    distance = course.ends[DISTANCE]
    drawing = [theirs / mine for name in others for mine, theirs in zip(costs[first].picture, costs[name].picture, strict=True)]
    level = _LEVEL / len(others)
    worse = any(distance.beats(name, first, level) for name in others)
    better = all(distance.beats(first, name, level) for name in others)
    low, high = artefacts.change.interval
    there, slight = low > 0, artefacts.lost[2] <= _SLIGHT
    absent = high < 0 or artefacts.lost[1] > _SLIGHT
    return {
        "about 50 times fewer numbers": "supported" if _FEWER[0] <= fewer <= _FEWER[1] else "refuted",
        "draws several times faster": _by(drawing),
        "learns several times faster to equal quality": _by_seed(course, first, others, times),
        "at least the same quality": "refuted" if worse else "supported" if better else "cannot tell",
        "slight artefacts": "supported" if there and slight else "refuted" if absent else "cannot tell",
    }


def _by(ratios: list[float]) -> Verdict:
    """Of all rounds and rivals."""
    return "supported" if min(ratios) >= _SEVERAL else "refuted" if max(ratios) < _SEVERAL else "cannot tell"


def _by_seed(course: Course, first: str, others: list[str], times: Times) -> Verdict:
    if not course._complete(first, *others):
        return "cannot tell"
    least = np.min([course.times_faster(first, rival, times) for rival in others], axis=0)
    return _by(least.tolist())


def _ratios(costs: Mapping[str, Costs], first: str, others: list[str]) -> list[Measure]:
    found = []
    for name in others:
        rounds = np.divide(costs[name].picture, costs[first].picture)
        found.append(Measure(f"times faster in drawing than {name}", float(np.median(rounds)), n=len(rounds)))
        found.append(Measure(f"times fewer numbers than {name}", costs[name].numbers / costs[first].numbers))
    flops, seconds = autoencoder_training()
    return [
        *found,
        Measure("arithmetic of the autoencoder's own training", flops / 1e12, unit="TFLOP"),
        Measure("time of the autoencoder's own training", seconds, unit="s"),
    ]


def _price(latent: Costs) -> str:
    flops, _ = autoencoder_training()
    share = flops / (latent.training + latent.encoding)
    return f"the autoencoder's own training, which many models share, took {share:.3g} times the arithmetic of one of these"


def _row(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate(list(shown[:12]), axis=1)
