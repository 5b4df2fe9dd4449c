"""What holds for every schedule, shape, precision, spacing and number of steps, on random ones."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.diffusion import (
    DDIM,
    DDPM,
    PREDICTIONS,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Euler,
    Heun,
    KeyedNoise,
    NoiseSchedule,
    Sampler,
    from_pair,
)

SAMPLERS: tuple[type[Sampler], ...] = (DDIM, DDPM, Euler, Heun, DPMSolverPP2M, DPMSolverPP2MSDE, DPMSolverPP3M)
betas = st.lists(st.floats(1e-5, 0.95), min_size=1, max_size=60)
shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3)


class _OnePoint:
    """The exact denoiser of data that are a single point, in any prediction."""

    def __init__(self, schedule: NoiseSchedule, point: torch.Tensor, prediction: str) -> None:
        self.schedule, self.point, self.prediction = schedule, point, prediction

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        angle = self.schedule.angle(t).reshape(-1, *[1] * (x_t.ndim - 1))
        alpha, sigma = angle.cos(), angle.sin()
        x_0 = self.point.double().expand_as(x_t)
        eps = (x_t.double() - alpha * x_0) / sigma
        return from_pair(x_0, eps, self.prediction, alpha, sigma).to(x_t.dtype)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), betas=betas, shape=shapes, batch=st.integers(1, 3))
def test_every_sampler_finds_the_only_point_there_is(
    data: st.DataObject, betas: list[float], shape: list[int], batch: int
) -> None:
    """And on the way, a deterministic one keeps the same ε: (x_t − α_t x_0)/σ_t is constant along the flow."""
    schedule = NoiseSchedule(betas)
    steps = data.draw(st.integers(1, schedule.num_steps))
    kind = data.draw(st.sampled_from(SAMPLERS))
    spacing = data.draw(st.sampled_from(["trailing", "leading", "linspace", "log_snr"]))
    prediction = data.draw(st.sampled_from(PREDICTIONS))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    point = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = KeyedNoise(0, range(batch))
    sampler = kind(schedule, steps, prediction=prediction, spacing=spacing)
    walked = list(sampler.iterate(_OnePoint(schedule, point, prediction), noise.initial(shape).to(dtype), None, noise))
    last = walked[-1].x
    assert last.dtype == torch.promote_types(dtype, torch.float32)
    assert last.shape == (batch, *shape)
    # ε, the score, and a solver in x/α divide by α, which random betas make small: float32 then has that many digits less.
    smallest = max(float(schedule.alphas[-1]), 1e-12)
    loose = (1e-12 if last.dtype == torch.float64 else 1e-5) / (
        smallest if prediction in ("epsilon", "score") or kind in (Euler, Heun) else 1.0
    )
    tolerance = 10 * loose
    # Random betas make steps of very unequal length, over which a multistep solver extrapolates the last bits a hundredfold.
    multistep = kind in (DPMSolverPP2M, DPMSolverPP2MSDE, DPMSolverPP3M)
    if tolerance > 0.1 or (multistep and last.dtype == torch.float32):
        assert torch.isfinite(last).all()
        return
    torch.testing.assert_close(last.double(), point.expand_as(last), atol=tolerance, rtol=tolerance)
    if sampler.stochastic:
        return
    kept = []
    for step in walked[:-1]:  # the last one ends at the data, where there is no ε
        level = schedule.level(step.t_prev)
        kept.append((step.x.double() - level.alpha * point) / level.sigma)
    for eps in kept[1:]:
        torch.testing.assert_close(eps, kept[0], atol=100 * tolerance + 1e-3, rtol=0.01)


@settings(deadline=None, max_examples=60)
@given(betas=st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=100))
def test_tables_of_any_schedule_are_consistent(betas: list[float]) -> None:
    schedule = NoiseSchedule(betas)
    torch.testing.assert_close(
        schedule.alphas**2 + schedule.sigmas**2, torch.ones(len(betas) + 1, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert (schedule.alpha_bars.diff() < 0).all()
    assert NoiseSchedule.from_json(schedule.to_json()) == schedule
    assert schedule.terminal_kl() >= 0
