"""D8: diffusion, a modern and a classical GAN, and a VAE on the same icons, with as many parameters and as much arithmetic.

What the field says is five things; each is judged by itself over the seeds, and the row's verdict follows from all of them.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from ornstein.claims.arithmetic import count_flops
from ornstein.claims.comparison import Comparison, unless_diverged
from ornstein.claims.likelihoods import likelihoods
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.data.icons import icon_names, icons
from ornstein.data.pictures import contact_sheet
from ornstein.images import Extractor, frechet_distance, kernel_distance, manifold_scores
from ornstein.recipes import pixels
from ornstein.training import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict
    from ornstein.images import EmojiJudge, Features

SEEDS = (0, 1, 2)
EVALUATION_SEED = 4_000_008
GANS = ("modern GAN", "classical GAN")
#: A picture counts as an icon of a kind where the judge is at least this sure of the name.
_SURE = 0.5
_LEVEL = 0.05
#: Of the recipes' steps: twelve trainings take two hours on one core this way.
_SHARE = 0.5


class Contestant(NamedTuple):
    """A recipe and what trains it."""

    recipe: Any
    train: Callable[..., Any]


def contestants(share: float = 1.0) -> dict[str, Contestant]:
    """By name, with the recipes' own settings and this share of their steps."""
    entered = {
        "diffusion": Contestant(pixels.DDPMPixelsRecipe(), pixels.train_ddpm_pixels),
        "modern GAN": Contestant(pixels.GANRecipe(), pixels.train_gan),
        "classical GAN": Contestant(pixels.DCGANRecipe(), pixels.train_dcgan),
        "VAE": Contestant(pixels.VAERecipe(), pixels.train_vae),
    }
    return {name: one._replace(recipe=_shortened(one.recipe, share)) for name, one in entered.items()}


def _shortened(recipe: Any, share: float) -> Any:
    optimization = recipe.optimization
    return replace(recipe, optimization=replace(optimization, steps=round(share * optimization.steps)))


def diffusion_gan_vae(folder: Path, quick: bool) -> Outcome:
    """D8. Three trainings of each; pictures scored against fresh real ones, timed in turns, and their likelihood where there is one."""
    seeds, n = (SEEDS[:2], 30) if quick else (SEEDS, 2000)
    entered = {name: sized(one, quick) for name, one in contestants(_SHARE).items()}
    judge = _judge()
    truth = _Truth.of(n, entered["diffusion"].recipe, judge)
    comparisons = _comparisons(truth, len(seeds))
    models: dict[str, list[Any]] = {name: [] for name in entered}
    sheets: dict[str, NDArray[np.uint8]] = {}
    for seed in seeds:
        for name, one in entered.items():
            figures = unless_diverged(partial(_run, name, one, seed, folder, truth, judge, models, sheets))
            for quality, comparison in comparisons.items():
                comparison.add(name, None if figures is None else figures[quality])
    milliseconds = _time({name: made[0] for name, made in models.items() if made}, quick)
    bits = likelihoods(models, truth.pictures, truth.fresh_seed, quick=quick)
    costs = {name: _cost(one) for name, one in entered.items()}
    parts = judge_parts(comparisons, milliseconds)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items())
        + "; a VAE's likelihood is not exact: it has a bound, which more samples tighten",
        (
            # Runs that diverged are the same for every figure: once is enough.
            *{measure.name: measure for comparison in comparisons.values() for measure in comparison.measures()}.values(),
            *(Measure(f"time a picture, {name}", value, unit="ms") for name, value in milliseconds.items()),
            *bits,
            *(Measure(f"parameters, {name}", cost[0], unit="million") for name, cost in costs.items()),
            *(Measure(f"arithmetic of a training, {name}", cost[1], unit="TFLOP") for name, cost in costs.items()),
        ),
        seeds,
        {f"From top to bottom: {', '.join([*sheets, 'real'])}": np.concatenate([*sheets.values(), _sheet(truth.pictures)])},
        {
            "evaluation_seed": EVALUATION_SEED,
            "pictures": n,
            "kinds": len(truth.names) * 12,
            "features": f"{truth.features.extractor}; {truth.features.resize}",
            "scores": {quality: comparison.scores for quality, comparison in comparisons.items()},
        },
    )


def judge_parts(comparisons: dict[str, Comparison], milliseconds: dict[str, float]) -> dict[str, Verdict]:
    """Five statements, each supported, refuted or open. 5 % shared among the rivals of each."""
    distance, coverage, sharpness = (comparisons[name] for name in ("kernel distance", "coverage", "sharpness"))

    def over(comparison: Comparison, winner: str, losers: tuple[str, ...]) -> Verdict:
        level = _LEVEL / len(losers)
        if any(comparison.beats(loser, winner, level) for loser in losers):
            return "refuted"
        return "supported" if all(comparison.beats(winner, loser, level) for loser in losers) else "cannot tell"

    parts: dict[str, Verdict] = {
        "diffusion has the best quality": over(distance, "diffusion", (*GANS, "VAE")),
        "diffusion covers more than the GANs": over(coverage, "diffusion", GANS),
        "the GANs' training is less stable": _less_stable(distance),
        "GAN and VAE draw faster": "cannot tell",
        "a VAE's pictures are blurred": "cannot tell",
    }
    if {"diffusion", *GANS, "VAE"} <= milliseconds.keys():
        slowest = max(milliseconds[name] for name in (*GANS, "VAE"))
        parts["GAN and VAE draw faster"] = "supported" if slowest < milliseconds["diffusion"] else "refuted"
    if all(sharpness.beats(name, "VAE", _LEVEL / 2) for name in ("diffusion", "modern GAN")):
        parts["a VAE's pictures are blurred"] = "supported"
    elif sharpness.beats("VAE", "diffusion", _LEVEL / 2):
        parts["a VAE's pictures are blurred"] = "refuted"
    return parts


def _less_stable(distance: Comparison) -> Verdict:
    """More failed runs, or a larger spread of log distance than diffusion's (F-test, one-sided)."""
    failed = {name: distance.runs - len(scores) for name, scores in distance.scores.items()}
    if any(failed[name] for name in GANS) and not failed["diffusion"]:
        return "supported"
    if failed["diffusion"] or any(min(distance.scores[name]) <= 0 for name in ("diffusion", *GANS)):
        return "cannot tell"
    spreads = {name: float(np.var(np.log(distance.scores[name]), ddof=1)) for name in ("diffusion", *GANS)}
    freedom = distance.runs - 1
    tails = {name: float(stats.f.sf(spreads[name] / max(spreads["diffusion"], 1e-12), freedom, freedom)) for name in GANS}
    if max(tails.values()) < _LEVEL:
        return "supported"
    return "refuted" if min(tails.values()) > 1 - _LEVEL else "cannot tell"


@dataclass(frozen=True)
class _Truth:
    """Fresh real icons, and a second set of as many that says how far two such sets are apart."""

    names: tuple[str, ...]
    pictures: NDArray[np.uint8]
    features: Features
    floor: dict[str, float]
    extractor: Extractor
    fresh_seed: int = EVALUATION_SEED

    @classmethod
    def of(cls, n: int, recipe: Any, judge: EmojiJudge) -> _Truth:
        names, extractor = icon_names(recipe.names), Extractor.of_judge(judge)
        sets = [icons(range(n), names=names, seed=EVALUATION_SEED + k, resolution=recipe.network.resolution)[0] for k in (0, 1)]
        features = extractor.extract(sets[0])
        floor = _figures(sets[1], features, sets[0], names, judge, extractor)
        return cls(names, sets[0], features, floor, extractor)


def _comparisons(truth: _Truth, runs: int) -> dict[str, Comparison]:
    n = len(truth.pictures)
    return {
        quality: Comparison(
            "on icons", quality, Measure(f"floor: {quality} of fresh real icons", value, n=n), runs,
            more_is_better=not quality.endswith("distance"),
        )
        for quality, value in truth.floor.items()
    }  # fmt: skip


def _figures(
    drawn: NDArray[np.uint8],
    real: Features,
    pictures: NDArray[np.uint8],
    names: tuple[str, ...],
    judge: EmojiJudge,
    extractor: Extractor,
) -> dict[str, float]:
    """Every figure of a set of drawn pictures; the Fréchet distance only where there are enough of them."""
    features = extractor.extract(drawn)
    found = {"kernel distance": 1000 * kernel_distance(real, features).value}
    if len(drawn) > features.values.shape[1]:
        found["Fréchet distance"] = frechet_distance(real, features)
    scores = manifold_scores(real, features)
    found |= {"precision": scores.precision, "recall": scores.recall, "density": scores.density, "coverage": scores.coverage}
    large = drawn.repeat(128 // drawn.shape[1], 1).repeat(128 // drawn.shape[1], 2)
    verdicts, grounds = judge.verdicts(large), judge.backgrounds(large)
    named = [v.ranking[0] in names and v.probability >= _SURE for v in verdicts]
    kinds = {(v.ranking[0], ground) for v, ground, sure in zip(verdicts, grounds, named, strict=True) if sure}
    found["share recognised"] = float(np.mean(named))
    found["kinds found"] = float(len(kinds))
    found["sharpness"] = _roughness(drawn) / _roughness(pictures)
    return found


def _roughness(pictures: NDArray[np.uint8]) -> float:
    """Mean absolute second difference of the grey picture: what blur takes away first."""
    grey = pictures.mean(-1)
    laplacian = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    return float(np.abs(laplacian).mean())


def trained(name: str, one: Contestant, seed: int, folder: Path) -> Any:
    """The model of one run in `folder/runs`, trained there unless it is there already.

    The run's folder says by which recipe, so that a claim that was interrupted goes on where it stood and never takes another's run.
    """
    import ornstein

    recipe = replace(one.recipe, data_seed=seed, optimization=replace(one.recipe.optimization, seed=seed))
    stamp = hashlib.sha256(json.dumps(asdict(recipe), default=str).encode()).hexdigest()[:8]
    out = folder / "runs" / f"{name.replace(' ', '-')}-{seed}-{stamp}"
    if not (out / "model" / "config.json").exists():
        one.train(recipe, out, resume=RunFolder(out).begun)
    return ornstein.load(out)


def _run(
    name: str,
    one: Contestant,
    seed: int,
    folder: Path,
    truth: _Truth,
    judge: EmojiJudge,
    models: dict[str, list[Any]],
    sheets: dict[str, NDArray[np.uint8]],
) -> dict[str, float]:
    """Train, draw, score; the model joins `models`, and the first of each method `sheets`."""
    model = trained(name, one, seed, folder)
    drawn = model.draw(range(len(truth.pictures)), seed=EVALUATION_SEED + 2)
    models[name].append(model)
    sheets.setdefault(name, _sheet(drawn))
    return _figures(drawn, truth.features, truth.pictures, truth.names, judge, truth.extractor)


def _sheet(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two rows of twelve, each pixel twice as large."""
    return np.asarray(contact_sheet(pictures[:24].repeat(2, 1).repeat(2, 2), columns=12))


def _time(models: dict[str, Any], quick: bool) -> dict[str, float]:
    """Median milliseconds a picture in batches of 64, the methods in turns."""
    rounds, batch = (1, 4) if quick else (7, 64)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model.draw(range(batch), seed=turn, batch_size=batch)
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(times[1:]) / batch for name, times in seconds.items()}


def _cost(one: Contestant) -> tuple[float, float]:
    """Millions of parameters, and TFLOP of the whole training, counted on one batch of two."""
    network, loss_fn = one.recipe.objective()
    pictures, _ = icons(range(2), names=icon_names(1), resolution=one.recipe.network.resolution)
    batch = {"pixels": torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1}

    def step() -> None:
        result = loss_fn(network, batch, torch.Generator())
        (result[0] if isinstance(result, tuple) else result).backward()

    a_sample = count_flops(step) / 2
    settings = one.recipe.optimization
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters / 1e6, a_sample * settings.steps * settings.batch_size / 1e12


def _judge() -> EmojiJudge:
    import ornstein

    return ornstein.load("emoji-classifier", expect="emoji-classifier")


def sized(one: Contestant, quick: bool) -> Contestant:
    """The contestant as it is, or for a quick run with next to no training."""
    if not quick:
        return one
    small = replace(one.recipe.optimization, steps=2, batch_size=4, warmup_steps=0, checkpoint_every=2, preview_every=2)
    return one._replace(recipe=replace(one.recipe, optimization=small, names=4))
