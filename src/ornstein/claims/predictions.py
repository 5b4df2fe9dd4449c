"""D2: ε, x_0, v and the score: the same thing at one x_t, and which of them trains best under one budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ornstein.claims.comparison import Comparison, unless_diverged
from ornstein.claims.drawing import film, plot
from ornstein.claims.objective import draw_points
from ornstein.claims.outcome import Measure, Outcome
from ornstein.claims.small_models import PointDenoiser, fit, mixture
from ornstein.core.errors import DivergenceError
from ornstein.core.progress import track
from ornstein.data.scenes import render, sample_scene
from ornstein.diffusion import PREDICTIONS, DPMSolverPP2M, KeyedNoise, NoiseSchedule, convert
from ornstein.images import Extractor, kernel_distance, to_pixels
from ornstein.networks.dit import DiT, DiTConfig, TextCondition
from ornstein.networks.precision import fast_precision
from ornstein.training import Optimization

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ornstein.claims.outcome import Verdict

SEEDS = (0, 1, 2)
EVALUATION_SEED = 4_000_002
_SIDE = 16
_TIMES = (1, 5, 20, 60, 150, 300, 500, 700, 900, 1000)
#: Samples that spread wider than this, where the data's deviation is about 1, are of no use: the run counts as diverged.
_WIDEST = 20.0


def equivalent_and_eps_best(folder: Path, quick: bool) -> Outcome:
    """Exactness of the conversions; then four trainings a seed on a mixture and on small pictures, each on its own plain loss."""
    seeds = SEEDS[:2] if quick else SEEDS
    schedule = NoiseSchedule.linear()
    worst = _worst_conversion(schedule)
    tasks = [on(folder, schedule, seeds, quick) for on in (_on_mixture, _on_pictures)]
    comparisons = [task.comparison for task in tasks]
    verdict, because = judge(comparisons) if worst < 1e-9 else ("refuted", "the conversions are not exact")
    return Outcome(
        verdict,
        because,
        (
            Measure("largest relative error of twelve conversions and back, float64", worst),
            *(measure for comparison in comparisons for measure in comparison.measures()),
        ),
        seeds,
        {title: picture for task in tasks for title, picture in task.pictures.items()},
        {
            "evaluation_seed": EVALUATION_SEED,
            **{task.comparison.where: {**task.settings, "scores": task.comparison.scores} for task in tasks},
        },
    )


def judge(comparisons: list[Comparison]) -> tuple[Verdict, str]:
    """Whether ε trains best: refuted where a rival beats it, supported where it beats all everywhere. 5 % shared among three rivals."""
    rivals = [kind for kind in PREDICTIONS if kind != "epsilon"]
    better, beaten, parts = 0, 0, []
    for comparison in comparisons:
        over = [k for k in rivals if comparison.beats(k, "epsilon", 0.05 / len(rivals))]
        under = [k for k in rivals if comparison.beats("epsilon", k, 0.05 / len(rivals))]
        open_ones = [k for k in rivals if k not in (*over, *under)]
        better, beaten = better + len(over), beaten + len(under)
        words = (("is beaten by", over), ("beats", under), ("is not told from", open_ones))
        parts.append(f"{comparison.where} ε " + " and ".join(f"{verb} {', '.join(names)}" for verb, names in words if names))
    because = "equivalent; " + "; ".join(parts) + " (Welch's test over seeds)"
    if better:
        return "refuted", because
    return ("supported" if beaten == len(rivals) * len(comparisons) else "cannot tell"), because


@dataclass
class _Task:
    """What a task found, with pictures by title and what was set."""

    comparison: Comparison
    settings: dict[str, Any]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def _worst_conversion(schedule: NoiseSchedule) -> float:
    """Over all pairs and times: to the other prediction and back, in units of the largest number."""
    rng = torch.Generator().manual_seed(EVALUATION_SEED)
    t = torch.tensor(_TIMES)
    x_t, given = (torch.randn(len(t), 50, generator=rng, dtype=torch.float64) for _ in range(2))
    alpha, sigma = schedule.alpha_sigma(t, x_t)
    worst = 0.0
    for a in PREDICTIONS:
        for b in PREDICTIONS:
            there = convert(given, a, b, x_t, alpha, sigma)
            back = convert(there, b, a, x_t, alpha, sigma)
            worst = max(
                worst, float(((back - given).abs().amax(1) / torch.maximum(given.abs().amax(1), there.abs().amax(1))).max())
            )
    return worst


def _on_mixture(folder: Path, schedule: NoiseSchedule, seeds: tuple[int, ...], quick: bool) -> _Task:
    steps, n = (40, 300) if quick else (2000, 8192)
    data = mixture()
    real, again = (data.sample(n, torch.Generator().manual_seed(EVALUATION_SEED + k)) for k in (0, 1))
    floor = Measure("floor: sliced Wasserstein distance of two fresh samples", sliced_wasserstein(real, again), n=n)
    comparison = Comparison("on the mixture", "sliced Wasserstein distance on the mixture", floor, len(seeds))
    errors: dict[str, list[NDArray[np.float64]]] = {}

    def score(kind: str, seed: int) -> float:
        model = fit(
            lambda: PointDenoiser(2),
            lambda indices: draw_points(data, indices, seed),
            schedule,
            kind,
            folder / f"d2-mixture-{kind}-{seed}",
            optimization=_optimization(steps, 512, seed, "fp32"),
            name=f"D2 mixture, {kind}, seed {seed}",
        )
        drawn = _draw(model, schedule, kind, (2,), n, 1024)
        errors.setdefault(kind, []).append(_excess_of_x_0(model, data, schedule, kind))
        return sliced_wasserstein(drawn.double(), real)

    for kind in PREDICTIONS:
        for seed in seeds:
            comparison.add(kind, unless_diverged(partial(score, kind, seed)))
    places = np.array(_TIMES, dtype=np.float64)
    figure = plot(
        {kind: (places, np.mean(rows, axis=0)) for kind, rows in errors.items()},
        x="t",
        y="E‖x̂_0 − E[x_0 | x_t]‖² / d",
        log=True,
        bands={kind: (np.min(rows, axis=0), np.max(rows, axis=0)) for kind, rows in errors.items()},
    )
    settings = {"steps": steps, "batch": 512, "samples": n, "sampler": "DPM-Solver++ 2M, 50 steps"}
    return _Task(comparison, settings, {"Mixture: error of x̂_0 beyond the least, by time step": figure})


def _on_pictures(folder: Path, schedule: NoiseSchedule, seeds: tuple[int, ...], quick: bool) -> _Task:
    import ornstein

    steps, n, count = (4, 16, 40) if quick else (1200, 1000, 6000)
    extractor = Extractor.of_judge(ornstein.load("emoji-classifier", expect="emoji-classifier"))
    train, real, again = (_scenes(size, seed) for size, seed in ((count, 0), (n, EVALUATION_SEED), (n, EVALUATION_SEED + 1)))
    features = [extractor.extract(to_pixels(pictures)) for pictures in (real, again)]
    distance = "kernel distance × 1000"
    floor = Measure(f"floor: {distance} of two sets of real pictures", 1000 * kernel_distance(*features).value, n=n)
    comparison = Comparison("on pictures", f"{distance} on pictures", floor, len(seeds))
    shown: dict[str, Tensor] = {}

    def score(kind: str, seed: int) -> float:
        model = fit(
            _PictureDenoiser,
            lambda indices: train[np.random.default_rng([seed, int(indices[0])]).integers(count, size=len(indices))],
            schedule,
            kind,
            folder / f"d2-pictures-{kind}-{seed}",
            optimization=_optimization(steps, 64, seed, "auto"),
            name=f"D2 pictures, {kind}, seed {seed}",
        )
        drawn = _draw(model, schedule, kind, (3, _SIDE, _SIDE), n, 100, clip=1.0)
        shown.setdefault(kind, drawn[:12])
        return 1000 * kernel_distance(features[0], extractor.extract(to_pixels(drawn))).value

    for kind in PREDICTIONS:
        for seed in seeds:
            comparison.add(kind, unless_diverged(partial(score, kind, seed)))
    shown["real"] = real[:12]
    rows = [film([picture.repeat_interleave(4, 1).repeat_interleave(4, 2) for picture in row]) for row in shown.values()]
    settings = {
        "steps": steps, "batch": 64, "samples": n, "training_pictures": count, "side": _SIDE,
        "sampler": "DPM-Solver++ 2M, 50 steps, x_0 clipped to ±1", "features": f"{features[0].extractor}; {features[0].resize}",
    }  # fmt: skip
    return _Task(comparison, settings, {f"Pictures, from top to bottom: {', '.join(shown)}": np.concatenate(rows)})


class _PictureDenoiser(torch.nn.Module):
    """The transformer of the text-to-image model, small, over pixels and without words."""

    def __init__(self) -> None:
        super().__init__()
        self.network = DiT(
            DiTConfig(latent_size=_SIDE, latent_channels=3, patch_size=4, width=192, depth=6, heads=4, text_depth=0)
        )

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.network(x_t, t, TextCondition.empty(len(x_t), 1, x_t.device))


def _optimization(steps: int, batch: int, seed: int, precision: Any) -> Optimization:
    return Optimization(
        steps=steps, batch_size=batch, learning_rate=1e-3, warmup_steps=min(100, steps // 4), ema_decay=0.999, seed=seed,
        checkpoint_every=steps, preview_every=steps, log_every=100, precision=precision,
    )  # fmt: skip


@torch.inference_mode()
def _draw(
    model: nn.Module, schedule: NoiseSchedule, kind: str, shape: tuple[int, ...], n: int, batch: int, clip: float | None = None
) -> Tensor:
    sampler = DPMSolverPP2M(schedule, 50, prediction=kind, clip=clip)
    parts = []
    for start in track(iter(range(0, n, batch)), -(-n // batch), f"drawing, {kind}"):
        noise = KeyedNoise(EVALUATION_SEED, range(start, min(start + batch, n)))
        with fast_precision(torch.device("cpu")):
            parts.append(sampler.sample(model, noise.initial(shape)))
    drawn = torch.cat(parts)
    if not float(drawn.std()) < _WIDEST:
        raise DivergenceError(f"the samples spread by {float(drawn.std()):.3g}")
    return drawn


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 128) -> float:
    """The mean, over directions, of the distance between sorted projections (Rabin et al. 2011), order 2."""
    rng = torch.Generator().manual_seed(EVALUATION_SEED)
    directions = torch.nn.functional.normalize(torch.randn(a.shape[1], projections, generator=rng, dtype=torch.float64), dim=0)
    gaps = (a.double() @ directions).sort(0).values - (b.double() @ directions).sort(0).values
    return float(gaps.square().mean().sqrt())


def _excess_of_x_0(model: nn.Module, data: Any, schedule: NoiseSchedule, kind: str, draws: int = 2000) -> NDArray[np.float64]:
    """E‖x̂_0 − E[x_0 | x_t]‖²/d at `_TIMES`: in the unit of the data, so that the four can be compared."""
    found = []
    for t in _TIMES:
        rng = torch.Generator().manual_seed(EVALUATION_SEED + t)
        x_0 = data.sample(draws, rng)
        steps = torch.full((draws,), t)
        alpha, sigma = schedule.alpha_sigma(steps, x_0)
        x_t = alpha * x_0 + sigma * torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
        with torch.inference_mode():
            guess = convert(model(x_t.float(), steps).double(), kind, "sample", x_t, alpha, sigma)
        found.append(float((guess - data.denoiser(schedule, "sample")(x_t, steps)).square().mean()))
    return np.array(found)


def _scenes(count: int, seed: int) -> Tensor:
    pixels = np.stack([render(sample_scene(i, seed=seed, kind="single", jitter=0.0), _SIDE) for i in range(count)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
