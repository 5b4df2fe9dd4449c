"""Which few-step method, at equal cost? Students of an exact teacher on a mixture whose flow map is known.

    .venv/bin/python benchmarks/distillation.py

Writes benchmarks/results/distillation.json. Every student is the same small network, starts from the same denoiser (trained on the exact
v) and has the same budget in evaluations of a batch, of which a trained one counts three. Measured in 1, 2 and 4 steps: the distance of
each end from where the exact flow carries the same noise, the sliced distance of the samples from the data beside that of two sets of
data, how much weight the modes lose or gain, and how many samples lie in none. Then guidance: a student that is told w against the
exact guided flow.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import few_step_methods as few
import numpy as np
import torch
from few_step_methods import DATA, METHODS, NULL, SCHEDULE, STEPS, PointStudent, Run, T
from record import RESULTS, write
from torch import Tensor

from ornstein.diffusion import DDIM, GaussianMixture, Guided, GuidedTeacher, shortcut_loss, towards

SEEDS = (0, 1, 2)
DRAWN, FOLLOWED = 10_000, 2000
LOWEST_SCALE = 1.0


def drawn(student: Any, x: Tensor, steps: int, condition: Any = None) -> Tensor:
    sampler = DDIM(SCHEDULE, steps, prediction="v_prediction")
    with torch.inference_mode():
        return sampler.sample(towards(student, sampler), x, condition)


class Yardstick:
    """Noise, where the exact flow carries it, and the data."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(77)
        self.noise = torch.randn(DRAWN, 2, generator=rng)
        self.ends = DATA.flow(self.noise[:FOLLOWED].double(), SCHEDULE, T, 0, tolerance=1e-8)
        self.data, self.more = DATA.sample(DRAWN, rng), DATA.sample(DRAWN, rng)
        self.precisions = torch.linalg.inv(DATA.covariances)

    def measure(self, x: Tensor) -> dict[str, float]:
        """rms: of the distance from the exact ends. sliced: 2-Wasserstein distance to data. weights_off: total variation of the modes' weights;
        a sample belongs to the mode that is nearest in its own measure. outside: share further than four deviations from every mode."""
        d = x.double()[:, None] - DATA.means
        distances = torch.einsum("nki,kij,nkj->nk", d, self.precisions, d)
        weights = torch.bincount(distances.argmin(1), minlength=len(DATA.means)) / len(x)
        return {
            "rms": float((x[:FOLLOWED] - self.ends).square().sum(1).mean().sqrt()),
            "sliced": sliced_distance(x, self.data),
            "weights_off": float((weights - DATA.weights).abs().sum() / 2),
            "outside": float((distances.amin(1) > 16).double().mean()),
        }


def sliced_distance(a: Tensor, b: Tensor, slices: int = 64) -> float:
    angles = torch.arange(slices, dtype=torch.float64) * math.pi / slices
    directions = torch.stack([angles.cos(), angles.sin()])
    return float(((a.double() @ directions).sort(0).values - (b.double() @ directions).sort(0).values).square().mean().sqrt())


def students_of(seed: int) -> dict[str, Any]:
    """Every method once, and guidance. One process."""
    torch.set_num_threads(1)
    yardstick = Yardstick()
    starts = {pace: few.prepared(seed, pace) for pace in (1.0, 0.003)}
    rows: dict[str, Any] = {
        "the start, by DDIM": {str(n): yardstick.measure(drawn(starts[1.0], yardstick.noise, n)) for n in (*STEPS, few.FINEST)}
    }
    for name, method in METHODS.items():
        began = time.process_time()
        run, row = few.trained(method, starts[method.pace], seed + 20), {}
        seconds = time.process_time() - began
        for n in STEPS:
            student = run.memory.get("students", {}).get(n, run.average)
            if method.restarts:
                with torch.inference_mode():
                    x = few.draw_restarting(student, yardstick.noise, n, torch.Generator().manual_seed(5))
            else:
                x = drawn(student, yardstick.noise, n)
            row[str(n)] = yardstick.measure(x)
        rows[name] = {**row, "updates": run.updates, "cpu_seconds": seconds}
        print(seed, name, {n: round(row[n]["sliced"], 3) for n in row}, flush=True)
    return {"methods": rows, "guided": guided(starts[1.0], seed + 30)}


def _means(found: list[dict[str, Any]]) -> dict[str, Any]:
    steps = [key for key in found[0] if key.isdigit()]
    return {n: {what: float(np.mean([row[n][what] for row in found])) for what in found[0][n]} for n in steps}


def classes() -> tuple[list[GaussianMixture], Callable[[Tensor, Tensor, Any], Tensor]]:
    """Two classes of modes, and the exact denoiser `(x_t, t, label)`; label `NULL` is the whole mixture."""
    parts = [[0, 1], [2, 3, 4], [0, 1, 2, 3, 4]]
    given = [GaussianMixture(DATA.weights[k] / DATA.weights[k].sum(), DATA.means[k], DATA.covariances[k]) for k in parts]
    denoisers = [each.denoiser(SCHEDULE, "v_prediction") for each in given]

    def denoise(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        every = torch.stack([denoiser(x, t) for denoiser in denoisers])
        return every[label, torch.arange(len(x))]

    return given, denoise


def guided(start: PointStudent, seed: int) -> dict[str, Any]:
    """A student that is told class, scale and goal; what it draws against the exact guided flow, in 256 steps of two evaluations."""
    given, denoise = classes()
    teacher = GuidedTeacher(denoise, torch.tensor([NULL]))
    run = Run(copy.deepcopy(start), torch.Generator().manual_seed(seed))
    updates = int(2 * few.BUDGET / (few.TRAINED + 2.5))  # a quarter of the batch asks the teacher twice for both branches

    def loss(i: int) -> Tensor:
        label = torch.randint(NULL, (few.BATCH,), generator=run.rng)
        x_0 = torch.stack([each.sample(few.BATCH, run.rng).float() for each in given])[label, torch.arange(few.BATCH)]
        scale = LOWEST_SCALE + (few.HIGHEST_SCALE - LOWEST_SCALE) * torch.rand(few.BATCH, generator=run.rng)
        asked = Guided(label, scale)
        return shortcut_loss(run.student, run.average, teacher, x_0, asked, SCHEDULE, run.rng, finest=few.FINEST).loss

    few.descend(run.student, loss, updates, few.RATE, run.average)
    noise = torch.randn(FOLLOWED, 2, generator=torch.Generator().manual_seed(78))
    label = torch.arange(FOLLOWED) % NULL
    rows = {}
    for w in (1.0, 2.0, 4.0, 7.0):
        asked = Guided(label, torch.full((FOLLOWED,), w))
        exact = drawn(teacher, noise, 256, asked)
        ends = {n: drawn(run.average, noise, n, asked) for n in STEPS} | {
            f"teacher, {n}": drawn(teacher, noise, n, asked) for n in (4, 32)
        }
        rows[str(w)] = {str(n): float((x - exact).square().sum(1).mean().sqrt()) for n, x in ends.items()}
        rows[str(w)]["spread_of_the_ends"] = float((exact - exact.mean(0)).square().sum(1).mean().sqrt())
    return {"rms_distance_to_the_guided_flow": rows, "updates": updates}


def main() -> None:
    """Measure and write."""
    yardstick = Yardstick()
    with multiprocessing.get_context("spawn").Pool(len(SEEDS)) as pool:
        found = pool.map(students_of, SEEDS, chunksize=1)
    by_method = {name: [each["methods"][name] for each in found] for name in found[0]["methods"]}
    settings: dict[str, Any] = {
        name.lower(): getattr(few, name) for name in ("BATCH", "BUDGET", "FINEST", "RATE", "AVERAGE", "PREPARATION")
    }
    write(
        RESULTS / "distillation.json",
        {
            "settings": {**settings, "seeds": list(SEEDS), "drawn": DRAWN, "followed": FOLLOWED, "schedule": "cosine"},
            "two_sets_of_data": yardstick.measure(yardstick.more) | {"rms": None},
            "methods": {name: {"seeds": rows, "mean": _means(rows)} for name, rows in by_method.items()},
            "guided": [each["guided"] for each in found],
        },
    )


if __name__ == "__main__":
    main()
