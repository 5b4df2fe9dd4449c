"""Likelihoods against densities that are known: a Gaussian's and a mixture's, and arithmetic by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.diffusion import (
    PREDICTIONS,
    Gaussian,
    GaussianMixture,
    NoiseSchedule,
    bits_per_dimension,
    ddpm_loss,
    dequantise,
    flow_log_likelihood,
    variational_bound,
)

COSINE = NoiseSchedule.cosine()
LINEAR = NoiseSchedule.linear()
MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.5, 0.3]),
    torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -2.0]]),
    torch.stack([0.1 * torch.eye(2), torch.tensor([[0.3, 0.1], [0.1, 0.2]]), torch.diag(torch.tensor([0.5, 0.05]))]),
)
ONE = Gaussian(torch.tensor([0.3]), torch.tensor([[0.6]]))


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The flow


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_flow_density_is_the_mixtures_to_a_tenth_of_a_millinat(prediction: str) -> None:
    x = MIXTURE.sample(6, _rng())
    schedule = COSINE.with_zero_terminal_snr() if prediction in ("sample", "v_prediction") else COSINE
    found = flow_log_likelihood(MIXTURE.denoiser(schedule, prediction), x, None, schedule, prediction, tolerance=1e-7)
    start = schedule.level(1)
    exact = MIXTURE.log_prob(x, start.alpha, start.sigma)
    torch.testing.assert_close(found.log_prob, exact, atol=1e-4, rtol=0)
    assert found.solver_error.max() < 1e-4
    assert torch.equal(found.standard_error, torch.zeros(6, dtype=torch.float64))


def test_where_signal_is_left_the_models_density_is_not_the_datas() -> None:
    """The linear schedule ends at α_T = 0.0064, and N(0, I) is not quite the law there: the flow says so, exactly."""
    x = torch.tensor([[1.4]], dtype=torch.float64)
    found = flow_log_likelihood(ONE.denoiser(LINEAR, "score"), x, None, LINEAR, "score", tolerance=1e-9)
    now, last = LINEAR.level(1), LINEAR.level(1000)
    # Along the flow the standardised place is kept, so log p_start = log N(x_T) + log of the ratio of the deviations.
    spread, end = (math.sqrt(level.alpha**2 * 0.6 + level.sigma**2) for level in (now, last))
    x_T = last.alpha * 0.3 + end * (1.4 - now.alpha * 0.3) / spread
    expected = stats.norm.logpdf(x_T) + math.log(end / spread)
    assert math.isclose(float(found.log_prob), expected, rel_tol=1e-7)
    assert abs(expected - float(ONE.log_prob(x, now.alpha, now.sigma))) > 1e-4


def test_hutchinson_agrees_within_its_error_and_narrows_with_probes() -> None:
    x = MIXTURE.sample(64, _rng())
    denoiser = MIXTURE.denoiser(COSINE, "v_prediction")
    settings: dict[str, Any] = {"tolerance": 1e-6, "check_solver": False}
    exact = flow_log_likelihood(denoiser, x, None, COSINE, "v_prediction", **settings)
    settings["trace"] = "hutchinson"
    found = flow_log_likelihood(denoiser, x, None, COSINE, "v_prediction", probes=64, rng=_rng(1), **settings)
    deviations = (found.log_prob - exact.log_prob) / found.standard_error
    assert (deviations.abs() < 3).float().mean() > 0.95
    assert abs(deviations.mean()) < 3 / 64**0.5
    assert 0.6 < deviations.std() < 1.5
    few = flow_log_likelihood(denoiser, x, None, COSINE, "v_prediction", probes=4, rng=_rng(1), **settings)
    assert 2.5 < few.standard_error.mean() / found.standard_error.mean() < 5.5  # √16


def test_hutchinson_is_exact_where_the_jacobian_is_diagonal() -> None:
    """With signs, e_k² = 1: no variance from the diagonal, and none of it lost to another scale."""
    x = torch.tensor([[0.2, -0.7]], dtype=torch.float64)
    gaussian = Gaussian(torch.zeros(2), torch.diag(torch.tensor([0.5, 1.5])))
    settings: dict[str, Any] = {"tolerance": 1e-8, "check_solver": False}
    exact = flow_log_likelihood(gaussian.denoiser(COSINE, "epsilon"), x, None, COSINE, "epsilon", **settings)
    found = flow_log_likelihood(
        gaussian.denoiser(COSINE, "epsilon"), x, None, COSINE, "epsilon", trace="hutchinson", probes=2, rng=_rng(), **settings
    )
    torch.testing.assert_close(found.log_prob, exact.log_prob, atol=1e-6, rtol=0)
    assert found.standard_error.max() < 1e-6


def test_the_solvers_error_is_what_it_says() -> None:
    x = MIXTURE.sample(16, _rng())
    denoiser = MIXTURE.denoiser(COSINE, "v_prediction")
    reference = flow_log_likelihood(denoiser, x, None, COSINE, "v_prediction", tolerance=1e-11, check_solver=False)
    assert torch.isnan(reference.solver_error).all()
    rough = flow_log_likelihood(denoiser, x, None, COSINE, "v_prediction", tolerance=1e-3)
    true = (rough.log_prob - reference.log_prob).abs()
    assert (
        true <= rough.solver_error + 1e-6
    ).float().mean() > 0.8  # the better solution is closer than the two are to each other
    assert reference.evaluations > rough.evaluations / 2


def test_pictures_keep_their_shape_and_type() -> None:
    """float32 of shape (batch, C, S, S), as a network takes them; N(0, I) data have v = 0 and their own density."""
    x = torch.randn(3, 1, 2, 2, generator=_rng())
    shapes = []

    def denoiser(x_t: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        shapes.append((tuple(x_t.shape), x_t.dtype, tuple(t.shape)))
        return 0 * x_t

    found = flow_log_likelihood(denoiser, x, None, COSINE, "v_prediction", trace="hutchinson", rng=_rng())
    assert set(shapes) == {((3, 1, 2, 2), torch.float32, (3,))}
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x.double()).flatten(1).sum(1)
    torch.testing.assert_close(found.log_prob, expected, atol=1e-6, rtol=0)


# The bound


def _exact_bits(x_0: torch.Tensor) -> torch.Tensor:
    return bits_per_dimension(ONE.log_prob(x_0), 1)


def test_bound_is_the_closed_form_for_a_gaussian() -> None:
    """With the exact denoiser each KL's mean over x_t is a number: E(x̂_0 − x_0)² = vσ²/(α²v + σ²) over data and noise."""
    schedule = NoiseSchedule.linear(num_steps=20, beta_start=0.01, beta_end=0.5)
    n, v = 60_000, 0.6
    x_0 = ONE.sample(n, _rng())
    for variance in ("small", "large"):
        bound = variational_bound(ONE.denoiser(schedule, "epsilon"), x_0, None, schedule, "epsilon", _rng(1), variance=variance)
        assert bound.times.tolist() == list(range(2, 21))
        for column, t in enumerate(bound.times.tolist()):
            now, then, beta = schedule.level(t), schedule.level(t - 1), float(schedule.betas[t])
            error = v * now.sigma**2 / (now.alpha**2 * v + now.sigma**2)
            true = beta * then.sigma**2 / now.sigma**2
            model = true if variance == "small" else beta
            shift = (then.alpha * beta / now.sigma**2) ** 2 * error
            kl = 0.5 * (math.log(model / true) + (true + shift) / model - 1) / math.log(2)
            spread = float(bound.steps[:, column].std()) / n**0.5
            assert abs(float(bound.steps[:, column].mean()) - kl) < 4 * spread + 1e-12
        last = schedule.level(20)
        prior = 0.5 * (last.alpha**2 * x_0[:, 0] ** 2 + last.sigma**2 - 1 - math.log(last.sigma**2)) / math.log(2)
        torch.testing.assert_close(bound.prior, prior, rtol=1e-9, atol=1e-12)


def test_bound_lies_above_the_exact_figure_and_meets_it_as_steps_grow() -> None:
    x_0 = ONE.sample(20_000, _rng())
    gaps = []
    for steps in (25, 50, 100, 200):
        schedule = NoiseSchedule(-torch.expm1(-torch.linspace(0.02, 20, steps, dtype=torch.float64) / steps))
        bound = variational_bound(ONE.denoiser(schedule, "epsilon"), x_0, None, schedule, "epsilon", _rng(1))
        gaps.append(float((bound.total - _exact_bits(x_0)).mean()))
    assert all(a > b > 0 for a, b in zip(gaps, gaps[1:], strict=False)), gaps
    assert gaps[-1] < gaps[0] / 4


def test_bound_is_the_weighted_loss() -> None:
    """With "elbo" weights the training loss is the bound in nats, but for the prior and the decoder's ½ ln 2πβ_1."""
    schedule = NoiseSchedule.linear(num_steps=10, beta_start=0.02, beta_end=0.3)  # leaves signal at T: every term counts
    n = 200_000
    x_0 = ONE.sample(n, _rng())
    denoiser = lambda x, t, c: 0.6 * x  # noqa: E731
    bound = variational_bound(denoiser, x_0, None, schedule, "epsilon", _rng(1))
    loss = ddpm_loss(denoiser, x_0, None, schedule, "epsilon", _rng(2), weighting="elbo", times="stratified")
    constant = 0.5 * math.log(2 * math.pi * float(schedule.betas[1])) / math.log(2)
    expected = loss.per_sample / math.log(2) + bound.prior.mean() + constant
    assert bound.prior.mean() > 0.05
    error = math.hypot(float(expected.std()), float(bound.total.std())) / n**0.5
    assert abs(float(expected.mean() - bound.total.mean())) < 4 * error


def test_a_part_of_the_terms_estimates_the_whole() -> None:
    x_0 = ONE.sample(3000, _rng())
    denoiser = ONE.denoiser(LINEAR, "epsilon")
    whole = variational_bound(denoiser, x_0[:300], None, LINEAR, "epsilon", _rng(1)).total.mean()
    parts = []
    for seed in range(12):
        bound = variational_bound(denoiser, x_0, None, LINEAR, "epsilon", _rng(seed), evaluations=40)
        assert bound.steps.shape == (3000, 40)
        assert (bound.times.diff() >= 0).all()
        assert 2 <= bound.times[0] <= bound.times[-1] <= 1000
        parts.append(float(bound.total.mean()))
    assert abs(sum(parts) / 12 - whole) < 0.15 * whole.abs()


def test_decoder_of_whole_numbers_is_a_distribution_and_by_hand() -> None:
    """All levels' probabilities sum to one, and one of them is two Φ's difference."""
    schedule = NoiseSchedule([0.05, 0.5])
    levels = 5
    values = 2 * torch.arange(levels, dtype=torch.float64)[:, None] / (levels - 1) - 1
    denoiser = lambda x, t, c: torch.full_like(x, 0.3)  # noqa: E731
    bound = variational_bound(denoiser, values, None, schedule, "sample", _rng(), levels=levels)
    probabilities = torch.exp2(-bound.decoder)
    assert math.isclose(float(probabilities.sum()), 1.0, rel_tol=1e-12)
    deviation = math.sqrt(0.05)
    by_hand = stats.norm.cdf((0.75 - 0.3) / deviation) - stats.norm.cdf((0.25 - 0.3) / deviation)
    assert math.isclose(float(probabilities[3]), by_hand, rel_tol=1e-9)
    # Far out in either tail no digit is lost: log Φ by scipy.
    far = variational_bound(
        lambda x, t, c: torch.full_like(x, -30.0), values[-1:], None, schedule, "sample", _rng(), levels=levels
    )
    assert math.isclose(float(far.decoder), -stats.norm.logsf((0.75 + 30) / deviation) / math.log(2), rel_tol=1e-9)
    near = variational_bound(
        lambda x, t, c: torch.full_like(x, 30.0), values[2:3], None, schedule, "sample", _rng(), levels=levels
    )
    gap = stats.norm.logcdf((0.25 - 30) / deviation)
    assert math.isclose(float(near.decoder), -gap / math.log(2), rel_tol=1e-6)


def test_continuous_decoder_is_a_normal_density() -> None:
    schedule = NoiseSchedule([0.05, 0.5])
    x_0 = torch.tensor([[0.4, -1.0]], dtype=torch.float64)
    bound = variational_bound(lambda x, t, c: torch.full_like(x, 0.3), x_0, None, schedule, "sample", _rng())
    expected = -stats.norm.logpdf(x_0.numpy(), 0.3, math.sqrt(0.05)).mean() / math.log(2)
    assert math.isclose(float(bound.decoder), expected, rel_tol=1e-12)


# Bits


def test_bits_a_dimension_by_hand() -> None:
    """Even over [−1, 1]: 1 bit a dimension as a density, and 8 bits where it stands for 256 levels; a standard normal's entropy."""
    even = torch.tensor([-3 * math.log(2)])
    assert math.isclose(float(bits_per_dimension(even, 3)), 1.0, rel_tol=1e-6)
    assert math.isclose(float(bits_per_dimension(even, 3, levels=256)), 8.0, rel_tol=1e-6)
    normal = torch.tensor([-0.5 * math.log(2 * math.pi * math.e)], dtype=torch.float64)
    assert math.isclose(float(bits_per_dimension(normal, 1)), 2.047095585180641, rel_tol=1e-12)


def test_dequantised_numbers_fill_their_intervals() -> None:
    whole = torch.arange(4).repeat(5000)
    x = dequantise(whole, 4, _rng())
    assert torch.equal(((x + 1) * 2).floor().long(), whole)
    assert stats.kstest(x.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


# Mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0}, "0 < start < 1000"),
        ({"start": 1000}, "0 < start < 1000"),
        ({"trace": "approximate"}, "'exact' or 'hutchinson'"),
        ({"trace": "hutchinson"}, "pass rng"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"probes": 1}, "two probes"),
    ],
)
def test_wrong_settings_of_the_flow_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        flow_log_likelihood(ONE.denoiser(COSINE, "epsilon"), torch.zeros(1, 1), None, COSINE, "epsilon", **settings)


def test_wrong_data_and_denoisers_are_refused() -> None:
    x = torch.zeros(2, 3)
    nan, short = (lambda x, t, c: x * math.nan), (lambda x, t, c: x[:, :1])
    for denoiser, error, message in (
        (nan, OrnsteinError, "not finite at t"),
        (short, DataError, r"shape \(2, 3\), got \(2, 1\)"),
    ):
        with pytest.raises(error, match=message):
            flow_log_likelihood(denoiser, x, None, COSINE, "epsilon")
        with pytest.raises(error, match=message):
            variational_bound(denoiser, x, None, COSINE, "epsilon", _rng(), evaluations=2)
    good = ONE.denoiser(COSINE, "epsilon")
    with pytest.raises(DataError, match="999 middle terms, 1000"):
        variational_bound(good, torch.zeros(1, 1), None, COSINE, "epsilon", _rng(), evaluations=1000)
    with pytest.raises(DataError, match=r"whole numbers 0 … 255 scaled to \[−1, 1\]"):
        variational_bound(good, torch.full((1, 1), 0.3), None, COSINE, "epsilon", _rng(), levels=256)
    for wrong in (torch.tensor([-1]), torch.tensor([4]), torch.tensor([0.5])):
        with pytest.raises(DataError, match="whole numbers within 0 … 3"):
            dequantise(wrong, 4, _rng())
    with pytest.raises(DataError, match="at least one dimension"):
        bits_per_dimension(torch.zeros(1), 0)
    with pytest.raises(DataError, match="no signal is left"):
        zero = COSINE.with_zero_terminal_snr()
        flow_log_likelihood(ONE.denoiser(COSINE, "epsilon"), torch.zeros(1, 1), None, zero, "epsilon", tolerance=1e-3)


def test_whole_numbers_have_no_density_and_half_precision_costs_none() -> None:
    denoiser = ONE.denoiser(COSINE, "epsilon")
    whole = torch.zeros(1, 1, dtype=torch.uint8)
    with pytest.raises(DataError, match="dequantise"):
        flow_log_likelihood(denoiser, whole, None, COSINE, "epsilon")
    with pytest.raises(DataError, match="uint8"):
        variational_bound(denoiser, whole, None, COSINE, "epsilon", _rng())
    x = torch.tensor([[0.5]])  # the same number in both
    half, full = (flow_log_likelihood(denoiser, x.to(kind), None, COSINE, "epsilon") for kind in (torch.float16, torch.float32))
    assert torch.equal(half.log_prob, full.log_prob)


def test_eight_bit_pictures_are_dequantised_and_one_step_has_a_bound() -> None:
    x = dequantise(torch.tensor([0, 255], dtype=torch.uint8), 256, _rng())
    assert -1 <= x[0] < -1 + 2 / 256
    assert 1 - 2 / 256 <= x[1] < 1
    schedule = NoiseSchedule([0.5])
    bound = variational_bound(ONE.denoiser(schedule, "epsilon"), ONE.sample(3, _rng()), None, schedule, "epsilon", _rng(1))
    torch.testing.assert_close(bound.total, bound.prior + bound.decoder)
