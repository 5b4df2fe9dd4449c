from __future__ import annotations

import math

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.diffusion import PREDICTIONS, Gaussian, NoiseSchedule, ddpm_loss, min_snr_weight, sample_times

SCHEDULE = NoiseSchedule.linear(num_steps=20, beta_start=0.01, beta_end=0.3)


def _data(n: int, rng: torch.Generator) -> tuple[Gaussian, torch.Tensor]:
    gaussian = Gaussian(torch.tensor([0.5, -1.0]), torch.diag(torch.tensor([0.25, 2.0])))
    return gaussian, gaussian.sample(n, rng)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_best_denoiser_has_the_analytic_loss(kind: str) -> None:
    """For N(μ, λ) a dimension: Var[ε | x_t] = α²λ/(α²λ + σ²), and each prediction's error is ε's times a known factor."""
    rng = torch.Generator().manual_seed(0)
    gaussian, x_0 = _data(60_000, rng)
    result = ddpm_loss(gaussian.denoiser(SCHEDULE, kind), x_0, None, SCHEDULE, kind, rng)
    expected = []
    for t in range(1, 21):
        bar = float(SCHEDULE.alpha_bars[t])
        eps_error = sum(bar * v / (bar * v + 1 - bar) for v in (0.25, 2.0)) / 2
        factor = {"epsilon": 1.0, "sample": (1 - bar) / bar, "v_prediction": 1 / bar, "score": 1 / (1 - bar)}[kind]
        expected.append(eps_error * factor)
    error = float(result.per_sample.std()) / math.sqrt(60_000)
    assert abs(float(result.loss) - sum(expected) / 20) < 4 * error


def test_a_worse_denoiser_has_a_larger_loss() -> None:
    rng = torch.Generator().manual_seed(1)
    gaussian, x_0 = _data(20_000, rng)
    best = gaussian.denoiser(SCHEDULE, "epsilon")

    def loss(denoiser: object) -> float:
        return float(ddpm_loss(denoiser, x_0, None, SCHEDULE, "epsilon", torch.Generator().manual_seed(2)).loss)  # type: ignore[arg-type]

    late = [lambda x, t, c: best(x, (t + 1).clamp(max=20), c), lambda x, t, c: 1.05 * best(x, t, c)]
    for other in late:
        assert loss(other) > loss(best)


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


def test_a_stratified_batch_covers_every_part() -> None:
    t = sample_times(20, 20, torch.Generator().manual_seed(4), stratified=True)
    assert sorted(t.tolist()) == list(range(1, 21))
    assert t.tolist() != list(range(1, 21))


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


def test_mistakes_are_named() -> None:
    rng = torch.Generator()
    with pytest.raises(DataError, match="at least one sample"):
        ddpm_loss(lambda x, t, c: x, torch.zeros(0, 2), None, SCHEDULE, "epsilon", rng)
    with pytest.raises(DataError, match="data's shape"):
        ddpm_loss(lambda x, t, c: x[:, :1], torch.zeros(3, 2), None, SCHEDULE, "epsilon", rng)
    with pytest.raises(DataError, match="'simple' or 'min_snr'"):
        ddpm_loss(lambda x, t, c: x, torch.zeros(3, 2), None, SCHEDULE, "epsilon", rng, weighting="snr")  # type: ignore[arg-type]
