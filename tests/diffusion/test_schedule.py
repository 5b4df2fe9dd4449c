from __future__ import annotations

import copy
import dataclasses
import json
import math
from fractions import Fraction
from itertools import accumulate
from operator import mul

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core.errors import DataError
from ornstein.diffusion import NoiseSchedule

SCHEDULES = {
    "linear": NoiseSchedule.linear(),
    "cosine": NoiseSchedule.cosine(),
    "scaled linear": NoiseSchedule.scaled_linear(),
    "zero terminal SNR": NoiseSchedule.linear().with_zero_terminal_snr(),
}
some_betas = st.lists(st.floats(1e-9, 0.999), min_size=1, max_size=30)


@pytest.fixture(params=list(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return SCHEDULES[request.param]


def test_the_papers_linear_schedule() -> None:
    schedule = SCHEDULES["linear"]
    assert schedule.num_steps == 1000
    assert float(schedule.betas[1]) == 1e-4
    assert math.isclose(float(schedule.betas[2]), 1e-4 + (0.02 - 1e-4) / 999, rel_tol=1e-12)
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


def _exact_alpha_bars(betas: list[float]) -> list[Fraction]:
    """The products of the kernels as rational numbers: no rounding at all."""
    return list(accumulate((1 - Fraction(beta) for beta in betas), mul, initial=Fraction(1)))


@settings(deadline=None)
@given(betas=some_betas)
def test_every_table_is_right_to_the_last_digits_for_any_betas(betas: list[float]) -> None:
    """Against rational arithmetic; small betas are where 1 − α̅ would lose its digits."""
    schedule = NoiseSchedule.from_betas(betas)
    t = torch.arange(len(betas) + 1)
    exact = _exact_alpha_bars(betas)
    assert schedule.beta(t).tolist() == [0.0, *betas]
    for name, values in {
        "alpha_bar": [float(bar) for bar in exact],
        "alpha": [math.sqrt(bar) for bar in exact],
        "sigma": [math.sqrt(1 - bar) for bar in exact],
    }.items():
        np.testing.assert_allclose(getattr(schedule, name)(t).numpy(), values, rtol=1e-13, err_msg=name)
    assert schedule.log_snr(t)[0] == math.inf
    log_snr = [math.log(bar / (1 - bar)) for bar in exact[1:]]
    np.testing.assert_allclose(schedule.log_snr(t)[1:].numpy(), log_snr, rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(betas=some_betas, data=st.data())
def test_posterior_is_bayes_rule_for_any_betas(betas: list[float], data: st.DataObject) -> None:
    """q(x_s | x_t, x_0) by conditioning the joint Gaussian of (x_s, x_t) given x_0, in rational arithmetic."""
    schedule = NoiseSchedule(betas)
    exact = _exact_alpha_bars(betas)
    t = data.draw(st.integers(1, len(betas)))
    s = data.draw(st.integers(0, t - 1))
    bar_t, bar_s = exact[t], exact[s]
    # Given x_0: x_s = √α̅_s x_0 + …, x_t = √(α̅_t/α̅_s) x_s + …; so Cov(x_s, x_t) = √(α̅_t/α̅_s) Var(x_s).
    variance_s, variance_t = 1 - bar_s, 1 - bar_t
    gain_squared = (bar_t / bar_s) * variance_s**2 / variance_t**2
    variance = variance_s - (bar_t / bar_s) * variance_s**2 / variance_t
    # Mean: √α̅_s x_0 + gain (x_t − √α̅_t x_0), and √α̅_t · gain = √α̅_s · (α̅_t/α̅_s) σ_s²/σ_t².
    of_x_0_share = 1 - (bar_t / bar_s) * variance_s / variance_t
    a, b, v = schedule.jump_posterior(t, s)
    assert math.isclose(a, math.sqrt(bar_s) * float(of_x_0_share), rel_tol=1e-11)
    assert math.isclose(b, math.sqrt(gain_squared), rel_tol=1e-11)
    assert math.isclose(v, float(variance), rel_tol=1e-11)
    assert math.isclose(schedule.jump_variance(t, s), float(1 - bar_t / bar_s), rel_tol=1e-11)
    if s == t - 1:
        assert (a, b, v) == schedule.posterior(t)
    if s == 0:
        assert (b, v) == (0.0, 0.0)


def test_posterior_is_equation_seven_of_the_paper(schedule: NoiseSchedule) -> None:
    for t in (1, 2, 500, 1000):
        beta, bar, before = (
            float(table[i]) for table, i in ((schedule.betas, t), (schedule.alpha_bars, t), (schedule.alpha_bars, t - 1))
        )
        a, b, v = schedule.posterior(t)
        assert math.isclose(a, math.sqrt(before) * beta / (1 - bar), rel_tol=1e-9)
        assert math.isclose(b, math.sqrt(1 - beta) * (1 - before) / (1 - bar), rel_tol=1e-9)
        assert math.isclose(v, beta * (1 - before) / (1 - bar), rel_tol=1e-9)


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
            assert math.isclose(m, to_mean * mean, rel_tol=1e-12, abs_tol=1e-14)
            assert math.isclose(v, to_mean**2 * variance + to_noise**2, rel_tol=1e-12)


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


def test_each_sample_gets_the_noise_of_its_own_time_step() -> None:
    schedule = SCHEDULES["cosine"]
    x, eps = (torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(i)) for i in range(2))
    t = torch.tensor([900, 1, 0, 500, 1000])
    together = schedule.add_noise(x, t, eps)
    for row in range(5):
        assert torch.equal(together[row : row + 1], schedule.add_noise(x[row : row + 1], t[row : row + 1], eps[row : row + 1]))
    assert torch.equal(together[2], x[2])  # t = 0 is the data
    t[2] = 7
    stepped = schedule.forward_step(x, t, eps)
    beta = schedule.beta(t)[:, None, None]
    torch.testing.assert_close(stepped, ((1 - beta).sqrt() * x + beta.sqrt() * eps).float())


def test_log_snr_decreases_and_is_infinite_at_the_data(schedule: NoiseSchedule) -> None:
    log_snr = schedule.log_snr(torch.arange(1001))
    assert log_snr[0] == math.inf
    assert (log_snr[1:] < log_snr[:-1]).all()


def test_a_last_beta_of_one_leaves_no_signal_and_is_well_defined() -> None:
    schedule = NoiseSchedule([0.1, 0.5, 1.0])
    assert schedule.level(3) == (3, 0.0, 1.0)
    assert schedule.log_snr(torch.tensor([3])) == -math.inf
    # x_3 tells nothing: the posterior of x_1 is q(x_1 | x_0).
    a, b, v = schedule.jump_posterior(3, 1)
    assert math.isclose(a, math.sqrt(0.9))
    assert b == 0
    assert math.isclose(v, 0.1)
    x = torch.full((1, 2), 1e9)
    assert torch.equal(schedule.add_noise(x, torch.tensor([3]), torch.ones(1, 2)), torch.ones(1, 2))


def test_json_is_exact_and_strict(schedule: NoiseSchedule) -> None:
    again = NoiseSchedule.from_json(json.loads(json.dumps(schedule.to_json())))
    assert torch.equal(again.alpha_bars, schedule.alpha_bars)
    assert again == schedule
    assert hash(again) == hash(schedule)
    for data, message in (
        ({"betas": [0.1]}, "keys"),
        ({"kind": "betas", "betas": [0.1], "offset": 1}, "keys"),
        ({"kind": "cosine", "betas": [0.1]}, "kind 'betas'"),
        ([0.1], "got list"),
        ({"kind": "betas", "betas": ["0.1"]}, "list of numbers"),
        ({"kind": "betas", "betas": [True]}, "list of numbers"),
        ({"kind": "betas", "betas": 0.1}, "list of numbers"),
        ({"kind": "betas", "betas": [float("nan")]}, "beta_1 is nan"),
    ):
        with pytest.raises(DataError, match=message):
            NoiseSchedule.from_json(data)


def test_a_schedule_is_frozen_equal_by_value_and_its_own() -> None:
    betas = torch.tensor([0.1, 0.2], dtype=torch.float64)
    schedule = NoiseSchedule(betas)
    betas[0] = 0.9
    assert float(schedule.betas[1]) == 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.num_steps = 3  # type: ignore[misc]
    assert schedule == NoiseSchedule([0.1, 0.2]) == copy.deepcopy(schedule)
    assert schedule != NoiseSchedule([0.1, 0.3])
    assert schedule != NoiseSchedule([0.1])
    assert repr(schedule) == "NoiseSchedule(2 steps, alpha_bar_T = 0.72)"


def test_mistakes_are_named() -> None:
    schedule = NoiseSchedule.linear()
    x = torch.zeros(2, 3)
    two = torch.tensor([1, 2])
    bad = torch.tensor([[0.0, 1.0, math.nan], [0.0, 0.0, 0.0]])
    for betas, message in (
        ([0.1, 1.0, 0.5], "beta_2"),
        ([0.1, 1.01], "beta_2"),
        ([], "at least one"),
        ([float("nan")], "beta_1"),
        ([0.0], "beta_1"),
        ([math.inf], "beta_1"),
        ([0.1, -0.1], "beta_2"),
        ([0.5] * 2200, r"gone .* at t = 1075 of 2200"),  # 2^-1074 is the smallest number there is
        ([10**400], "hundreds of digits"),
    ):
        with pytest.raises(DataError, match=message):
            NoiseSchedule(betas)
    for call, message in (
        (lambda: NoiseSchedule.linear(num_steps=0), "at least one step, got 0"),
        (lambda: NoiseSchedule.cosine(num_steps=-1), "at least one step, got -1"),
        (lambda: schedule.forward_step(x, torch.tensor([0, 1]), x), "1 … 1000, got 0"),
        (lambda: schedule.add_noise(x, torch.tensor([5, 1001]), x), "1001"),
        (lambda: schedule.add_noise(x, torch.tensor([-1, 3]), x), "got -1"),
        (lambda: schedule.add_noise(x, two, torch.zeros(2, 4)), "shape"),
        (lambda: schedule.add_noise(x, torch.tensor([1]), x), "one time step a sample"),
        (lambda: schedule.forward_step(x, torch.tensor([1]), x), "one time step a sample"),
        (lambda: schedule.add_noise(x, two[:, None], x), "one time step a sample"),
        (lambda: schedule.add_noise(bad, two, x), "finite data"),
        (lambda: schedule.forward_step(x, two, bad), "finite noise"),
        (lambda: schedule.alpha_bar(torch.tensor([0.5])), "integers"),
        (lambda: schedule.alpha_bar(torch.tensor([True])), "integers"),
        (lambda: schedule.level(1001), "0 … 1000, got 1001"),
        (lambda: schedule.jump_posterior(5, 5), "0 ≤ s < t"),
        (lambda: schedule.posterior(0), "0 ≤ s < t"),
    ):
        with pytest.raises(DataError, match=message):
            call()


def test_tables_stay_float64_and_results_keep_the_datas_type() -> None:
    schedule = NoiseSchedule.linear()
    assert schedule.alpha_bars.dtype == torch.float64
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        x = torch.ones(1, 2, dtype=dtype)
        assert schedule.add_noise(x, torch.tensor([3]), x).dtype == dtype
        assert schedule.forward_step(x, torch.tensor([3]), x).dtype == dtype
        alpha, _ = schedule.alpha_sigma(torch.tensor([3]), x)
        assert torch.equal(alpha.flatten(), schedule.alpha(torch.tensor([3])).to(dtype))  # rounded once, at the end


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_schedule_made_under_inference_mode_can_train(dtype: torch.dtype) -> None:
    with torch.inference_mode():
        schedule = NoiseSchedule.linear()
        schedule.alpha_sigma(torch.tensor([3]), torch.ones(1, 2, dtype=dtype))
    x = torch.ones(1, 2, dtype=dtype, requires_grad=True)
    schedule.add_noise(x, torch.tensor([3]), torch.ones(1, 2, dtype=dtype)).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, schedule.alpha(torch.tensor([3])).to(dtype).expand(1, 2))
    schedule.level(3)
    assert not schedule.alphas.is_inference()
    assert not schedule.alpha_sigma(torch.tensor([3]), x)[0].is_inference()


def test_the_scaled_linear_schedule_of_latent_diffusion() -> None:
    """√β in equal steps, and the signal that Lin et al. 2024 (table 1) find left at T: √α̅_T = 0.068265."""
    schedule = NoiseSchedule.scaled_linear()
    roots = np.sqrt(schedule.betas[1:].numpy())
    np.testing.assert_allclose(np.diff(roots), (0.012**0.5 - 0.00085**0.5) / 999, rtol=1e-9)
    assert math.isclose(float(schedule.alphas[1000]), 0.068265, rel_tol=1e-4)
    with pytest.raises(DataError, match="negative"):
        NoiseSchedule.scaled_linear(beta_start=-1.0)


@settings(deadline=None)
@given(betas=st.lists(st.floats(1e-6, 0.9), min_size=2, max_size=30))
def test_zero_terminal_snr_is_algorithm_one_of_lin_and_others(betas: list[float]) -> None:
    """Against rational arithmetic on the roots: shifted to end at 0, stretched to keep the first."""
    before, after = NoiseSchedule(betas), NoiseSchedule(betas).with_zero_terminal_snr()
    roots = [Fraction(float(alpha)) for alpha in before.alphas[1:]]
    expected = [(root - roots[-1]) * roots[0] / (roots[0] - roots[-1]) for root in roots]
    assert float(after.betas[-1]) == 1.0
    assert float(after.alphas[-1]) == 0.0
    assert float(after.log_snrs[-1]) == -math.inf
    np.testing.assert_allclose(after.alphas[1:].numpy(), [float(root) for root in expected], rtol=1e-6, atol=1e-9)
    assert math.isclose(float(after.betas[1]), betas[0], rel_tol=1e-12)


def test_zero_terminal_snr_of_one_step_is_refused_and_twice_is_once() -> None:
    with pytest.raises(DataError, match="two steps"):
        NoiseSchedule([0.5]).with_zero_terminal_snr()
    once = NoiseSchedule.linear().with_zero_terminal_snr()
    np.testing.assert_allclose(once.with_zero_terminal_snr().alphas, once.alphas, atol=1e-12)


def test_time_runs_on_between_the_steps(schedule: NoiseSchedule) -> None:
    steps = schedule.num_steps
    for t in (0, 1, 500, steps - 1, steps):
        for time in (t, float(t)):
            level = schedule.level(time)
            assert level == (t, float(schedule.alphas[t]), float(schedule.sigmas[t]))
            assert isinstance(level.t, int)
    times = torch.linspace(0, steps, 4001, dtype=torch.float64)
    angles = schedule.angle(times)
    assert (angles.diff() > 0).all()
    np.testing.assert_allclose(angles[::4].cos(), schedule.alphas[:: steps // 1000], rtol=1e-9, atol=1e-12)
    for time in (0.001, 0.5, 17.25, 500.5, steps - 0.5, float(steps)):
        now = schedule.level(time)
        np.testing.assert_allclose(
            float(schedule.angle(torch.tensor(time, dtype=torch.float64))), math.atan2(now.sigma, now.alpha), rtol=1e-9
        )
        if now.alpha > 0:
            assert math.isclose(schedule.time_at_log_snr(2 * math.log(now.alpha / now.sigma)), time, rel_tol=1e-7)
    for beyond in (-0.1, steps + 0.1, math.nan):
        with pytest.raises(DataError, match="time runs"):
            schedule.level(beyond)
        with pytest.raises(DataError, match="time runs"):
            schedule.angle(torch.tensor([1.0, beyond]))


def test_jumps_between_steps_compose(schedule: NoiseSchedule) -> None:
    """q(x_t | x_r) = ∫ q(x_t | x_s) q(x_s | x_r): kept factors multiply, and the earlier variance shrinks by the later factor."""
    for r, s, t in ((0, 0.4, 3), (10.25, 10.5, 11), (3, 500.5, 900.125), (0.0, 1.0, 2.0)):
        later, earlier, whole = schedule.jump_variance(t, s), schedule.jump_variance(s, r), schedule.jump_variance(t, r)
        assert math.isclose(1 - whole, (1 - later) * (1 - earlier), rel_tol=1e-9)
        assert math.isclose(whole, later + (1 - later) * earlier, rel_tol=1e-9)
        kept = (schedule.level(t).alpha / schedule.level(s).alpha) ** 2
        assert math.isclose(later, 1 - kept, rel_tol=1e-6, abs_tol=1e-12)
    assert math.isclose(schedule.jump_variance(7.0, 6.0), float(schedule.betas[7]), rel_tol=1e-12)


def test_a_log_snr_that_is_never_reached() -> None:
    with pytest.raises(DataError, match="and never to -20"):
        NoiseSchedule.linear().time_at_log_snr(-20.0)
    with pytest.raises(DataError, match="never to nan"):
        NoiseSchedule.linear().time_at_log_snr(math.nan)
    assert NoiseSchedule.linear().time_at_log_snr(math.inf) == 0.0
    assert NoiseSchedule.linear().with_zero_terminal_snr().time_at_log_snr(-math.inf) == 1000.0


def test_the_terminal_kl_is_that_of_two_gaussians(schedule: NoiseSchedule) -> None:
    """Against torch's own KL divergence, dimension by dimension of some data, in bits."""
    x_0 = torch.linspace(-1.5, 2.0, 50, dtype=torch.float64)
    alpha, sigma = schedule.alphas[-1], schedule.sigmas[-1]
    last, standard = torch.distributions.Normal(alpha * x_0, sigma), torch.distributions.Normal(0 * x_0, 1.0)
    expected = float(torch.distributions.kl_divergence(last, standard).mean()) / math.log(2)
    assert math.isclose(schedule.terminal_kl(float(x_0.square().mean())), expected, rel_tol=1e-6, abs_tol=1e-15)
    with pytest.raises(DataError, match="second moment"):
        schedule.terminal_kl(-1.0)
