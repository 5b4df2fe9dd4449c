"""Each sampler against exact answers: the papers' own formulas, closed-form laws on Gaussian data, and the order of convergence."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate

from ornstein.diffusion import (
    DDIM,
    DDPM,
    PREDICTIONS,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
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
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.stack([0.2 * torch.eye(2), 0.4 * torch.eye(2)])
)


def _noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The papers' formulas, written as they stand there, with a denoiser that is neither affine nor exact.


def _eps(x: torch.Tensor, t: torch.Tensor, condition: Any = None) -> torch.Tensor:
    return torch.tanh(x * (1 + t[:, None] / 500)) + 0.1 * x.flip(1)


def _eps_at(x: torch.Tensor, t: int) -> torch.Tensor:
    return _eps(x, torch.full((len(x),), t))


def _bar(t: int) -> float:
    return float(SCHEDULE.alpha_bars[t])


def test_ddpm_is_algorithm_two_of_its_paper() -> None:
    """Ho et al. 2020: x_{t−1} = (x_t − β_t/√(1 − α̅_t) ε)/√α_t + σ_t z with α_t = 1 − β_t, and z = 0 at t = 1."""
    schedule = NoiseSchedule.linear(num_steps=30, beta_start=0.01, beta_end=0.3)
    source = KeyedNoise(0, range(4))
    for variance in ("small", "large"):
        x = _noise(4)
        stepper = DDPM(schedule, 30, prediction="epsilon", variance=variance)
        for step in stepper.iterate(_eps, x, None, source):
            t, beta = step.t, float(schedule.betas[step.t])
            bar, before = float(schedule.alpha_bars[t]), float(schedule.alpha_bars[t - 1])
            mean = (x - beta / math.sqrt(1 - bar) * _eps_at(x, t)) / math.sqrt(1 - beta)
            deviation = math.sqrt(beta if variance == "large" else (1 - before) / (1 - bar) * beta)
            x = mean + (deviation * source.at(step.index, (2,)).double() if t > 1 else 0)
            torch.testing.assert_close(step.x, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_equation_twelve_of_its_paper(eta: float) -> None:
    """Song et al. 2021, with σ of eq. 16 over the sub-sequence τ."""
    source = KeyedNoise(0, range(4))
    x = _noise(4)
    for step in DDIM(SCHEDULE, 13, prediction="epsilon", eta=eta).iterate(_eps, x, None, source):
        bar, before = _bar(step.t), _bar(step.t_prev)
        sigma = eta * math.sqrt((1 - before) / (1 - bar)) * math.sqrt(1 - bar / before)
        eps = _eps_at(x, step.t)
        predicted_x_0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        direction = math.sqrt(1 - before - sigma**2) * eps if step.t_prev > 0 else 0
        x = math.sqrt(before) * predicted_x_0 + direction + sigma * source.at(step.index, (2,)).double()
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_heun_is_algorithm_one_of_its_paper() -> None:
    """Karras et al. 2022 with σ(t) = t, in their variables: noise level r = σ/α, state y = x/α, D = x̂_0."""

    def slope(y: torch.Tensor, t: int) -> torch.Tensor:
        r = math.sqrt((1 - _bar(t)) / _bar(t))
        x = math.sqrt(_bar(t)) * y
        denoised = (x - math.sqrt(1 - _bar(t)) * _eps_at(x, t)) / math.sqrt(_bar(t))
        return (y - denoised) / r

    x = _noise(4)
    for step in Heun(SCHEDULE, 11, prediction="epsilon").iterate(_eps, x):
        y, r, r_next = x / math.sqrt(_bar(step.t)), *(math.sqrt((1 - _bar(t)) / _bar(t)) for t in (step.t, step.t_prev))
        d = slope(y, step.t)
        y_next = y + (r_next - r) * d
        if r_next != 0:
            y_next = y + (r_next - r) * (d + slope(y_next, step.t_prev)) / 2
        x = math.sqrt(_bar(step.t_prev)) * y_next
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_dpm_solver_is_algorithm_two_of_its_paper() -> None:
    """Lu et al. 2022 (DPM-Solver++), 2M: λ = log(α/σ), h_i = λ_i − λ_{i−1}, r_i = h_{i−1}/h_i, D_i from the last two x̂_0."""
    x = _noise(4)
    half_log_snr, estimates = [], []
    for step in DPMSolverPP2M(SCHEDULE, 12, prediction="epsilon").iterate(_eps, x):
        bar, then = _bar(step.t), _bar(step.t_prev)
        half_log_snr.append(0.5 * math.log(bar / (1 - bar)))
        estimates.append((x - math.sqrt(1 - bar) * _eps_at(x, step.t)) / math.sqrt(bar))
        if step.t_prev == 0:
            x = estimates[-1]
        else:
            h = 0.5 * math.log(then / (1 - then)) - half_log_snr[-1]
            data = estimates[-1]
            if len(estimates) > 1:
                r = (half_log_snr[-1] - half_log_snr[-2]) / h
                data = (1 + 1 / (2 * r)) * estimates[-1] - 1 / (2 * r) * estimates[-2]
            x = math.sqrt((1 - then) / (1 - bar)) * x - math.sqrt(then) * (math.exp(-h) - 1) * data
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_ddim_without_noise_is_euler_on_the_probability_flow() -> None:
    a, b = (sampler(SCHEDULE, 17, prediction="epsilon").sample(_eps, _noise(16)) for sampler in (DDIM, Euler))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("n", [10, 37, 1000])
def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(n: int) -> None:
    source = KeyedNoise(3, range(8))
    ddim = DDIM(SCHEDULE, n, prediction="epsilon", eta=1.0).sample(_eps, _noise(8), None, source)
    ddpm = DDPM(SCHEDULE, n, prediction="epsilon", variance="small").sample(_eps, _noise(8), None, source)
    torch.testing.assert_close(ddim, ddpm, rtol=1e-9, atol=1e-9)


# Laws on Gaussian data, where every step is affine and mean and variance can be followed by hand.


class _Units:
    """Noise that makes a linear sampler's coefficients visible: row k + 2 is all zero but for a one at step k."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def at(self, step: int, shape: Any) -> torch.Tensor:
        return (torch.arange(self.rows, dtype=torch.float64) == step + 2).double().reshape(-1, *[1] * len(shape))


def _law(sampler: Sampler, m: float, v: float) -> tuple[float, float]:
    """The exact mean and variance of what the sampler makes of N(0, 1) at its first step, with N(m, v)'s denoiser.

    It is an affine map of independent standard normals, so: its value at zero, and the sum of its squared responses.
    """
    data = Gaussian(torch.tensor([m], dtype=torch.float64), torch.tensor([[v]], dtype=torch.float64))
    start = torch.zeros(sampler.num_steps + 2, 1, dtype=torch.float64)
    start[1] = 1.0
    denoiser = data.denoiser(sampler.schedule, sampler.prediction)
    base, *responses = sampler.sample(denoiser, start, None, _Units(len(start))).flatten().tolist()
    return base, sum((response - base) ** 2 for response in responses)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize(("n", "spacing"), [(25, "trailing"), (7, "trailing"), (30, "leading"), (11, "linspace")])
def test_ancestral_sampling_has_the_law_that_algebra_gives(variance: str, n: int, spacing: Any) -> None:
    m, v = 0.7, 0.4
    sampler = DDPM(SCHEDULE, n, prediction="epsilon", variance=variance, spacing=spacing)
    mean, var = 0.0, 1.0
    times = time_steps(1000, n, spacing)
    for t, s in zip(times, [*times[1:], 0], strict=True):
        bar_t, bar_s = _bar(t), _bar(s)
        gain = math.sqrt(bar_t) * v / (bar_t * v + 1 - bar_t)  # E[x_0 | x_t] = m + gain (x_t − √α̅ m)
        kept, added = bar_t / bar_s, 1 - bar_t / bar_s
        a, b = math.sqrt(bar_s) * added / (1 - bar_t), math.sqrt(kept) * (1 - bar_s) / (1 - bar_t)
        slope, offset = a * gain + b, a * (m - gain * math.sqrt(bar_t) * m)
        noise = (added if variance == "large" else added * (1 - bar_s) / (1 - bar_t)) if s > 0 else 0.0
        mean, var = slope * mean + offset, slope**2 * var + noise
    got_mean, got_var = _law(sampler, m, v)
    assert math.isclose(got_mean, mean, rel_tol=1e-9)
    assert math.isclose(got_var, var, rel_tol=1e-9)


def test_the_variance_choices_are_exact_where_the_paper_says() -> None:
    """Ho et al. 2020, §3.2: β̃ is optimal for a point, β for N(0, I), at any number of steps but for the last one's mean."""
    for n in (5, 30):
        mean, var = _law(DDPM(SCHEDULE, n, prediction="epsilon", variance="small"), 0.7, 1e-12)
        assert math.isclose(mean, 0.7, rel_tol=1e-6)
        assert var < 1e-6
        steps = DDPM(SCHEDULE, n, prediction="epsilon", variance="large", spacing="leading")
        # Up to the last step the law stays N(0, 1); that step returns E[x_0 | x_1] = √α̅_1 x_1.
        _, var = _law(steps, 0.0, 1.0)
        assert math.isclose(var, _bar(1), rel_tol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_eta_has_the_datas_own_law_in_the_limit(eta: float) -> None:
    mean, var = _law(DDIM(SCHEDULE, 500, prediction="epsilon", eta=eta), 0.7, 0.4)
    assert abs(mean - 0.7) < 0.01
    assert abs(var - 0.4) < 0.01


def test_full_ancestral_sampling_converges_to_the_data_as_T_grows() -> None:
    """DDPM's error in the variance is of first order in 1/T: finer schedules of the same α̅ curve halve it."""
    errors = []
    for num_steps in (100, 200, 400):
        schedule = NoiseSchedule(-torch.expm1(-torch.linspace(0.002, 0.4, num_steps, dtype=torch.float64) * 50 / num_steps))
        mean, var = _law(DDPM(schedule, num_steps, prediction="epsilon"), 0.7, 0.4)
        assert abs(mean - 0.7) < 0.02
        errors.append(abs(var - 0.4))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert abs(slopes[-1] - 1) < 0.15, (errors, slopes)


class _Stream:
    """A noise source from one generator: a thousand steps of thousands of samples, where keys do not matter."""

    def __init__(self, n: int) -> None:
        self.n, self.rng = n, torch.Generator().manual_seed(1)

    def at(self, step: int, shape: Any) -> torch.Tensor:
        return torch.randn(self.n, *shape, generator=self.rng, dtype=torch.float64)


def test_a_thousand_ancestral_steps_give_the_data_back() -> None:
    noise = _Stream(4000)
    sampler = DDPM(SCHEDULE, 1000, prediction="epsilon", variance="large")
    x = sampler.sample(GAUSSIAN.denoiser(SCHEDULE, "epsilon"), noise.at(0, (2,)), None, noise)
    assert (x.mean(0) - GAUSSIAN.means[0]).abs().max() < 4 * math.sqrt(0.5 / 4000)
    assert (torch.cov(x.T) - GAUSSIAN.covariances[0]).abs().max() < 0.05


# Order of convergence against the exact flow.

END = 40.0


def _in_log_snr(n: int, *, uneven: bool) -> list[float]:
    """n times from T towards `END`, even in log-SNR or alternately long and short.

    Alternate steps stay uneven however fine: on a smooth grid a multistep solver that takes its steps for equal would pass.
    (One that inverts their ratio has order 2 even so, its errors cancel in pairs: that one the paper's formula finds.)
    """
    weights = torch.tensor([2.0, 1.0] if uneven else [1.0, 1.0], dtype=torch.float64).repeat(n // 2)
    place = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0) / weights.sum()])[:-1]
    first, last = float(SCHEDULE.log_snrs[-1]), float(SCHEDULE.log_snr(torch.tensor(int(END))))
    return [1000.0, *(SCHEDULE.time_at_log_snr(first + float(p) * (last - first)) for p in place[1:])]


def _even_in_noise(n: int) -> list[float]:
    """n times from noise-to-signal ratio 1.5 towards 0, even in the ratio: here the endpoint at t = 0 has the full order too."""
    return [SCHEDULE.time_at_log_snr(-2 * math.log(1.5 * (n - k) / n)) for k in range(n)]


@cache
def _mixture_flow(start: float, stop: float) -> torch.Tensor:
    """The mixture's probability flow by a high-order integrator, score by automatic differentiation of the density."""

    def slope(r: float, y: np.ndarray) -> np.ndarray:
        alpha = 1 / math.sqrt(1 + r**2)
        x = torch.as_tensor(y).reshape(-1, 2).mul(alpha).requires_grad_()
        (score,) = torch.autograd.grad(MIXTURE.log_prob(x, alpha, r * alpha).sum(), x)
        return (-r * alpha * score).numpy().ravel()

    (now, then) = (SCHEDULE.level(t) for t in (start, stop))
    y = (_noise(8) / now.alpha).numpy().ravel()
    span = (now.sigma / now.alpha, then.sigma / then.alpha)
    solved = integrate.solve_ivp(slope, span, y, method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
    return torch.as_tensor(solved).reshape(-1, 2) * then.alpha


def _exact(data: GaussianMixture, start: float, stop: float) -> torch.Tensor:
    return data.flow(_noise(8), SCHEDULE, start, stop) if isinstance(data, Gaussian) else _mixture_flow(start, stop)


def _slopes(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("sampler", "order"), [(DDIM, 1), (Euler, 1), (Heun, 2), (DPMSolverPP2M, 2), (DPMSolverPP3M, 3)])
def test_observed_order_of_convergence(sampler: type[Sampler], order: int, uneven: bool, data: GaussianMixture) -> None:
    """Over halved steps in log-SNR, up to a time above zero."""
    errors = []
    for n in (60, 120, 240):
        stepper = sampler(SCHEDULE, n, prediction="epsilon", spacing=_in_log_snr(n, uneven=uneven), end=END)
        x = stepper.sample(data.denoiser(SCHEDULE, "epsilon"), _noise(8))
        errors.append(float((x - _exact(data, 1000, END)).abs().max()))
    slopes = _slopes(errors)
    assert abs(slopes[-1] - order) < 0.2, (errors, slopes)


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize(("sampler", "order"), [(DDIM, 1), (Euler, 1), (Heun, 2)])
def test_observed_order_at_the_data(sampler: type[Sampler], order: int, data: GaussianMixture) -> None:
    """The endpoint itself, last step to t = 0 included, over halved steps in the noise-to-signal ratio."""
    errors = []
    for n in (16, 32, 64):
        times = _even_in_noise(n)
        x = sampler(SCHEDULE, n, prediction="epsilon", spacing=times).sample(data.denoiser(SCHEDULE, "epsilon"), _noise(8))
        errors.append(float((x - _exact(data, times[0], 0)).abs().max()))
    slopes = _slopes(errors)
    assert abs(slopes[-1] - order) < 0.2, (errors, slopes)


def test_the_third_order_steps_integrate_a_parabola_exactly() -> None:
    """Where x̂_0 is a parabola in λ, only the start-up differs from x_s = (σ_s/σ_t) x_t + σ_s ∫ e^λ x̂_0(λ) dλ."""

    def parabola(lam: Any) -> Any:
        return 0.3 - 0.4 * lam + 0.25 * lam**2

    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        angle = SCHEDULE.angle(t)
        return parabola((angle.cos() / angle.sin()).log())[:, None].expand_as(x)

    stepper = DPMSolverPP3M(SCHEDULE, 6, prediction="sample", spacing=[1000, 812.5, 700, 360.25, 200, 150], end=END)
    before = None
    for step in stepper.iterate(denoiser, _noise(1)):
        now, then = SCHEDULE.level(step.t), SCHEDULE.level(step.t_prev)
        if step.index >= 2:
            span = (math.log(now.alpha / now.sigma), math.log(then.alpha / then.sigma))
            mass = integrate.quad(lambda lam: math.exp(lam) * parabola(lam), *span, epsabs=1e-13)[0]
            assert before is not None
            torch.testing.assert_close(step.x, then.sigma / now.sigma * before + then.sigma * mass, rtol=1e-10, atol=1e-10)
        before = step.x


def test_sde_solver_is_the_papers() -> None:
    """Lu et al. 2022, SDE-DPM-Solver++(2M): x_s = σ_s/σ_t e^{−h} x_t + α_s (1 − e^{−2h}) D + σ_s √(1 − e^{−2h}) z."""
    source = KeyedNoise(0, range(4))
    x = _noise(4)
    lambdas, estimates = [], []
    for step in DPMSolverPP2MSDE(SCHEDULE, 12, prediction="epsilon").iterate(_eps, x, None, source):
        bar, then = _bar(step.t), _bar(step.t_prev)
        lambdas.append(0.5 * math.log(bar / (1 - bar)))
        estimates.append((x - math.sqrt(1 - bar) * _eps_at(x, step.t)) / math.sqrt(bar))
        if step.t_prev == 0:
            x = estimates[-1]
        else:
            h = 0.5 * math.log(then / (1 - then)) - lambdas[-1]
            data = estimates[-1]
            if step.index > 0:
                r = (lambdas[-1] - lambdas[-2]) / h
                data = estimates[-1] + (estimates[-1] - estimates[-2]) / (2 * r)
            decay = math.exp(-2 * h)
            x = math.sqrt((1 - then) / (1 - bar)) * math.exp(-h) * x + math.sqrt(then) * (1 - decay) * data
            x = x + math.sqrt((1 - then) * (1 - decay)) * source.at(step.index, (2,)).double()
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_sde_solver_of_first_order_is_ddpm() -> None:
    """Its first step, without a past, is the ancestral one: e^{−h} σ_s/σ_t and the rest are eq. 7's coefficients."""
    source = KeyedNoise(0, range(4))
    first = [
        next(iter(s(SCHEDULE, 9, prediction="epsilon").iterate(_eps, _noise(4), None, source))).x
        for s in (DDPM, DPMSolverPP2MSDE)
    ]
    torch.testing.assert_close(*first, rtol=1e-9, atol=1e-10)


def test_sde_solver_has_the_datas_law_and_is_closer_than_ddpm() -> None:
    """Mean and variance are exact numbers here (see `_law`): at 40 even steps of log-SNR the higher order shows."""
    for m, v in ((0.7, 0.4), (-1.0, 0.05)):
        found = [_law(s(SCHEDULE, 40, prediction="epsilon", spacing="log_snr"), m, v) for s in (DDPM, DPMSolverPP2MSDE)]
        ddpm, sde = (abs(mean - m) + abs(var - v) for mean, var in found)
        assert sde < 0.02
        assert sde < ddpm / 2


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("sampler", [DDIM, Euler, Heun, DPMSolverPP2M, DPMSolverPP3M])
def test_deterministic_samplers_reach_the_exact_flow(sampler: type[Sampler], kind: str) -> None:
    """At every step of the paper's schedule, whatever the denoiser predicts."""
    exact = GAUSSIAN.flow(_noise(32), SCHEDULE, 1000, 0)
    x = sampler(SCHEDULE, 250, prediction=kind, spacing="linspace").sample(GAUSSIAN.denoiser(SCHEDULE, kind), _noise(32))
    assert (x - exact).abs().max() < {DDIM: 0.05, Euler: 0.05, Heun: 0.002}.get(sampler, 0.005)
