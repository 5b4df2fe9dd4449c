from __future__ import annotations

import math

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.diffusion import NoiseSchedule

SCHEDULES = {"linear": NoiseSchedule.linear(), "cosine": NoiseSchedule.cosine()}


@pytest.fixture(params=list(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return SCHEDULES[request.param]


def test_the_papers_linear_schedule() -> None:
    schedule = SCHEDULES["linear"]
    assert schedule.num_steps == 1000
    assert float(schedule.betas[1]) == 1e-4
    assert math.isclose(float(schedule.betas[1000]), 0.02)
    # Ho et al. 2020, §4: KL(q(x_T | x_0) ‖ N(0, I)) is about 1e-5 bits a dimension. For |x_0| = 1 in every dimension:
    bar = float(schedule.alpha_bars[1000])
    bits = 0.5 * (bar * 1.0 + (1 - bar) - 1 - math.log1p(-bar)) / math.log(2)
    assert 1e-5 < bits < 1e-4


def test_the_cosine_schedule_follows_its_formula() -> None:
    schedule = SCHEDULES["cosine"]
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    for t in (0, 1, 250, 500, 900):
        assert math.isclose(float(schedule.alpha_bars[t]), f[t] / f[0], rel_tol=1e-10)
    assert float(schedule.betas.max()) == 0.999


def test_alpha_bar_is_the_product_of_the_kernels(schedule: NoiseSchedule) -> None:
    product = 1.0
    assert float(schedule.alpha_bars[0]) == 1.0
    for t in range(1, 1001):
        product *= 1 - float(schedule.betas[t])
        assert math.isclose(float(schedule.alpha_bars[t]), product, rel_tol=1e-12)


def test_the_chain_and_the_jump_have_the_same_law(schedule: NoiseSchedule) -> None:
    """Push the moments of N(m, v) through the kernels, exactly: they equal those of the closed form."""
    mean, variance = 1.7, 0.3
    m, v = mean, variance
    one = torch.ones(1, dtype=torch.float64)
    for t in range(1, 1001):
        step = torch.tensor([t])
        scale = float(schedule.forward_step(one, step, 0 * one))
        spread = float(schedule.forward_step(0 * one, step, one))
        m, v = scale * m, scale**2 * v + spread**2
        if t in (1, 10, 500, 1000):
            to_mean = float(schedule.add_noise(one, step, 0 * one))
            to_noise = float(schedule.add_noise(0 * one, step, one))
            assert math.isclose(m, to_mean * mean, rel_tol=1e-9, abs_tol=1e-12)
            assert math.isclose(v, to_mean**2 * variance + to_noise**2, rel_tol=1e-9)


def test_sampled_chain_and_jump_agree() -> None:
    schedule = NoiseSchedule.linear(num_steps=50, beta_start=1e-3, beta_end=0.2)
    rng = torch.Generator().manual_seed(0)
    n = 40_000
    x_0 = torch.rand(n, 1, generator=rng, dtype=torch.float64) * 2 - 1
    x = x_0
    for t in range(1, 51):
        x = schedule.forward_step(x, torch.full((n,), t), torch.randn(x.shape, generator=rng, dtype=x.dtype))
    jump = schedule.add_noise(x_0, torch.full((n,), 50), torch.randn(x.shape, generator=rng, dtype=x.dtype))
    for moment in (1, 2, 4):
        a, b = x**moment, jump**moment
        error = ((a.var() + b.var()) / n).sqrt()
        assert (a.mean() - b.mean()).abs() < 4 * error


def test_posterior_is_bayes_rule(schedule: NoiseSchedule) -> None:
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0): multiply two Gaussians in x_s by hand."""
    for t, s in ((1, 0), (2, 1), (700, 699), (700, 100), (1000, 0)):
        bar_t, bar_s = float(schedule.alpha_bars[t]), float(schedule.alpha_bars[s])
        kept = bar_t / bar_s
        x_0, x_t = 0.8, -0.4
        a, b, variance = schedule.jump_posterior(t, s)
        if s == 0:
            assert math.isclose(a, 1.0, rel_tol=1e-9)
            assert abs(b) < 1e-12
            assert variance == 0
            continue
        precision = kept / (1 - kept) + 1 / (1 - bar_s)
        mean = (math.sqrt(kept) * x_t / (1 - kept) + math.sqrt(bar_s) * x_0 / (1 - bar_s)) / precision
        assert math.isclose(a * x_0 + b * x_t, mean, rel_tol=1e-6)
        assert math.isclose(variance, 1 / precision, rel_tol=1e-6)


def test_log_snr_decreases_and_is_infinite_at_the_data(schedule: NoiseSchedule) -> None:
    log_snr = schedule.log_snr(torch.arange(1001))
    assert log_snr[0] == math.inf
    assert (log_snr[1:] < log_snr[:-1]).all()


def test_json_is_exact(schedule: NoiseSchedule) -> None:
    again = NoiseSchedule.from_json(schedule.to_json())
    assert torch.equal(again.alpha_bars, schedule.alpha_bars)
    with pytest.raises(DataError, match="keys"):
        NoiseSchedule.from_json({"betas": [0.1]})


def test_mistakes_are_named() -> None:
    schedule = NoiseSchedule.linear()
    x = torch.zeros(2, 3)
    for betas, message in (([0.1, 1.0], "beta_2"), ([], "at least one"), ([float("nan")], "beta_1"), ([-0.1], "beta_1")):
        with pytest.raises(DataError, match=message):
            NoiseSchedule(betas)
    with pytest.raises(DataError, match="1 … 1000, got 0"):
        schedule.forward_step(x, torch.tensor([0, 1]), x)
    with pytest.raises(DataError, match="1001"):
        schedule.add_noise(x, torch.tensor([5, 1001]), x)
    with pytest.raises(DataError, match="shape"):
        schedule.add_noise(x, torch.tensor([1, 2]), torch.zeros(2, 4))
    with pytest.raises(DataError, match="one time step a sample"):
        schedule.add_noise(x, torch.tensor([1]), x)
    with pytest.raises(DataError, match="integers"):
        schedule.alpha_bar(torch.tensor([0.5]))


def test_tables_stay_float64_and_results_keep_the_datas_type() -> None:
    schedule = NoiseSchedule.linear()
    assert schedule.alpha_bars.dtype == torch.float64
    x = torch.ones(1, 2, dtype=torch.bfloat16)
    assert schedule.add_noise(x, torch.tensor([3]), x).dtype == torch.bfloat16
