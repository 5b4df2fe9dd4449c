"""How fast does each sampler converge? Error against number of evaluations on a mixture, against its exact flow.

    .venv/bin/python benchmarks/convergence.py

Writes benchmarks/results/convergence.json and docs/convergence.svg. The observed order is the slope of log error over log step,
per starting point, with a bootstrap interval over starting points. Stochastic samplers have no path to compare: for them the error
is that of the law, of a Gaussian's variance, which is exact there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, write

from ornstein.diffusion import (
    DDIM,
    DDPM,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Euler,
    Gaussian,
    GaussianMixture,
    Heun,
    NoiseSchedule,
    Sampler,
)

SEED, STARTS, END = 0, 64, 20.0
SCHEDULE = NoiseSchedule.linear()
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.stack([0.2 * torch.eye(2), 0.4 * torch.eye(2)])
)
SAMPLERS: dict[str, tuple[type[Sampler], int]] = {
    "DDIM (η = 0)": (DDIM, 1),
    "Euler": (Euler, 1),
    "Heun": (Heun, 2),
    "DPM-Solver++ 2M": (DPMSolverPP2M, 2),
    "DPM-Solver++ 3M": (DPMSolverPP3M, 3),
}
STEPS = (5, 10, 20, 40, 80, 160, 320)
FITTED = (80, 160, 320)


def errors_of(kind: type[Sampler], n: int, start: torch.Tensor, exact: torch.Tensor) -> tuple[np.ndarray, int]:
    """Distance of each end from the exact one, and how often the denoiser was called."""
    calls = 0
    exact_denoiser = MIXTURE.denoiser(SCHEDULE, "v_prediction")

    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return exact_denoiser(x, t)

    found = kind(SCHEDULE, n, prediction="v_prediction", spacing="log_snr", end=END).sample(denoiser, start)
    return (found - exact).norm(dim=1).numpy(), calls


def observed_order(errors: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """errors: (steps, starts). The slope of the root mean square over `FITTED`, and its interval over resampled starts."""
    rows = [STEPS.index(n) for n in FITTED]

    def slope(columns: np.ndarray) -> float:
        rms = np.sqrt((errors[rows][:, columns] ** 2).mean(1))
        return float(-np.polyfit(np.log(FITTED), np.log(rms), 1)[0])

    resampled = [slope(rng.integers(errors.shape[1], size=errors.shape[1])) for _ in range(2000)]
    return {"order": slope(np.arange(errors.shape[1])), "ci95": np.percentile(resampled, [2.5, 97.5]).tolist()}


def error_of_law(kind: type[Sampler], n: int, settings: dict[str, Any], variance: float = 0.3) -> float:
    """|variance − exact| of a stochastic sampler's output for N(0, `variance`) data, where every step is linear."""
    gaussian = Gaussian(torch.zeros(1), torch.tensor([[variance]]))

    class Units:
        def at(self, step: int, shape: Any) -> torch.Tensor:
            return (torch.arange(n + 1) == step + 1).double()[:, None]

    start = torch.zeros(n + 1, 1, dtype=torch.float64)
    start[0] = 1.0
    sampler = kind(SCHEDULE, n, prediction="v_prediction", spacing="log_snr", end=END, **settings)
    responses = sampler.sample(gaussian.denoiser(SCHEDULE, "v_prediction"), start, None, Units())
    level = SCHEDULE.level(END)
    return abs(float(responses.square().sum()) - (level.alpha**2 * variance + level.sigma**2))


def figure(curves: dict[str, Any], laws: dict[str, Any], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ornstein"
    from matplotlib import pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), sharex=True, layout="constrained")
    for marker, (name, row) in zip("osD^v", curves.items(), strict=True):
        label = f"{name}: order {row['order']:.2f}"
        left.loglog(row["evaluations"], row["rms_error"], marker=marker, markersize=4, linewidth=1.4, label=label)
    left.set(
        title="Deterministic: distance from the exact flow", xlabel="evaluations of the denoiser", ylabel="root mean square error"
    )
    for marker, (name, row) in zip("osD^v", laws.items(), strict=False):
        right.loglog(STEPS, row["variance_error"], marker=marker, markersize=4, linewidth=1.4, label=name)
    right.set(title="Stochastic: error of the variance, Gaussian data", xlabel="evaluations of the denoiser")
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
        axes.grid(visible=True, which="major", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(out, metadata={"Date": None})
    plt.close(fig)


def main() -> None:
    """Measure, write and draw."""
    rng = torch.Generator().manual_seed(SEED)
    start = torch.randn(STARTS, 2, generator=rng, dtype=torch.float64)
    exact = MIXTURE.flow(start, SCHEDULE, SCHEDULE.num_steps, END, tolerance=1e-12)
    curves = {}
    for name, (kind, order) in SAMPLERS.items():
        runs = [errors_of(kind, n, start, exact) for n in STEPS]
        errors = np.stack([error for error, _ in runs])
        fitted = observed_order(errors, np.random.default_rng(SEED))
        curves[name] = {
            "theory": order,
            **fitted,
            "steps": list(STEPS),
            "evaluations": [calls for _, calls in runs],
            "rms_error": np.sqrt((errors**2).mean(1)).tolist(),
        }
    stochastic: dict[str, tuple[type[Sampler], dict[str, Any]]] = {
        "DDPM, small variance": (DDPM, {"variance": "small"}),
        "DDPM, large variance": (DDPM, {"variance": "large"}),
        "DDIM (η = 0.5)": (DDIM, {"eta": 0.5}),
        "DPM-Solver++ 2M, SDE": (DPMSolverPP2MSDE, {}),
    }
    laws = {name: {"variance_error": [error_of_law(kind, n, s) for n in STEPS]} for name, (kind, s) in stochastic.items()}
    for row in laws.values():
        last = [row["variance_error"][STEPS.index(n)] for n in FITTED]
        row["order"] = [float(-np.polyfit(np.log(FITTED), np.log(last), 1)[0])]
    figure(curves, laws, Path(__file__).resolve().parents[1] / "docs" / "convergence.svg")
    write(
        RESULTS / "convergence.json",
        {
            "settings": {
                "schedule": "linear",
                "end": END,
                "starts": STARTS,
                "seed": SEED,
                "spacing": "log_snr",
                "fitted": list(FITTED),
            },
            "deterministic": curves,
            "stochastic": laws,
            "smallest_double": math.ulp(1.0),
        },
    )


if __name__ == "__main__":
    main()
