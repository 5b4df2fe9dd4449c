"""D5: one model, drawn with DDPM, DDIM and solvers of higher order in 1,000 steps down to 5: quality, diversity, time, marginals."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ornstein.claims.contest import contestants, sized, trained
from ornstein.claims.drawing import plot
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.claims.predictions import sliced_wasserstein
from ornstein.claims.small_models import mixture
from ornstein.core.progress import track
from ornstein.data.icons import icon_names, icons
from ornstein.diffusion import DDIM, DDPM, DPMSolverPP2M, DPMSolverPP2MSDE, DPMSolverPP3M, KeyedNoise, NoiseSchedule, Sampler
from ornstein.images import (
    Estimate,
    Extractor,
    kernel_distance,
    kernel_distance_change,
    manifold_scores,
    usual_bandwidth,
)
from ornstein.networks.weight_files import weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict
    from ornstein.images import Features, PixelDiffusion

EVALUATION_SEED = 4_000_005
#: "Nearly equal": this share of the kernel distance of 1,000-step DDPM.
_NEAR = 0.05
_BATCH, _TIMED = 100, 20


class Way(NamedTuple):
    """A sampler with its settings, and the numbers of steps to take."""

    sampler: type[Sampler]
    settings: dict[str, Any]
    steps: tuple[int, ...]


_FEW = (5, 10, 20, 50, 100)
WAYS: dict[str, Way] = {
    "DDPM": Way(DDPM, {}, (*_FEW, 1000)),
    "DDPM, variance β": Way(DDPM, {"variance": "large"}, (*_FEW, 1000)),
    "DDIM": Way(DDIM, {}, _FEW),
    "DDIM, η = 0.5": Way(DDIM, {"eta": 0.5}, _FEW),
    "DPM-Solver++ 2M": Way(DPMSolverPP2M, {}, _FEW[:4]),
    "DPM-Solver++ 2M SDE": Way(DPMSolverPP2MSDE, {}, _FEW[:4]),
    "DPM-Solver++ 3M": Way(DPMSolverPP3M, {}, _FEW[:4]),
}


class Drawn(NamedTuple):
    """What came of one way with one number of steps."""

    features: Features
    distance: Estimate
    coverage: float
    milliseconds: float
    first: NDArray[np.uint8]


def fewer_steps(folder: Path, quick: bool) -> Outcome:
    """D5. The contest's diffusion model, trained with seed 0, draws the same numbers in every way; then the marginals on a mixture."""
    import ornstein

    n = 24 if quick else 1000
    entered = sized(contestants()["diffusion"], quick)
    model = trained("diffusion", entered, 0, folder)
    extractor = Extractor.of_judge(ornstein.load("emoji-classifier", expect="emoji-classifier"))
    names = icon_names(entered.recipe.names)
    real, again = (extractor.extract(icons(range(n), names=names, seed=EVALUATION_SEED + k)[0]) for k in (0, 1))
    bandwidth = usual_bandwidth(real)
    ways = {name: way._replace(steps=(2, 4) if quick else way.steps) for name, way in WAYS.items()}
    most = max(ways["DDPM"].steps)
    drawn = {
        (name, k): _draw(model, way, k, n, name, extractor, real, bandwidth, folder)
        for name, way in ways.items()
        for k in way.steps
    }
    reference = drawn["DDPM", most]
    changes = {
        key: kernel_distance_change(real, reference.features, one.features, bandwidth=bandwidth) for key, one in drawn.items()
    }
    spread = spread_change(reference.features, drawn["DDIM", 4 if quick else 50].features)
    laws, law_floor = _marginals(quick)
    parts = judge_parts(reference.distance.value, changes, spread, laws, law_floor)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items()),
        (
            *(_distance_measure(f"kernel distance, {name}, {k} steps", one.distance, n) for (name, k), one in drawn.items()),
            _distance_measure("floor: kernel distance of fresh real icons", kernel_distance(real, again, bandwidth=bandwidth), n),
            *(
                _distance_measure(f"farther than DDPM in {most}: {name}, {k} steps", change, n)
                for (name, k), change in changes.items()
                if (name, k) != ("DDPM", most)
            ),
            *(Measure(f"coverage, {name}, {k} steps", one.coverage, n=n) for (name, k), one in drawn.items()),
            Measure("floor: coverage of fresh real icons", manifold_scores(real, again).coverage, n=n),
            Measure("mean distance of two pictures, DDIM less DDPM", spread.value, spread.interval, n),
            *(Measure(f"time a picture, {name}, {k} steps", one.milliseconds, unit="ms") for (name, k), one in drawn.items()),
            *(Measure(f"mixture: sliced Wasserstein distance, {name}", value) for name, value in laws.items()),
            Measure("floor: the largest of twenty fresh samples", law_floor),
        ),
        (0,),
        {
            "Kernel distance × 1000 against steps": _curves(ways, drawn),
            f"From top to bottom: {', '.join(_shown(drawn, quick))}": np.concatenate(list(_shown(drawn, quick).values())),
        },
        {
            "evaluation_seed": EVALUATION_SEED,
            "pictures": n,
            "near": _NEAR,
            "batch": _BATCH,
            "kernel": f"Gaussian, σ = {bandwidth:.4g}",
        },
    )


def judge_parts(
    distance: float, changes: dict[tuple[str, int], Estimate], spread: Estimate, laws: dict[str, float], law_floor: float
) -> dict[str, Verdict]:
    """Four statements. `changes` are kernel distances less that of DDPM with the most steps, which is `distance`."""

    def near(change: Estimate) -> Verdict:
        low, high = change.interval
        return "supported" if high <= _NEAR * distance else "refuted" if low > _NEAR * distance else "cannot tell"

    def positive(change: Estimate) -> Verdict:
        return "supported" if change.interval[0] > 0 else "refuted" if change.interval[1] < 0 else "cannot tell"

    fifty = max(k for name, k in changes if name == "DDIM" and k <= 50)
    twenty = {key: change for key, change in changes.items() if key[1] <= 20}
    best = min(twenty, key=lambda key: twenty[key].value)
    return {
        f"DDIM in {fifty} steps is nearly as good as DDPM in all": near(changes["DDIM", fifty]),
        f"and so is a way of 20 steps or fewer, {best[0]} in {best[1]}": near(twenty[best]),
        f"DDPM in {fifty} steps is worse than in all": positive(changes["DDPM", fifty]),
        "DDIM's pictures are less diverse": positive(Estimate(-spread.value, spread.error)),
        "the marginals are the same for every η": "supported" if max(laws.values()) <= law_floor else "refuted",
    }


def spread_change(before: Features, after: Features) -> Estimate:
    """How much farther apart two pictures of `after` are on average, row by row of one noise; error by the jackknife over rows."""
    means, without = [], []
    for features in (before, after):
        points = torch.from_numpy(features.values)
        sums = torch.cdist(points, points).sum(1).numpy()
        n = len(sums)
        means.append(sums.sum() / (n * (n - 1)))
        without.append((sums.sum() - 2 * sums) / ((n - 1) * (n - 2)))
    change = without[1] - without[0]
    error = float(np.sqrt((len(change) - 1) / len(change) * ((change - change.mean()) ** 2).sum()))
    return Estimate(float(means[1] - means[0]), error)


def _draw(
    model: PixelDiffusion,
    way: Way,
    steps: int,
    n: int,
    name: str,
    extractor: Extractor,
    real: Features,
    bandwidth: float,
    folder: Path,
) -> Drawn:
    """Pictures are kept in `folder`: an interrupted experiment, which takes hours, draws none of them twice."""
    stepper = model.sampler(way.sampler, steps, **way.settings)
    kept = folder / "drawn" / weights_of(model.network) / f"{re.sub('[^a-zA-Z0-9]+', '-', name).strip('-')}-{steps}-of-{n}.npy"
    if not kept.exists():
        parts = []
        starts = range(0, n, _BATCH)
        for start in track(iter(starts), len(starts), f"{name}, {steps} steps"):
            numbers = range(start, min(start + _BATCH, n))
            parts.append(model.draw(numbers, seed=EVALUATION_SEED + 2, stepper=stepper, batch_size=_BATCH))
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.concatenate(parts))
        partial.replace(kept)
    pictures = np.load(kept, allow_pickle=False)
    features = extractor.extract(pictures)
    row = np.concatenate(list(pictures[:16].repeat(2, 1).repeat(2, 2)), axis=1)
    return Drawn(
        features,
        kernel_distance(real, features, bandwidth=bandwidth),
        manifold_scores(real, features).coverage,
        _milliseconds(model, stepper, min(n, _TIMED)),
        row,
    )


def _milliseconds(model: PixelDiffusion, stepper: Sampler, n: int) -> float:
    """A picture, in a batch of n; the best of three, so that what else the machine does counts little."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model.draw(range(n), seed=EVALUATION_SEED + 2, stepper=stepper, batch_size=n)
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds) / n


def _marginals(quick: bool) -> tuple[dict[str, float], float]:
    """Distance of samples to a mixture's own, for DDIM with every η under the exact denoiser; and the floor of fresh samples."""
    n, steps, floors = (500, 20, 5) if quick else (8192, 400, 20)
    data, schedule = mixture(), NoiseSchedule.cosine()
    denoiser = data.denoiser(schedule, "v_prediction")
    fresh = [data.sample(n, torch.Generator().manual_seed(EVALUATION_SEED + k)) for k in range(floors + 1)]
    noise = KeyedNoise(EVALUATION_SEED, range(n))
    laws = {}
    for eta in (0.0, 0.5, 1.0):
        stepper = DDIM(schedule, steps, prediction="v_prediction", eta=eta)
        laws[f"η = {eta:g}"] = sliced_wasserstein(stepper.sample(denoiser, noise.initial((2,)).double(), None, noise), fresh[0])
    return laws, max(sliced_wasserstein(other, fresh[0]) for other in fresh[1:])


def _distance_measure(name: str, distance: Estimate, n: int) -> Measure:
    low, high = distance.interval
    return Measure(f"{name}, × 1000", 1000 * distance.value, (1000 * low, 1000 * high), n)


def _curves(ways: dict[str, Way], drawn: dict[tuple[str, int], Drawn]) -> NDArray[np.uint8]:
    curves = {
        name: (np.array(way.steps, dtype=np.float64), np.array([1000 * drawn[name, k].distance.value for k in way.steps]))
        for name, way in ways.items()
    }
    return plot(curves, x="steps", y="kernel distance × 1000", log=all((y > 0).all() for _, y in curves.values()), log_x=True)


def _shown(drawn: dict[tuple[str, int], Drawn], quick: bool) -> dict[str, NDArray[np.uint8]]:
    few, some, most = (2, 4, 4) if quick else (10, 50, 1000)
    chosen = (("DDPM", most), ("DDIM", some), ("DDIM", few), ("DPM-Solver++ 2M", few), ("DDPM", few))
    return {f"{name} in {k}": drawn[name, k].first for name, k in chosen}
