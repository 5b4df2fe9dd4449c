"""D9: does diffusion win by refining, and does a distilled student keep what many steps bring?

Two experiments. On icons, the contest's models: diffusion cut down to one step, two, … beside the modern GAN, which has one. In text to
image, the recipe's student of the shipped model, trained here, beside its teacher: what the reader finds right, distance to real
pictures, variety, seconds.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ornstein.claims.comparison import Comparison, unless_diverged
from ornstein.claims.contest import SEEDS, contestants, sized, trained
from ornstein.claims.drawing import plot
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.core.progress import track
from ornstein.data.icons import icon_names, icons
from ornstein.data.scenes import Scene, render, sample_scene
from ornstein.diffusion import DDIM
from ornstein.evaluation import Rate, paired_bootstrap
from ornstein.hub import find_checkpoint
from ornstein.images import (
    Estimate,
    Extractor,
    align,
    diversity,
    kernel_distance,
    kernel_distance_change,
    read,
    usual_bandwidth,
    vendi_score,
)
from ornstein.training import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict
    from ornstein.images import EmojiJudge, Features, TextToImagePipeline
    from ornstein.images.settings import SamplerName

EVALUATION_SEED = 4_000_009
STEPS = (1, 2, 4, 8, 16, 50)
_LEVEL = 0.05
#: "Keeps what many steps bring": at most this share of the pictures less is right.
_NEAR = 0.05
_GAN = "modern GAN, one step by nature"
_TEACHER = "teacher, 50 steps"


def refinement_and_distillation(folder: Path, quick: bool) -> Outcome:
    """D9. The contest's diffusion and GAN with all of the recipes' steps, and a student of the shipped model."""
    import ornstein

    judge = ornstein.load("emoji-classifier", expect="emoji-classifier")
    extractor = Extractor.of_judge(judge)
    refined, rows = _refined(folder, quick, extractor)
    teacher = ornstein.load("text-to-image", expect="text-to-image")
    students, slowest = _students(teacher, folder, quick, judge, extractor)
    parts = judge_refinement(refined) | judge_students(students)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items()),
        (*refined.measures(), *_measures_of(students, slowest)),
        SEEDS[:2] if quick else SEEDS,
        {
            "Kernel distance × 1000 of icons against steps": _curve(refined),
            f"Icons of one noise, from top to bottom: {', '.join(rows)}": np.concatenate(list(rows.values())),
            f"Twelve captions, from top to bottom: {', '.join(students)}": np.concatenate(
                [one.first for one in students.values()]
            ),
        },
        {
            "evaluation_seed": EVALUATION_SEED,
            "near": _NEAR,
            "scores": refined.scores,
            "teacher": find_checkpoint("text-to-image").fingerprint,
        },
    )


def judge_refinement(distances: Comparison) -> dict[str, Verdict]:
    """Diffusion with its steps taken away: does it lose, and does it lose its lead over the GAN?"""
    most, one = _in(max(STEPS)), _in(1)

    def over(a: str, b: str) -> Verdict:
        if distances.beats(a, b, _LEVEL):
            return "supported"
        return "refuted" if distances.beats(b, a, _LEVEL) else "cannot tell"

    return {
        f"{max(STEPS)} steps draw better than one": over(most, one),
        f"with {max(STEPS)} steps diffusion beats the GAN": over(most, _GAN),
        "in one step it does not": over(_GAN, one),
    }


@dataclass(frozen=True)
class Student:
    """What one way of drawing brings.

    right: bool (n,), whether everything is as the caption says. change: of the kernel distance, less the teacher's. within: mean distance
    of two pictures of one caption. seconds: of a picture drawn alone, the median. first: twelve pictures side by side.
    """

    right: NDArray[np.bool_]
    change: Estimate
    within: float
    vendi: float
    seconds: float
    first: NDArray[np.uint8]

    def loss(self, teacher: Student) -> tuple[float, float]:
        """95 % interval of the share of pictures that the teacher has right beyond this one, over the same captions."""
        rng = np.random.default_rng(EVALUATION_SEED)
        return paired_bootstrap(teacher.right.astype(np.float64), self.right.astype(np.float64), rng)


def judge_students(students: dict[str, Student]) -> dict[str, Verdict]:
    """Each number of steps by itself: as much right as the teacher in 50 guided steps, within 5 % of the pictures."""
    teacher, parts = students[_TEACHER], {}
    for name, one in students.items():
        if name.startswith("student"):
            low, high = one.loss(teacher)
            kept: Verdict = "supported" if high <= _NEAR else "refuted" if low > _NEAR else "cannot tell"
            parts[f"{name}, keep what the teacher gets right"] = kept
    return parts


def _in(steps: int) -> str:
    return f"diffusion, {_steps(steps)}"


def _steps(n: int) -> str:
    return f"{n} step{'s' * (n > 1)}"


def _refined(folder: Path, quick: bool, extractor: Extractor) -> tuple[Comparison, dict[str, NDArray[np.uint8]]]:
    """Kernel distances to fresh real icons over the seeds, and sixteen pictures of the first seed in each way."""
    n, seeds = (24, SEEDS[:2]) if quick else (1000, SEEDS)
    entered = {name: sized(contestants()[name], quick) for name in ("diffusion", "modern GAN")}
    names = icon_names(entered["diffusion"].recipe.names)
    real, again = (extractor.extract(icons(range(n), names=names, seed=EVALUATION_SEED + k)[0]) for k in (0, 1))
    floor = Measure("floor: kernel distance × 1000 of fresh real icons", 1000 * kernel_distance(real, again).value, n=n)
    found = Comparison("on icons", "kernel distance × 1000", floor, len(seeds))
    rows: dict[str, NDArray[np.uint8]] = {}

    def score(name: str, pictures: NDArray[np.uint8]) -> None:
        found.add(name, 1000 * kernel_distance(real, extractor.extract(pictures)).value)
        rows.setdefault(name, np.concatenate(list(pictures[:16].repeat(2, 1).repeat(2, 2)), axis=1))

    for seed in seeds:
        model = unless_diverged(partial(trained, "diffusion", entered["diffusion"], seed, folder))
        for k in STEPS:
            if model is None:
                found.add(_in(k), None)
            else:
                stepper = model.sampler(DDIM, k)
                score(_in(k), _in_parts(partial(model.draw, seed=EVALUATION_SEED + 2, stepper=stepper), n, _in(k)))
        gan = unless_diverged(partial(trained, "modern GAN", entered["modern GAN"], seed, folder))
        if gan is None:
            found.add(_GAN, None)
        else:
            score(_GAN, gan.draw(range(n), seed=EVALUATION_SEED + 2))
    return found, rows


def _in_parts(draw: Any, n: int, name: str, batch: int = 100) -> NDArray[np.uint8]:
    starts = range(0, n, batch)
    return np.concatenate([draw(range(s, min(s + batch, n))) for s in track(iter(starts), len(starts), name)])


class _Way(NamedTuple):
    """A model and how it draws."""

    pipeline: TextToImagePipeline
    steps: int
    guidance: float = 4.0
    sampler: SamplerName = "ddim"

    def pictures(self, captions: list[str], indices: list[int], seed: int, name: str) -> NDArray[np.uint8]:
        latents = self.pipeline.denoise(
            captions,
            indices,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            seed=seed,
            sampler=self.sampler,
            batch_size=16,
            track=lambda items, total: track(items, total, name),
        )
        return self.pipeline.decode(latents, 16)

    def seconds(self, seed: int) -> float:
        """Of one picture drawn alone, with text and decoding."""
        began = time.perf_counter()
        self.pipeline(
            "a red apple on a yellow background",
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            sampler=self.sampler,
            seed=seed,
        )
        return time.perf_counter() - began


def _in_turns(ways: dict[str, _Way], slowest: _Way | None, repeats: int) -> tuple[dict[str, float], float | None]:
    """Median seconds of each way, all in turns, so that whatever else the machine does meets all; the slowest once, in the middle."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    once = None
    for turn in range(repeats + 1):
        for name, way in ways.items():
            seconds = way.seconds(turn)
            if turn:  # the first is a warm-up
                taken[name].append(seconds)
        if slowest is not None and turn == (repeats + 1) // 2:
            once = slowest.seconds(turn)
    return {name: statistics.median(times) for name, times in taken.items()}, once


def _students(
    teacher: TextToImagePipeline, folder: Path, quick: bool, judge: EmojiJudge, extractor: Extractor
) -> tuple[dict[str, Student], float | None]:
    """The teacher and its student, each in several numbers of steps, on the same captions from the same noise; and the seconds of a picture in
    1,000 steps of DDPM.
    """
    import ornstein

    n, prompts, of_each, repeats = (6, 2, 2, 1) if quick else (400, 16, 8, 5)
    student = ornstein.load(_distilled(folder, quick), expect="text-to-image")
    ways = {
        _TEACHER: _Way(teacher, 50),
        "teacher, 4 steps": _Way(teacher, 4),
        **{f"teacher without guidance, {_steps(k)}": _Way(teacher, k, guidance=1.0) for k in (50, 4, 2, 1)},
        **{f"student, {_steps(k)}": _Way(student, k) for k in (4, 2, 1)},
    }
    scenes = [sample_scene(i, seed=EVALUATION_SEED) for i in range(n)]
    real = extractor.extract(np.stack([render(sample_scene(i, seed=EVALUATION_SEED + 1)) for i in range(n)]))
    bandwidth = usual_bandwidth(real)
    few = [sample_scene(i, seed=EVALUATION_SEED + 3).caption for i in range(prompts) for _ in range(of_each)]
    numbers = list(range(of_each)) * prompts
    drawn: dict[str, Features] = {}
    found = {}
    seconds, slowest = _in_turns(ways, None if quick else _Way(teacher, 1000, sampler="ddpm"), repeats)
    for name, way in ways.items():
        pictures = way.pictures([scene.caption for scene in scenes], list(range(n)), EVALUATION_SEED, name)
        drawn[name] = extractor.extract(pictures)
        of_prompts = extractor.extract(way.pictures(few, numbers, EVALUATION_SEED + 3, f"{name}, by caption"))
        found[name] = Student(
            _right(scenes, pictures, judge),
            kernel_distance_change(real, drawn[_TEACHER], drawn[name], bandwidth=bandwidth),
            diversity(of_prompts, few),
            vendi_score(drawn[name]),
            seconds[name],
            np.concatenate(list(pictures[:12]), axis=1),
        )
    return found, slowest


def _distilled(folder: Path, quick: bool) -> Path:
    """The student's run, trained unless it is there; one that was interrupted goes on."""
    from ornstein.recipes.text_to_image_fast import FastTextToImageRecipe, train_text_to_image_fast

    recipe = FastTextToImageRecipe()
    if quick:
        small = replace(recipe.optimization, steps=2, batch_size=8, warmup_steps=0, checkpoint_every=2, preview_every=2)
        recipe = replace(recipe, optimization=small, scenes=64)
    out = folder / f"student-of-{find_checkpoint('text-to-image').fingerprint[:12]}{'-quick' if quick else ''}"
    if not (out / "model" / "config.json").exists():
        train_text_to_image_fast(recipe, out, resume=RunFolder(out).begun)
    return out


def _right(scenes: list[Scene], pictures: NDArray[np.uint8], judge: EmojiJudge) -> NDArray[np.bool_]:
    return np.array([align(scene, reading).all_right for scene, reading in zip(scenes, read(judge, pictures), strict=True)])


def _measures_of(students: dict[str, Student], slowest: float | None) -> list[Measure]:
    """slowest: seconds of the teacher's picture in 1,000 steps of DDPM, where that was timed."""
    found: list[Measure] = []
    teacher = students[_TEACHER]
    if slowest is not None:
        found.append(Measure("time a picture, teacher, 1,000 steps of DDPM, one picture", slowest, unit="s"))
    for name, one in students.items():
        rate, n = Rate(int(one.right.sum()), len(one.right)), len(one.right)
        found.append(Measure(f"everything right, {name}", rate.rate, rate.interval, n))
        if name != _TEACHER:
            low, high = one.loss(teacher)
            mean = float(teacher.right.mean() - one.right.mean())
            found.append(Measure(f"right of the teacher's beyond it, {name}", mean, (low, high), n))
            scaled = [1000 * value for value in (one.change.value, *one.change.interval)]
            found.append(
                Measure(
                    f"farther from real pictures, Gaussian kernel distance × 1000, {name}", scaled[0], (scaled[1], scaled[2]), n
                )
            )
        found.append(Measure(f"Vendi score, {name}", one.vendi, n=n))
        found.append(Measure(f"mean distance of two pictures of one caption, {name}", one.within))
        found.append(Measure(f"time a picture, {name}", 1000 * one.seconds, unit="ms"))
        if slowest is not None:
            found.append(Measure(f"times faster than 1,000 steps of DDPM, {name}", slowest / one.seconds))
    return found


def _curve(refined: Comparison) -> NDArray[np.uint8]:
    means = {name: float(np.mean(scores)) for name, scores in refined.scores.items() if scores}
    curves = {"diffusion (DDIM)": (np.array(STEPS, dtype=np.float64), np.array([means.get(_in(k), np.nan) for k in STEPS]))}
    if _GAN in means:
        curves["modern GAN"] = (np.array([1.0, max(STEPS)]), np.full(2, means[_GAN]))
    return plot(curves, x="steps", y="kernel distance × 1000", log_x=True)
