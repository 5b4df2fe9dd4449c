from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from ornstein.training import Optimization, learning_rate_at


def _settings(**changes: Any) -> Optimization:
    return Optimization(**{"steps": 100, "batch_size": 1, "learning_rate": 0.4, "warmup_steps": 10, **changes})


def _torchs(optimization: Optimization) -> list[float]:
    """The same schedule by torch's own schedulers."""
    peak, warmup = optimization.learning_rate, optimization.warmup_steps
    rest, final = optimization.steps - warmup, optimization.final_learning_rate_fraction
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    after: LRScheduler
    match optimization.decay:
        case "cosine":
            after = CosineAnnealingLR(optimizer, T_max=rest, eta_min=final * peak)
        case "linear":
            after = LinearLR(optimizer, 1.0, final, total_iters=rest)
        case "constant":
            after = ConstantLR(optimizer, 1.0, total_iters=0)
    schedulers = [LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1), after]
    scheduler = SequentialLR(optimizer, schedulers, milestones=[warmup])
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(optimization.steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_it_is_torchs_step_by_step(decay: str, final: float) -> None:
    optimization = _settings(decay=decay, final_learning_rate_fraction=final)
    ours = [learning_rate_at(step, optimization) for step in range(100)]
    assert ours == pytest.approx(_torchs(optimization), rel=1e-9, abs=1e-12)


def test_its_landmarks() -> None:
    optimization = _settings(final_learning_rate_fraction=0.2)
    assert learning_rate_at(0, optimization) == pytest.approx(0.04)  # never 0: the first step must do something
    assert learning_rate_at(9, optimization) == pytest.approx(0.4)
    assert learning_rate_at(10, optimization) == pytest.approx(0.4)
    assert learning_rate_at(55, optimization) == pytest.approx(0.4 * (0.2 + 0.8 / 2))
    assert learning_rate_at(100, optimization) == pytest.approx(0.08)
    assert learning_rate_at(10_000, optimization) == pytest.approx(0.08)


@pytest.mark.parametrize("warmup", [0, 1, 100, 500])
def test_odd_warm_ups_stay_within_bounds(warmup: int) -> None:
    rates = [learning_rate_at(step, _settings(warmup_steps=warmup)) for step in range(100)]
    assert all(math.isfinite(rate) and 0 <= rate <= 0.4 for rate in rates)
    assert rates[0] == pytest.approx(0.4 / max(warmup, 1))
