"""What does one sampling step cost beside the network? Ours and diffusers' schedulers, interleaved in one process.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/overhead.py

Writes benchmarks/results/overhead.json. The denoiser returns a tensor that is already there, so that what is left is the sampler:
for diffusers the call of `step`, for ours a whole turn of the loop, its check for numbers that are not finite included. Random
numbers are drawn by each library's own means. Coefficients are made anew by neither: both are set up once.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import torch
from record import RESULTS, write

from ornstein.diffusion import (
    DDIM,
    DDPM,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Heun,
    KeyedNoise,
    NoiseSchedule,
    Sampler,
)

STEPS, PAIRS, WARM = 50, 60, 5
SHAPES = {"action chunk 1×16×7": (1, 16, 7), "latent 1×4×16×16": (1, 4, 16, 16)}
SCHEDULE = NoiseSchedule.linear()


def ours(sampler: Sampler, shape: tuple[int, ...]) -> Callable[[], float]:
    start, answer = torch.randn(shape), torch.randn(shape) * 0.1
    source = KeyedNoise(0, range(shape[0]))

    def run() -> float:
        began = time.perf_counter()
        for _ in sampler.iterate(lambda x, t, c: answer, start, None, source):
            pass
        return (time.perf_counter() - began) / sampler.num_steps

    return run


def theirs(scheduler: Any, shape: tuple[int, ...]) -> Callable[[], float]:
    start, answer = torch.randn(shape), torch.randn(shape) * 0.1
    generator = torch.Generator().manual_seed(0)
    extra = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}

    def run() -> float:
        scheduler.set_timesteps(STEPS)
        times, x = list(scheduler.timesteps), start
        began = time.perf_counter()
        for t in times:
            x = scheduler.step(answer, t, x, **extra).prev_sample
        return (time.perf_counter() - began) / STEPS

    return run


def arithmetic(shape: tuple[int, ...]) -> Callable[[], float]:
    """The two multiplications and the addition that any first-order step needs, twice: x̂_0, then x."""
    x, answer = torch.randn(shape), torch.randn(shape) * 0.1

    def run() -> float:
        began = time.perf_counter()
        y = x
        for _ in range(STEPS):
            x_0 = torch.add(y * 0.9, answer, alpha=-0.3)
            y = torch.add(y * 0.99, x_0, alpha=0.01)
        return (time.perf_counter() - began) / STEPS

    return run


def pairs() -> dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]]:
    """By name: our sampler, and diffusers' for the same method, if it has one."""
    import diffusers

    plain = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    return {
        "DDIM": (DDIM, lambda: diffusers.DDIMScheduler(clip_sample=False, **plain)),
        "DDPM": (DDPM, lambda: diffusers.DDPMScheduler(clip_sample=False, **plain)),
        "DPM-Solver++ 2M": (DPMSolverPP2M, lambda: diffusers.DPMSolverMultistepScheduler(**plain)),
        "DPM-Solver++ 2M SDE": (
            DPMSolverPP2MSDE,
            lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **plain),
        ),
        "DPM-Solver++ 3M": (DPMSolverPP3M, lambda: diffusers.DPMSolverMultistepScheduler(solver_order=3, **plain)),
        "UniPC (ours: 3M)": (DPMSolverPP3M, lambda: diffusers.UniPCMultistepScheduler(**plain)),
        "Heun": (Heun, None),
    }


def growth(sampler: type[Sampler]) -> dict[str, int]:
    """Peak bytes that Python's allocator sees in a run of 50 and of 500 steps: tensors' own memory is not in it."""
    found = {}
    for steps in (50, 500):
        run = ours(sampler(SCHEDULE, steps, prediction="v_prediction"), (1, 4, 16, 16))
        run()
        tracemalloc.start()
        run()
        found[str(steps)] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def main() -> None:
    """Measure and write."""
    warnings.simplefilter("ignore")
    measured: dict[str, Any] = {}
    for shape_name, shape in SHAPES.items():
        rows: dict[str, Any] = {}
        for name, (sampler, scheduler) in pairs().items():
            mine = ours(sampler(SCHEDULE, STEPS, prediction="v_prediction"), shape)
            other = theirs(scheduler(), shape) if scheduler else arithmetic(shape)
            times = [(mine(), other()) for _ in range(WARM + PAIRS)][WARM:]
            ratios = sorted(a / b for a, b in times)
            rows[name] = {
                "ours_us": 1e6 * statistics.median(a for a, _ in times),
                ("diffusers_us" if scheduler else "arithmetic_us"): 1e6 * statistics.median(b for _, b in times),
                "ratio_median": statistics.median(ratios),
                "ratio_quartiles": [ratios[PAIRS // 4], ratios[3 * PAIRS // 4]],
                "pairs": PAIRS,
            }
        bare = arithmetic(shape)
        rows["arithmetic alone"] = {"us": 1e6 * statistics.median(bare() for _ in range(PAIRS))}
        measured[shape_name] = rows
    write(RESULTS / "overhead.json", {"steps": STEPS, "overhead": measured, "peak_python_bytes_ddim": growth(DDIM)})


if __name__ == "__main__":
    main()
