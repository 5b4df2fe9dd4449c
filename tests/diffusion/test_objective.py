from __future__ import annotations

import math

import pytest
import torch

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import (
    PREDICTIONS,
    DiffusionLoss,
    Gaussian,
    NoiseSchedule,
    Times,
    ddpm_loss,
    loss_by_band,
    loss_weight,
    sample_times,
)

SCHEDULE = NoiseSchedule.linear(num_steps=20, beta_start=0.01, beta_end=0.3)
GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0]), torch.diag(torch.tensor([0.25, 2.0])))


def _least_losses(kind: str) -> list[float]:
    """The best denoiser's loss at t = 1 … 20. For N(μ, λ) a dimension Var[ε | x_t] = α²λ/(α²λ + σ²), and each prediction's
    error is ε's times a known factor.
    """
    losses = []
    for t in range(1, 21):
        bar = float(SCHEDULE.alpha_bars[t])
        eps_error = sum(bar * v / (bar * v + 1 - bar) for v in (0.25, 2.0)) / 2
        factor = {"epsilon": 1.0, "sample": (1 - bar) / bar, "v_prediction": 1 / bar, "score": 1 / (1 - bar)}[kind]
        losses.append(eps_error * factor)
    return losses


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_the_best_denoiser_has_the_analytic_loss(kind: str, times: Times) -> None:
    """In all, and at each time step by itself."""
    rng = torch.Generator().manual_seed(0)
    n = 60_000
    x_0 = GAUSSIAN.sample(n, rng)
    result = ddpm_loss(GAUSSIAN.denoiser(SCHEDULE, kind), x_0, None, SCHEDULE, kind, rng, times=times)
    expected = _least_losses(kind)
    assert abs(float(result.loss) - sum(expected) / 20) < 4 * float(result.per_sample.std()) / math.sqrt(n)
    for t in range(1, 21):
        at_t = result.per_sample[result.t == t]
        assert abs(float(at_t.mean()) - expected[t - 1]) < 4.5 * float(at_t.std()) / math.sqrt(len(at_t))


def test_a_worse_denoiser_has_a_larger_loss() -> None:
    x_0 = GAUSSIAN.sample(20_000, torch.Generator().manual_seed(1))
    best = GAUSSIAN.denoiser(SCHEDULE, "epsilon")

    def loss(denoiser: object) -> float:
        return float(ddpm_loss(denoiser, x_0, None, SCHEDULE, "epsilon", torch.Generator().manual_seed(2)).loss)  # type: ignore[arg-type]

    late = [lambda x, t, c: best(x, (t + 1).clamp(max=20), c), lambda x, t, c: 1.05 * best(x, t, c)]
    for other in late:
        assert loss(other) > loss(best)


def test_gradient_descent_on_the_loss_finds_the_best_denoiser() -> None:
    """An affine network a time step, trained on ε, must reach the analytic coefficients of the Gaussian's denoiser."""
    schedule = NoiseSchedule([0.3, 0.6])
    m, v = 0.7, 0.4
    data = Gaussian(torch.tensor([m]), torch.tensor([[v]]))
    rng = torch.Generator().manual_seed(3)
    slope, offset = (torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([slope, offset], lr=0.05)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        result = ddpm_loss(
            lambda x, t, c: slope[t][:, None] * x + offset[t][:, None], data.sample(2000, rng), None, schedule, "epsilon", rng
        )
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    for t in (1, 2):
        alpha, sigma = float(schedule.alphas[t]), float(schedule.sigmas[t])
        exact = sigma / (alpha**2 * v + sigma**2)  # E[ε | x] = σ (x − αm) / (α²v + σ²)
        assert abs(slope[t].item() - exact) < 0.02
        assert abs(offset[t].item() + exact * alpha * m) < 0.02


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_times_are_uniform_on_one_to_T(times: Times) -> None:
    rng = torch.Generator().manual_seed(3)
    t = torch.cat([sample_times(64, 20, rng, times) for _ in range(1000)])
    counts = torch.bincount(t, minlength=22).double()
    assert counts[0] == 0
    assert counts[21] == 0
    expected = 64_000 / 20
    chi2 = float(((counts[1:21] - expected) ** 2 / expected).sum())
    assert chi2 < 43.8  # the 99.9 % point with 19 degrees of freedom
    # Not only all together: the batch's first place is uniform too, so that no sample is always seen at the same noise.
    first = torch.stack([sample_times(8, 20, rng, times)[0] for _ in range(4000)])
    counts = torch.bincount(first, minlength=21)[1:].double()
    assert float(((counts - 200) ** 2 / 200).sum()) < 43.8


def test_a_stratified_batch_covers_every_part() -> None:
    t = sample_times(20, 20, torch.Generator().manual_seed(4), "stratified")
    assert sorted(t.tolist()) == list(range(1, 21))
    assert t.tolist() != list(range(1, 21))
    for batch in (1, 3, 7, 33):
        parts = (sample_times(batch, 1000, torch.Generator().manual_seed(batch), "stratified") - 1) * batch // 1000
        gaps = parts.sort().values - torch.arange(batch)
        assert (gaps.abs() <= 1).all()  # a part's border may fall inside a time step


def _min_snr(schedule: NoiseSchedule, t: torch.Tensor, kind: str, gamma: float = 5.0) -> torch.Tensor:
    return loss_weight(schedule, t, kind, "min_snr", min_snr_gamma=gamma)


def test_min_snr_weights_agree_between_predictions() -> None:
    """One weighting, four ways to say it: weight × that prediction's error is the same number for all."""
    t = torch.arange(1, 21)
    bar = SCHEDULE.alpha_bar(t)
    factor = {"epsilon": torch.ones(20).double(), "sample": (1 - bar) / bar, "v_prediction": 1 / bar, "score": 1 / (1 - bar)}
    reference = _min_snr(SCHEDULE, t, "epsilon")
    for kind in PREDICTIONS:
        torch.testing.assert_close(_min_snr(SCHEDULE, t, kind) * factor[kind], reference)
    snr = bar / (1 - bar)
    torch.testing.assert_close(_min_snr(SCHEDULE, t, "sample"), snr.clamp(max=5.0))
    torch.testing.assert_close(_min_snr(SCHEDULE, t, "v_prediction"), snr.clamp(max=5.0) / (snr + 1))
    assert (snr > 5).any()
    assert (snr < 5).any()


def test_the_weights_are_finite_where_no_signal_is_left() -> None:
    schedule = NoiseSchedule([0.2, 1.0])
    limits = {"epsilon": 1.0, "sample": 0.0, "v_prediction": 0.0, "score": 1.0}
    for kind in PREDICTIONS:
        assert float(_min_snr(schedule, torch.tensor([2]), kind)) == limits[kind]


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_weighted_loss_is_the_weight_times_the_plain_one(kind: str) -> None:
    x_0 = GAUSSIAN.sample(50, torch.Generator().manual_seed(5))

    def loss(**settings: object) -> object:
        rng = torch.Generator().manual_seed(6)
        return ddpm_loss(lambda x, t, c: 0.5 * x, x_0, None, SCHEDULE, kind, rng, **settings)  # type: ignore[arg-type]

    plain, weighted = loss(), loss(weighting="min_snr", min_snr_gamma=3.0)
    assert torch.equal(plain.t, weighted.t)  # type: ignore[attr-defined]
    expected = plain.per_sample * _min_snr(SCHEDULE, plain.t, kind, 3.0)  # type: ignore[attr-defined]
    torch.testing.assert_close(weighted.per_sample, expected)  # type: ignore[attr-defined]
    torch.testing.assert_close(weighted.loss, expected.mean())  # type: ignore[attr-defined]


def test_the_denoiser_sees_what_the_contract_says_and_the_generator_decides_all() -> None:
    seen = []

    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        seen.append((x, t, condition))
        return x.bfloat16()

    x_0 = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    results = [ddpm_loss(denoiser, x_0, "c", SCHEDULE, "epsilon", torch.Generator().manual_seed(1)) for _ in range(2)]
    for x, t, condition in seen:
        assert (x.shape, x.dtype) == (x_0.shape, torch.float32)
        assert (t.shape, t.dtype) == ((6,), torch.int64)
        assert condition == "c"
    assert torch.equal(results[0].per_sample, results[1].per_sample)
    assert results[0].per_sample.shape == (6,)
    assert results[0].per_sample.dtype == torch.float32  # whatever the network's precision


def test_mistakes_are_named() -> None:
    rng = torch.Generator()
    x = torch.zeros(3, 2)
    with pytest.raises(DataError, match="at least one sample"):
        ddpm_loss(lambda x, t, c: x, torch.zeros(0, 2), None, SCHEDULE, "epsilon", rng)
    with pytest.raises(DataError, match="data's shape"):
        ddpm_loss(lambda x, t, c: x[:, :1], x, None, SCHEDULE, "epsilon", rng)
    with pytest.raises(UnknownNameError, match="min_snr"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "epsilon", rng, weighting="snr")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="stratified"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "epsilon", rng, times="strat")  # type: ignore[arg-type]
    for weights in (lambda log_snr: -log_snr.exp(), lambda log_snr: log_snr[:1] * 0, lambda log_snr: log_snr * float("nan")):
        with pytest.raises(DataError, match="finite, not negative and one a sample"):
            ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "epsilon", rng, weighting=weights)
    no_signal = NoiseSchedule([0.2, 1.0])
    with pytest.raises(DataError, match="needs 'sample' or 'v_prediction'"):
        loss_weight(no_signal, torch.tensor([2]), "epsilon", "elbo")
    with pytest.raises(DataError, match="bands"):
        loss_by_band(DiffusionLoss(x, x, x), 3, bands=4)
    with pytest.raises(DataError, match="gamma"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "epsilon", rng, weighting="min_snr", min_snr_gamma=0.0)
    with pytest.raises(UnknownNameError, match="sample"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "x0", rng)


@pytest.mark.parametrize("weighting", ["min_snr", "elbo", lambda log_snr: torch.sigmoid(log_snr - 1) + 0.1])
def test_a_weighting_is_one_whatever_is_predicted(weighting: object) -> None:
    t = torch.arange(1, 21)
    bar = SCHEDULE.alpha_bar(t)
    factor = {"epsilon": torch.ones(20).double(), "sample": (1 - bar) / bar, "v_prediction": 1 / bar, "score": 1 / (1 - bar)}
    reference = loss_weight(SCHEDULE, t, "epsilon", weighting)  # type: ignore[arg-type]
    for kind in PREDICTIONS:
        torch.testing.assert_close(loss_weight(SCHEDULE, t, kind, weighting) * factor[kind], reference)  # type: ignore[arg-type]
    if callable(weighting):
        torch.testing.assert_close(reference, weighting(torch.log(bar / (1 - bar))))


def test_the_elbo_weights_are_those_of_the_paper() -> None:
    """Ho et al. 2020, eq. 8 and 12 with σ_t² = β̃_t, in ε: β_t² / (2 β̃_t (1 − β_t) (1 − α̅_t)), for t ≥ 2; T times, as a mean over t."""
    t = torch.arange(2, 21)
    beta, bar, before = SCHEDULE.beta(t), SCHEDULE.alpha_bar(t), SCHEDULE.alpha_bar(t - 1)
    tilde = (1 - before) / (1 - bar) * beta
    expected = 20 * beta**2 / (2 * tilde * (1 - beta) * (1 - bar))
    torch.testing.assert_close(loss_weight(SCHEDULE, t, "epsilon", "elbo"), expected)
    first = loss_weight(SCHEDULE, torch.tensor([1]), "sample", "elbo")
    torch.testing.assert_close(first, 20 / (2 * SCHEDULE.betas[1:2]))
    no_signal = NoiseSchedule([0.2, 0.5, 1.0])
    snr = 0.4 / 0.6  # at t = 2; at t = 3 it is 0
    assert float(loss_weight(no_signal, torch.tensor([3]), "sample", "elbo")) == pytest.approx(1.5 * snr)
    assert float(loss_weight(no_signal, torch.tensor([3]), "v_prediction", "elbo")) == pytest.approx(1.5 * snr)


def test_the_elbo_weighted_loss_of_the_best_denoiser_is_the_data_s_entropy() -> None:
    """With the terms that no network changes, the bound lies above −E log p and meets it as the steps become fine."""
    variance = 0.6
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)
    gaps = []
    for steps in (50, 400, 3200):
        # Equal steps in the log-SNR: with steps in time, the first few always double the noise, however many there are.
        bars = torch.sigmoid(torch.linspace(12, -12, steps, dtype=torch.float64))
        schedule = NoiseSchedule(1 - bars / torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]]))
        t = torch.arange(1, steps + 1)
        bar = schedule.alpha_bar(t)
        least = variance * (1 - bar) / (bar * variance + 1 - bar)  # Var[x_0 | x_t]
        bound = float((loss_weight(schedule, t, "sample", "elbo") * least).mean())
        bound += 0.5 * math.log(2 * math.pi * float(schedule.betas[1])) + schedule.terminal_kl(variance) * math.log(2)
        gaps.append(bound - entropy)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.03
    assert gaps[1] / gaps[2] == pytest.approx(8, rel=0.5)  # first order in the step


def test_logit_normal_times_have_their_law() -> None:
    t = sample_times(40_000, 1000, torch.Generator().manual_seed(0), "logit_normal")
    assert (int(t.min()) >= 1, int(t.max()) <= 1000) == (True, True)
    for place in (0.1, 0.3, 0.5, 0.9):
        expected = 0.5 * math.erfc(-math.log(place / (1 - place)) / math.sqrt(2))
        assert abs(float((t <= place * 1000).double().mean()) - expected) < 4 * math.sqrt(expected * (1 - expected) / 40_000)


def test_bands_split_the_loss() -> None:
    t = torch.tensor([1, 250, 251, 1000, 1000])
    result = DiffusionLoss(torch.tensor(0.0), torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0]), t)
    bands = loss_by_band(result, 1000)
    assert bands[[0, 1, 3]].tolist() == [2.0, 5.0, 8.0]
    assert math.isnan(float(bands[2]))
