from __future__ import annotations

import math

import pytest
import torch

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import PREDICTIONS, Gaussian, NoiseSchedule, ddpm_loss, min_snr_weight, sample_times

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
@pytest.mark.parametrize("stratified", [False, True])
def test_the_best_denoiser_has_the_analytic_loss(kind: str, stratified: bool) -> None:
    """In all, and at each time step by itself."""
    rng = torch.Generator().manual_seed(0)
    n = 60_000
    x_0 = GAUSSIAN.sample(n, rng)
    result = ddpm_loss(GAUSSIAN.denoiser(SCHEDULE, kind), x_0, None, SCHEDULE, kind, rng, stratified=stratified)
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


@pytest.mark.parametrize("stratified", [False, True])
def test_times_are_uniform_on_one_to_T(stratified: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    t = torch.cat([sample_times(64, 20, rng, stratified=stratified) for _ in range(1000)])
    counts = torch.bincount(t, minlength=22).double()
    assert counts[0] == 0
    assert counts[21] == 0
    expected = 64_000 / 20
    chi2 = float(((counts[1:21] - expected) ** 2 / expected).sum())
    assert chi2 < 43.8  # the 99.9 % point with 19 degrees of freedom
    # Not only all together: the batch's first place is uniform too, so that no sample is always seen at the same noise.
    first = torch.stack([sample_times(8, 20, rng, stratified=stratified)[0] for _ in range(4000)])
    counts = torch.bincount(first, minlength=21)[1:].double()
    assert float(((counts - 200) ** 2 / 200).sum()) < 43.8


def test_a_stratified_batch_covers_every_part() -> None:
    t = sample_times(20, 20, torch.Generator().manual_seed(4), stratified=True)
    assert sorted(t.tolist()) == list(range(1, 21))
    assert t.tolist() != list(range(1, 21))
    for batch in (1, 3, 7, 33):
        parts = (sample_times(batch, 1000, torch.Generator().manual_seed(batch), stratified=True) - 1) * batch // 1000
        gaps = parts.sort().values - torch.arange(batch)
        assert (gaps.abs() <= 1).all()  # a part's border may fall inside a time step


def test_min_snr_weights_agree_between_predictions() -> None:
    """One weighting, four ways to say it: weight × that prediction's error is the same number for all."""
    t = torch.arange(1, 21)
    bar = SCHEDULE.alpha_bar(t)
    factor = {"epsilon": torch.ones(20).double(), "sample": (1 - bar) / bar, "v_prediction": 1 / bar, "score": 1 / (1 - bar)}
    reference = min_snr_weight(SCHEDULE, t, "epsilon", 5.0)
    for kind in PREDICTIONS:
        torch.testing.assert_close(min_snr_weight(SCHEDULE, t, kind, 5.0) * factor[kind], reference)
    snr = bar / (1 - bar)
    torch.testing.assert_close(min_snr_weight(SCHEDULE, t, "sample", 5.0), snr.clamp(max=5.0))
    torch.testing.assert_close(min_snr_weight(SCHEDULE, t, "v_prediction", 5.0), snr.clamp(max=5.0) / (snr + 1))
    assert (snr > 5).any()
    assert (snr < 5).any()


def test_the_weights_are_finite_where_no_signal_is_left() -> None:
    schedule = NoiseSchedule([0.2, 1.0])
    limits = {"epsilon": 1.0, "sample": 0.0, "v_prediction": 0.0, "score": 1.0}
    for kind in PREDICTIONS:
        assert float(min_snr_weight(schedule, torch.tensor([2]), kind, 5.0)) == limits[kind]


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_weighted_loss_is_the_weight_times_the_plain_one(kind: str) -> None:
    x_0 = GAUSSIAN.sample(50, torch.Generator().manual_seed(5))

    def loss(**settings: object) -> object:
        rng = torch.Generator().manual_seed(6)
        return ddpm_loss(lambda x, t, c: 0.5 * x, x_0, None, SCHEDULE, kind, rng, **settings)  # type: ignore[arg-type]

    plain, weighted = loss(), loss(weighting="min_snr", min_snr_gamma=3.0)
    assert torch.equal(plain.t, weighted.t)  # type: ignore[attr-defined]
    expected = plain.per_sample * min_snr_weight(SCHEDULE, plain.t, kind, 3.0)  # type: ignore[attr-defined]
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
    with pytest.raises(DataError, match="'simple' or 'min_snr'"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "epsilon", rng, weighting="snr")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="gamma"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "epsilon", rng, weighting="min_snr", min_snr_gamma=0.0)
    with pytest.raises(UnknownNameError, match="sample"):
        ddpm_loss(lambda x, t, c: x, x, None, SCHEDULE, "x0", rng)
