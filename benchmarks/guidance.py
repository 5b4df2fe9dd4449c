"""What does guidance really sample? Exact denoisers of a mixture, guided, against p(x) p(c | x)^w.

    .venv/bin/python benchmarks/guidance.py

Writes benchmarks/results/guidance.json and docs/guidance.svg. At each noise level the guided score is that of p_t(x) p_t(c | x)^w;
but noising the density p(x) p(c | x)^w does not give those, so the ODE's samples need not follow it. Here everything is exact but
the ODE's steps (Heun, 200), so the distance is guidance's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, write
from scipy.integrate import cumulative_trapezoid

from ornstein.diffusion import ClassifierFreeGuidance, GaussianMixture, Heun, NoiseSchedule

SEED, SAMPLES = 0, 100_000
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 7.5)
SCHEDULE = NoiseSchedule.cosine()
PLACES = torch.linspace(-5, 5, 20_001, dtype=torch.float64)[:, None]


def _mixture(weights: list[float], means: list[float], deviations: list[float]) -> GaussianMixture:
    total = sum(weights)
    return GaussianMixture(
        torch.tensor([w / total for w in weights]),
        torch.tensor(means)[:, None],
        torch.tensor([d**2 for d in deviations])[:, None, None],
    )


#: The class has two modes, one of them shared with the rest of the data; the prior of the class is a half.
CLASS = _mixture([0.5, 0.5], [1.0, -0.2], [0.25, 0.35])
REST = _mixture([0.7, 0.3], [-1.2, -0.1], [0.3, 0.4])
ALL = _mixture([0.25, 0.25, 0.35, 0.15], [1.0, -0.2, -1.2, -0.1], [0.25, 0.35, 0.3, 0.4])


def sharpened(scale: float) -> np.ndarray:
    """p(x) p(c | x)^w / Z at `PLACES`, by quadrature."""
    log = (1 - scale) * ALL.log_prob(PLACES) + scale * CLASS.log_prob(PLACES)
    density = torch.exp(log - log.max())
    return (density / torch.trapezoid(density, PLACES[:, 0])).numpy()


def guided(scale: float) -> np.ndarray:
    """Samples of the guided ODE, from exact conditional and unconditional denoisers."""
    given, without = (data.denoiser(SCHEDULE, "v_prediction") for data in (CLASS, ALL))

    def both(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return torch.where(condition[:, None] > 0, given(x, t), without(x, t))

    denoiser = ClassifierFreeGuidance(both, scale, torch.zeros(1))
    start = torch.randn(SAMPLES, 1, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    sampler = Heun(SCHEDULE, 200, prediction="v_prediction", spacing="log_snr")
    return sampler.sample(denoiser, start, torch.ones(SAMPLES)).flatten().numpy()


def kolmogorov(samples: np.ndarray, density: np.ndarray) -> float:
    """The largest distance between the samples' distribution function and the density's."""
    places = PLACES[:, 0].numpy()
    exact = np.interp(np.sort(samples), places, cumulative_trapezoid(density, places, initial=0))
    ranks = np.arange(1, len(samples) + 1) / len(samples)
    return float(max(np.abs(exact - ranks).max(), np.abs(exact - ranks + 1 / len(samples)).max()))


def figure(drawn: dict[float, np.ndarray], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ornstein"
    from matplotlib import pyplot as plt

    fig, panels = plt.subplots(2, 3, figsize=(11, 5.2), sharex=True, layout="constrained")
    edges = np.linspace(-2.5, 2.5, 126)
    for axes, (scale, samples) in zip(panels.flat, drawn.items(), strict=True):
        axes.hist(samples, edges, density=True, color="#9db4ff", label="what guidance samples")
        axes.plot(PLACES, sharpened(scale), color="#b3382c", linewidth=1.3, label="p(x) p(c | x)^w")
        axes.set(title=f"w = {scale:g}", xlim=(-2.5, 2.5), yticks=[])
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[1, 2].legend(frameon=False, fontsize=8, loc="upper left")
    fig.savefig(out, metadata={"Date": None})
    plt.close(fig)


def main() -> None:
    """Measure, write and draw."""
    drawn = {scale: guided(scale) for scale in SCALES}
    places = PLACES[:, 0].numpy()
    rows: dict[str, Any] = {}
    for scale, samples in drawn.items():
        density = sharpened(scale)
        mean = np.trapezoid(places * density, places)
        rows[f"{scale:g}"] = {
            "kolmogorov_distance": kolmogorov(samples, density),
            "std_sampled": float(samples.std()),
            "std_of_p(x)p(c|x)^w": float(np.sqrt(np.trapezoid((places - mean) ** 2 * density, places))),
            "mean_sampled": float(samples.mean()),
            "mean_of_p(x)p(c|x)^w": float(mean),
        }
    figure(drawn, Path(__file__).resolve().parents[1] / "docs" / "guidance.svg")
    # Under the hypothesis of no difference the distance exceeds this in five cases of a hundred (Kolmogorov).
    write(
        RESULTS / "guidance.json",
        {"samples": SAMPLES, "seed": SEED, "critical_distance_5_percent": 1.358 / SAMPLES**0.5, "by_scale": rows},
    )


if __name__ == "__main__":
    main()
