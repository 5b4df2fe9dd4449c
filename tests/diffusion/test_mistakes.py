"""Every mistake is a ValueError with one clear sentence, whichever part it reaches first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ornstein.core.errors import OrnsteinError
from ornstein.diffusion import DDIM, KeyedNoise, NoiseSchedule, convert, ddpm_loss, flow_log_likelihood
from ornstein.interop import SchedulerConfig

SCHEDULE = NoiseSchedule.linear()
X = torch.zeros(3, 2)


def _sample(denoiser: Callable[..., Any]) -> Any:
    return DDIM(SCHEDULE, 5, prediction="epsilon").sample(denoiser, X)


def _turning_nan(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
    return torch.where((torch.arange(3)[:, None] == 2) & (t[:, None] <= 600), math.nan, x)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: NoiseSchedule([0.1, 1.2]), "beta_2 is 1.2"),
        (lambda: NoiseSchedule([0.1, -0.2]), "beta_2 is -0.2"),
        (lambda: NoiseSchedule([math.nan, 0.2]), "beta_1 is nan"),
        (lambda: NoiseSchedule([]), "at least one beta"),
        (lambda: SCHEDULE.alpha_bar(torch.tensor([1001])), "time steps run 0 … 1000, got 1001"),
        (lambda: SCHEDULE.add_noise(X, torch.tensor([1, -1, 2]), X), "got -1"),
        (lambda: SCHEDULE.add_noise(X, torch.tensor([1, 2]), X), "one time step a sample"),
        (lambda: SCHEDULE.add_noise(X, torch.tensor([1, 2, 3]), X[:, :1]), "shape"),
        (lambda: SCHEDULE.add_noise(X.byte(), torch.tensor([1, 2, 3]), X), "floating point numbers, got torch.uint8"),
        (lambda: SCHEDULE.level(1000.5), "time runs 0 … 1000"),
        (lambda: DDIM(SCHEDULE, 1001, prediction="epsilon"), "between 1 and 1000, got 1001"),
        (lambda: DDIM(SCHEDULE, 10, prediction="epsilon", spacing="karras"), "the spacing must be one of"),  # type: ignore[arg-type]
        (lambda: DDIM(SCHEDULE, 10, prediction="noise"), "unknown prediction 'noise'"),
        (lambda: DDIM(SCHEDULE.with_zero_terminal_snr(), 10, prediction="epsilon"), "no signal is left there"),
        (lambda: convert(X, "sample", "epsilon", X[:2], 0.6, 0.8), "x_t's shape"),
        (lambda: ddpm_loss(lambda x, t, c: x[:, :1], X, None, SCHEDULE, "epsilon", torch.Generator()), r"got \(3, 1\)"),
        (lambda: _sample(lambda x, t, c: x[:1]), r"the state's shape \(3, 2\), got \(1, 2\)"),
        (lambda: _sample(_turning_nan), r"after step 3 of 5 \(t = 600 → 400\), in sample 2 of the batch of 3"),
        (lambda: flow_log_likelihood(_turning_nan, X, None, SCHEDULE, "epsilon"), "not finite at t"),
        (lambda: KeyedNoise(-1, [0]), "the seed"),
        (lambda: SchedulerConfig.from_json({"_class_name": "DDIMScheduler", "betas": 3}), "no setting 'betas'"),
        (lambda: NoiseSchedule.from_json({"kind": "betas", "beta": []}), "has the keys"),
    ],
)
def test_a_mistake_is_a_value_error_that_says_what_came(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        mistake()
    assert isinstance(caught.value, OrnsteinError)
    assert "\n" not in str(caught.value)
