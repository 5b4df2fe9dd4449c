"""Samplers against Gaussian data, where the exact answer is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.diffusion import (
    DDIM,
    DDPM,
    PREDICTIONS,
    DPMSolverPP2M,
    Euler,
    Gaussian,
    GaussianMixture,
    Heun,
    KeyedNoise,
    NoiseSchedule,
    Sampler,
    time_steps,
)

SCHEDULE = NoiseSchedule.linear()
GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))


def _noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _endpoint_error(sampler: type[Sampler], n: int, data: Gaussian = GAUSSIAN, **settings: Any) -> float:
    """Largest distance from the exact flow's endpoint, at the last time step above zero (where no solver jumps to x̂_0)."""
    noise = _noise(32)
    stepper = sampler(SCHEDULE, n + 1, prediction="epsilon", time_steps_given=_even_in_log_snr(n), **settings)
    steps = list(stepper.iterate(data.denoiser(SCHEDULE, "epsilon"), noise))
    last = steps[-2]
    exact = data.flow(noise, SCHEDULE, 1000, last.t_prev)
    return float((last.x - exact).abs().max())


def _even_in_log_snr(n: int) -> list[int]:
    """n + 1 steps from T to 20, about even in log-SNR, so that halving the step halves it everywhere."""
    log_snr = SCHEDULE.log_snr(torch.arange(1, 1001))
    wanted = torch.linspace(float(log_snr[-1]), float(log_snr[19]), n + 1, dtype=torch.float64)
    return [int((log_snr - w).abs().argmin()) + 1 for w in wanted]


@pytest.mark.parametrize(("sampler", "order"), [(DDIM, 1), (Euler, 1), (Heun, 2), (DPMSolverPP2M, 2)])
def test_observed_order_of_convergence(sampler: type[Sampler], order: int) -> None:
    errors = [_endpoint_error(sampler, n) for n in (12, 24, 48)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert abs(slopes[-1] - order) < 0.35, (errors, slopes)


def test_deterministic_samplers_reach_the_exact_flow() -> None:
    exact = GAUSSIAN.flow(_noise(32), SCHEDULE, 1000, 0)
    for kind in PREDICTIONS:
        for sampler, tolerance in ((DDIM, 0.02), (Euler, 0.02), (Heun, 0.02), (DPMSolverPP2M, 0.02)):
            stepper = sampler(SCHEDULE, 1000, prediction=kind)
            x = stepper.sample(GAUSSIAN.denoiser(SCHEDULE, kind), _noise(32))
            assert (x - exact).abs().max() < tolerance, (kind, sampler)


def test_ddim_without_noise_is_euler_on_the_probability_flow() -> None:
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.05 * torch.eye(2).expand(2, 2, 2)
    )
    a, b = (
        sampler(SCHEDULE, 17, prediction="epsilon").sample(mixture.denoiser(SCHEDULE, "epsilon"), _noise(16))
        for sampler in (DDIM, Euler)
    )
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_ddim_with_eta_one_is_ddpm_with_the_small_variance() -> None:
    for n in (10, 37):
        noise = KeyedNoise(3, range(8))
        ddim = DDIM(SCHEDULE, n, prediction="epsilon", eta=1.0).sample(
            GAUSSIAN.denoiser(SCHEDULE, "epsilon"), _noise(8), noise=noise
        )
        ddpm = DDPM(SCHEDULE, n, prediction="epsilon").sample(GAUSSIAN.denoiser(SCHEDULE, "epsilon"), _noise(8), noise=noise)
        torch.testing.assert_close(ddim, ddpm, rtol=1e-7, atol=1e-8)


class _Unit:
    """Noise sources that make a linear sampler's coefficients visible: all zero but at one step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def at(self, step: int, shape: Any) -> torch.Tensor:
        return torch.full((1, *shape), float(step == self.step), dtype=torch.float64)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_sampling_has_the_law_that_algebra_gives(variance: str) -> None:
    """On N(m, v) each DDPM step is affine: propagate mean and variance by hand, and read the sampler's own off its responses."""
    m, v, n = 0.7, 0.4, 25
    data = Gaussian(torch.tensor([m], dtype=torch.float64), torch.tensor([[v]], dtype=torch.float64))
    sampler = DDPM(SCHEDULE, n, prediction="epsilon", variance=variance)  # type: ignore[arg-type]
    denoiser = data.denoiser(SCHEDULE, "epsilon")

    def response(start: float, step: int | None) -> float:
        x = torch.full((1, 1), start, dtype=torch.float64)
        return float(sampler.sample(denoiser, x, noise=_Unit(step)))  # type: ignore[arg-type]

    base = response(0.0, None)
    total = (response(1.0, None) - base) ** 2 + sum((response(0.0, k) - base) ** 2 for k in range(n - 1))
    mean, var = 0.0, 1.0
    times = [1000 - k * 40 for k in range(n)]
    for t, s in zip(times, [*times[1:], 0], strict=True):
        bar_t, bar_s = float(SCHEDULE.alpha_bars[t]), float(SCHEDULE.alpha_bars[s])
        gain = math.sqrt(bar_t) * v / (bar_t * v + 1 - bar_t)  # E[x_0 | x_t] = m + gain (x_t − √α̅ m)
        kept, added = bar_t / bar_s, 1 - bar_t / bar_s
        a, b = math.sqrt(bar_s) * added / (1 - bar_t), math.sqrt(kept) * (1 - bar_s) / (1 - bar_t)
        slope, offset = a * gain + b, a * (m - gain * math.sqrt(bar_t) * m)
        noise = (added if variance == "large" else added * (1 - bar_s) / (1 - bar_t)) if s > 0 else 0.0
        mean, var = slope * mean + offset, slope**2 * var + noise
    assert math.isclose(base, mean, rel_tol=1e-9)
    assert math.isclose(total, var, rel_tol=1e-9)


class _Stream:
    """A noise source from one generator: a thousand steps of thousands of samples, where keys do not matter."""

    def __init__(self, n: int) -> None:
        self.n, self.rng = n, torch.Generator().manual_seed(1)

    def at(self, step: int, shape: Any) -> torch.Tensor:
        return torch.randn(self.n, *shape, generator=self.rng, dtype=torch.float64)


def test_a_thousand_ancestral_steps_give_the_data_back() -> None:
    noise = _Stream(4000)
    sampler = DDPM(SCHEDULE, 1000, prediction="epsilon", variance="large")
    x = sampler.sample(GAUSSIAN.denoiser(SCHEDULE, "epsilon"), noise.at(0, (2,)), noise=noise)  # type: ignore[arg-type]
    assert (x.mean(0) - GAUSSIAN.means[0]).abs().max() < 4 * math.sqrt(0.5 / 4000)
    assert (torch.cov(x.T) - GAUSSIAN.covariances[0]).abs().max() < 0.05


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 37, 50, 333, 999, 1000])
def test_spacings_are_distinct_and_inside_for_any_count(n: int) -> None:
    for spacing in ("trailing", "leading", "linspace"):
        times = time_steps(1000, n, spacing)  # type: ignore[arg-type]
        assert len(times) == n
        assert all(a > b for a, b in zip(times, times[1:], strict=False))
        assert 1 <= times[-1] <= times[0] <= 1000
        gaps = [a - b for a, b in zip(times, times[1:], strict=False)]
        assert not gaps or max(gaps) - min(gaps) <= 1
        if spacing != "leading":
            assert times[0] == 1000
        if spacing == "leading" or (spacing == "linspace" and n > 1):
            assert times[-1] == 1


def test_every_sampler_ends_at_the_data_and_calls_once_a_step() -> None:
    for sampler, calls in ((DDIM, 7), (DDPM, 7), (Euler, 7), (DPMSolverPP2M, 7), (Heun, 13)):
        seen = []

        def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any, seen: list[int] = seen) -> torch.Tensor:
            seen.append(int(t[0]))
            return GAUSSIAN.denoiser(SCHEDULE, "epsilon")(x, t, condition)

        steps = list(sampler(SCHEDULE, 7, prediction="epsilon").iterate(denoiser, _noise(2), None, KeyedNoise(0, [0, 1])))
        assert steps[0].t == 1000
        assert steps[-1].t_prev == 0
        assert [a.t_prev for a in steps[:-1]] == [b.t for b in steps[1:]]
        assert len(seen) == calls
        assert min(seen) >= 1


def test_clipping_bounds_the_data_estimate_and_keeps_the_state_consistent() -> None:
    wild = Gaussian(torch.tensor([5.0, -5.0]), 0.01 * torch.eye(2))
    steps = list(DDIM(SCHEDULE, 10, prediction="epsilon", clip=1.0).iterate(wild.denoiser(SCHEDULE, "epsilon"), _noise(4)))
    for step in steps:
        torch.testing.assert_close(step.x_0, torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(4, 2))
    torch.testing.assert_close(steps[-1].x, steps[-1].x_0)


def test_half_precision_states_are_widened() -> None:
    x = DDIM(SCHEDULE, 5, prediction="epsilon").sample(GAUSSIAN.denoiser(SCHEDULE, "epsilon"), _noise(2).to(torch.bfloat16))
    assert x.dtype == torch.float32


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="between 1 and 1000, got 1001"):
        DDIM(SCHEDULE, 1001, prediction="epsilon")
    with pytest.raises(DataError, match="descending"):
        DDIM(SCHEDULE, 2, prediction="epsilon", time_steps_given=[5, 5])
    with pytest.raises(DataError, match="eta"):
        DDIM(SCHEDULE, 2, prediction="epsilon", eta=2.0)
    with pytest.raises(DataError, match="pass a noise source"):
        DDPM(SCHEDULE, 2, prediction="epsilon").sample(lambda x, t, c: x, _noise(1))
    with pytest.raises(DataError, match="state's shape"):
        DDIM(SCHEDULE, 2, prediction="epsilon").sample(lambda x, t, c: x[:, :1], _noise(1))
    with pytest.raises(OrnsteinError, match=r"after step 1 of 2 \(t = 1000 → 500\)"):
        DDIM(SCHEDULE, 2, prediction="epsilon").sample(lambda x, t, c: x * math.inf, _noise(1))
    with pytest.raises(DataError, match="divides by alpha"):
        Euler(_no_signal(), 2, prediction="v_prediction")


def _no_signal() -> NoiseSchedule:
    schedule = NoiseSchedule.linear(num_steps=10)
    schedule.alpha_bars[10] = 0.0
    return schedule
